package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeRegistry serves what a test puts into it, and misbehaves as told.
type fakeRegistry struct {
	*httptest.Server
	host string

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]typed // by tag and by digest
	requests  []string
	// intercept may answer a request itself and say so.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

type typed struct {
	mediaType string
	body      []byte
}

func newFakeRegistry(t *testing.T) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{blobs: map[digest.Digest][]byte{}, manifests: map[string]typed{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	f.host = strings.TrimPrefix(f.URL, "http://")
	return f
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
	intercept := f.intercept
	f.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	kind, name := parts[len(parts)-2], parts[len(parts)-1]
	f.mu.Lock()
	m, isManifest := f.manifests[name]
	b, isBlob := f.blobs[digest.Digest(name)]
	f.mu.Unlock()
	switch {
	case kind == "manifests" && isManifest:
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.body).String())
		http.ServeContent(w, r, "", time0, bytes.NewReader(m.body))
	case kind == "blobs" && isBlob:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time0, bytes.NewReader(b))
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
	}
}

func (f *fakeRegistry) count(substr string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.Contains(r, substr) {
			n++
		}
	}
	return n
}

// put adds an image of the given layers (tars), gzipped, and returns the
// manifest's descriptor.
func (f *fakeRegistry) put(t *testing.T, tag string, platform ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	config := dockerspec.DockerOCIImage{}
	config.Platform = platform
	config.RootFS.Type = "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		z := gzipped(t, l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		m.Layers = append(m.Layers, f.blob(ocispec.MediaTypeImageLayerGzip, z))
	}
	m.Config = f.blob(ocispec.MediaTypeImageConfig, marshal(t, config))
	return f.manifest(tag, m.MediaType, marshal(t, m), platform)
}

func (f *fakeRegistry) blob(mediaType string, b []byte) ocispec.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.FromBytes(b)
	f.blobs[d] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (f *fakeRegistry) manifest(tag, mediaType string, b []byte, platform ocispec.Platform) ocispec.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.FromBytes(b)
	f.manifests[d.String()] = typed{mediaType, b}
	if tag != "" {
		f.manifests[tag] = typed{mediaType, b}
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b)), Platform: &platform}
}

func (f *fakeRegistry) index(t *testing.T, tag string, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	b := marshal(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	return f.manifest(tag, ocispec.MediaTypeImageIndex, b, ocispec.Platform{})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

func here() ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// realRegistry runs docker-registry for the length of the test and returns its
// host:port.
func realRegistry(t *testing.T) string {
	t.Helper()
	return configuredRegistry(t, "", "")
}

// configuredRegistry is realRegistry with more in its configuration: fields of
// http, and further sections.
func configuredRegistry(t *testing.T, http, sections string) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	root := t.TempDir()
	config := filepath.Join(root, "config.yml")
	text := "version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: " + root + "/data}}\n" +
		"http:\n  addr: '127.0.0.1:0'\n" + http + sections
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	host := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				host <- m[1]
			}
		}
		close(host)
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-drained
		_ = cmd.Wait() // says "killed"
	})
	h, ok := <-host
	if !ok {
		t.Fatal("docker-registry did not start")
	}
	return h
}

// tool runs a command-line tool, or skips the test where it is not installed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	out, err := exec.CommandContext(context.Background(), bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func unmarshal(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
