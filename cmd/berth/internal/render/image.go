package render

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"

	"github.com/berth-containers/berth/cmd/berth/internal/imageref"
)

// The tables of berth images and berth history.
const (
	ImageTable       = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	ImageDigestTable = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	HistoryTable     = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	HistoryTimeTable = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
)

// ImageHeader has the headings of [Image].
func ImageHeader() Header {
	return Header{
		"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST",
		"CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE", "VirtualSize": "SIZE",
		"Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}
}

// Image is a line of berth images.
type Image struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

const none = "<none>"

// NewImages makes the lines of an image: one per name; with digests one per
// name and digest.
func NewImages(s *image.Summary, trunc, digests bool, now time.Time) []Image {
	base := newImage(s, trunc, now)
	byRepo := map[string][]string{} // repository → its digests
	for _, text := range s.RepoDigests {
		if ref := imageref.Parse(text); ref.Repo != none {
			byRepo[ref.Repo] = append(byRepo[ref.Repo], ref.Digest)
		}
	}
	var lines []Image
	add := func(repo, tag, digest string) {
		line := base
		line.Repository, line.Tag, line.Digest = repo, tag, digest
		lines = append(lines, line)
	}
	tagged := map[string]bool{}
	for _, text := range s.RepoTags {
		ref := imageref.Parse(text)
		if ref.Repo == none {
			continue
		}
		tagged[ref.Repo] = true
		if known := byRepo[ref.Repo]; digests && len(known) > 0 {
			for _, d := range known {
				add(ref.Repo, ref.Tag, d)
			}
			continue
		}
		add(ref.Repo, ref.Tag, none)
	}
	for _, text := range s.RepoDigests {
		if ref := imageref.Parse(text); ref.Repo != none && !tagged[ref.Repo] {
			add(ref.Repo, none, ref.Digest)
		}
	}
	if len(lines) == 0 {
		add(none, none, none)
	}
	return lines
}

func newImage(s *image.Summary, trunc bool, now time.Time) Image {
	created := time.Unix(s.Created, 0)
	i := Image{
		ID: s.ID, CreatedAt: created.String(), CreatedSince: Since(created, now),
		Size:        units.HumanSizeWithPrecision(float64(s.Size), 3),
		VirtualSize: units.HumanSize(float64(s.Size)),
		Containers:  "N/A", SharedSize: "N/A", UniqueSize: "N/A",
	}
	if trunc {
		i.ID = ShortID(s.ID)
	}
	if s.Containers >= 0 {
		i.Containers = strconv.FormatInt(s.Containers, 10)
	}
	if s.SharedSize >= 0 {
		i.SharedSize = units.HumanSize(float64(s.SharedSize))
		i.UniqueSize = units.HumanSize(float64(s.Size - s.SharedSize))
	}
	return i
}

// Since says how long ago something was; N/A for what has no time.
func Since(t, now time.Time) string {
	if t.Unix() <= 0 {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// HistoryHeader has the headings of [History].
func HistoryHeader() Header {
	return Header{
		"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
	}
}

// History is a line of berth history.
type History struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

// NewHistory makes a line; human writes sizes and times for people.
func NewHistory(h *image.HistoryResponseItem, trunc, human bool, now time.Time) History {
	created := time.Unix(h.Created, 0)
	line := History{
		ID: h.ID, Comment: h.Comment, CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " "),
		CreatedAt: created.Format(time.RFC3339), CreatedSince: Since(created, now),
		Size: units.HumanSizeWithPrecision(float64(h.Size), 3),
	}
	if trunc {
		line.ID, line.CreatedBy = ShortID(h.ID), Ellipsis(line.CreatedBy, 45)
	}
	if !human {
		line.CreatedSince, line.Size = line.CreatedAt, strconv.FormatInt(h.Size, 10)
	}
	return line
}
