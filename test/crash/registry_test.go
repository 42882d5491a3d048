package crash_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// registry serves one image, pulled:latest, as a registry does, and takes others.
type registry struct {
	host string

	mu sync.Mutex
	// blobs are found by digest, manifests also by repository and tag.
	blobs map[string][]byte
	// pulled are those that belong to pulled:latest.
	pulled []string
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
	g.blobs["pulled:latest"] = manifest
	g.pulled = slices.Collect(maps.Keys(g.blobs))
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	g.host = strings.TrimPrefix(server.URL, "http://")
	return g, nil
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// take stores what is sent: a blob by its digest, a manifest by its name too.
func (g *registry) take(w http.ResponseWriter, r *http.Request, name string) {
	b, err := io.ReadAll(r.Body)
	digest := digestOf(b)
	if want := r.URL.Query().Get("digest"); err != nil || want != "" && want != digest {
		http.Error(w, "it is cut short", http.StatusBadRequest)
		return
	}
	g.blobs[digest] = b
	if strings.Contains(r.URL.Path, "/manifests/") {
		g.blobs[name] = b
	}
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}

// put keeps a blob and returns its descriptor.
func (g *registry) put(mediaType string, b []byte) map[string]any {
	g.blobs[digestOf(b)] = b
	return map[string]any{"mediaType": mediaType, "digest": digestOf(b), "size": len(b)}
}

// has says whether there is a blob, or a manifest by that name.
func (g *registry) has(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.blobs[name] != nil
}

// forgetPushed drops what is not part of pulled:latest.
func (g *registry) forgetPushed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.blobs, func(name string, _ []byte) bool { return !slices.Contains(g.pulled, name) })
}

// ServeHTTP answers /v2/, /v2/NAME/manifests/REF, /v2/NAME/blobs/DIGEST and
// /v2/NAME/blobs/uploads/.
func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	name := parts[len(parts)-1]
	if parts[len(parts)-2] == "manifests" && !strings.Contains(name, ":") {
		name = parts[2] + ":" + name
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r.Method {
	case http.MethodPost: // an upload begins
		w.Header().Set("Location", r.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
		return
	case http.MethodPut:
		g.take(w, r, name)
		return
	}
	b, ok := g.blobs[name]
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
