package render

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// treeLine is a line of [ImageTree]: a name, or a platform below one.
type treeLine struct {
	name, id      string
	disk, content int64
	used          bool
	details       bool // false for the names before an image's last one
}

// ImageTree writes images with what they have on the disk, for each platform,
// unpacked and as it came.
func ImageTree(w io.Writer, list []image.Summary) error {
	var lines []treeLine
	for i := range list {
		lines = append(lines, imageLines(&list[i])...)
	}
	width := len("IMAGE")
	for _, l := range lines {
		width = max(width, utf8.RuneCountInString(l.name))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s   %-12s   DISK USAGE   CONTENT SIZE   USED\n", width, "IMAGE", "ID")
	for _, l := range lines {
		if !l.details {
			b.WriteString(l.name + "\n")
			continue
		}
		used := ""
		if l.used {
			used = "    ✔"
		}
		fmt.Fprintf(&b, "%-*s   %-12s   %10s   %12s%s\n", width, l.name, ShortID(l.id),
			units.HumanSizeWithPrecision(float64(l.disk), 3), units.HumanSizeWithPrecision(float64(l.content), 3), used)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// imageLines are an image's names and its platforms.
func imageLines(s *image.Summary) []treeLine {
	names := s.RepoTags
	if len(names) == 0 {
		names = []string{"<untagged>"}
	}
	var lines []treeLine
	for _, name := range names {
		lines = append(lines, treeLine{name: name})
	}
	top := &lines[len(lines)-1]
	top.id, top.details, top.used = s.ID, true, s.Containers > 0
	var platforms []treeLine
	for _, m := range s.Manifests {
		if m.Kind != image.ManifestKindImage || m.ImageData == nil {
			continue
		}
		used := len(m.ImageData.Containers) > 0
		platforms = append(platforms, treeLine{
			name: "├─ " + platformName(m.ImageData.Platform), id: m.ID, disk: m.Size.Total, content: m.Size.Content, used: used, details: true,
		})
		top.disk, top.content, top.used = top.disk+m.Size.Total, top.content+m.Size.Content, top.used || used
	}
	if n := len(platforms); n > 0 {
		platforms[n-1].name = strings.Replace(platforms[n-1].name, "├", "└", 1)
	}
	return append(lines, platforms...)
}

func platformName(p ocispec.Platform) string {
	return strings.TrimRight(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}
