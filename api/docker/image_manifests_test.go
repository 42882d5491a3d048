package docker

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"

	"github.com/berth-containers/berth/engine"
)

// manifestEngine knows an image's manifests.
type manifestEngine struct{ Engine }

func (manifestEngine) ImageList(_ context.Context, opt engine.ImageListOptions) ([]image.Summary, error) {
	s := image.Summary{ID: "sha256:aa"}
	if opt.Manifests {
		s.Manifests = []image.ManifestSummary{{ID: "sha256:bb"}}
	}
	return []image.Summary{s}, nil
}

func (manifestEngine) ImageInspect(context.Context, string) (*image.InspectResponse, error) {
	return &image.InspectResponse{ID: "sha256:aa", Manifests: []image.ManifestSummary{{ID: "sha256:bb"}}}, nil
}

// TestImageManifests: they are shown to who asks for them, by an API that has them.
func TestImageManifests(t *testing.T) {
	socket, _ := serve(t, manifestEngine{})
	for path, shown := range map[string]bool{
		"/images/json": false, "/images/json?manifests=1": true, "/v1.46/images/json?manifests=1": false, "/v1.47/images/json?manifests=1": true,
		"/images/x/json": false, "/images/x/json?manifests=1": true, "/v1.47/images/x/json?manifests=1": false, "/v1.48/images/x/json?manifests=1": true,
	} {
		resp, body := send(t, httpClient(t, socket), http.MethodGet, path, "")
		if resp.StatusCode != 200 || strings.Contains(body, "sha256:bb") != shown {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
}
