package crash_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// registry serves one image, pulled:latest, as a registry does.
type registry struct {
	host  string
	blobs map[string][]byte
}

// newRegistry serves rootfs as the image's only layer.
func newRegistry(t *testing.T, rootfs []byte) (*registry, error) {
	t.Helper()
	g := &registry{blobs: map[string][]byte{}}
	var layer bytes.Buffer
	z := gzip.NewWriter(&layer)
	if _, err := z.Write(rootfs); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(rootfs)}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": g.put("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{g.put("application/vnd.oci.image.layer.v1.tar+gzip", layer.Bytes())},
	})
	if err != nil {
		return nil, err
	}
	g.put(manifestType, manifest)
	g.blobs["latest"] = manifest
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	g.host = strings.TrimPrefix(server.URL, "http://")
	return g, nil
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// put keeps a blob and returns its descriptor.
func (g *registry) put(mediaType string, b []byte) map[string]any {
	g.blobs[digestOf(b)] = b
	return map[string]any{"mediaType": mediaType, "digest": digestOf(b), "size": len(b)}
}

// ServeHTTP answers /v2/, /v2/pulled/manifests/REF and /v2/pulled/blobs/DIGEST.
func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	b, ok := g.blobs[parts[len(parts)-1]]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", manifestType)
	}
	w.Header().Set("Docker-Content-Digest", digestOf(b))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}
