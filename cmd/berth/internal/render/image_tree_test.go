package render

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestImageTree(t *testing.T) {
	manifest := func(id, arch, variant string, content, unpacked int64, containers ...string) image.ManifestSummary {
		m := image.ManifestSummary{ID: "sha256:" + strings.Repeat(id, 64), Kind: image.ManifestKindImage, ImageData: &image.ImageProperties{
			Platform: ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}, Containers: containers,
		}}
		m.Size.Content, m.Size.Total = content, content+unpacked
		return m
	}
	list := []image.Summary{
		{ID: "sha256:" + strings.Repeat("a", 64), RepoTags: []string{"box:1", "registry.example/team/box:latest"}, Manifests: []image.ManifestSummary{
			manifest("1", "amd64", "", 4_090_000, 9_510_000, "c1"),
			manifest("2", "arm64", "v8", 0, 0),
			{Kind: image.ManifestKindAttestation},
		}},
		{ID: "sha256:" + strings.Repeat("b", 64), Containers: 1},
	}
	const want = `IMAGE                              ID             DISK USAGE   CONTENT SIZE   USED
box:1
registry.example/team/box:latest   aaaaaaaaaaaa       13.6MB         4.09MB    ✔
├─ linux/amd64                     111111111111       13.6MB         4.09MB    ✔
└─ linux/arm64/v8                  222222222222           0B             0B
<untagged>                         bbbbbbbbbbbb           0B             0B    ✔
`
	var b strings.Builder
	if err := ImageTree(&b, list); err != nil || b.String() != want {
		t.Errorf("%v\n%s, want\n%s", err, b.String(), want)
	}
}
