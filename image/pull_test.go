package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

var time0 time.Time

// bigLayer is a tar with one file of n bytes that do not compress.
func bigLayer(t *testing.T, name string, n int) []byte {
	t.Helper()
	body := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(body)
	return tarOf(t, reg(name, string(body)))
}

func TestPull(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	f := newFakeRegistry(t)
	base := tarOf(t, dir("etc/"), reg("etc/hostname", "base\n"))
	top := tarOf(t, reg("etc/hostname", "top\n"), reg("new", "n"))
	arm := f.put(t, "", ocispec.Platform{OS: "linux", Architecture: "s390x"}, base)
	own := f.put(t, "", here(), base, top)
	idx := f.index(t, "v1", arm, own)

	var events []ProgressEvent
	img, err := s.Pull(ctx, f.host+"/some/app:v1", PullOptions{Progress: func(e ProgressEvent) { events = append(events, e) }})
	if err != nil {
		t.Fatal(err)
	}
	if img.Target.Digest != own.Digest || len(img.Layers) != 2 || img.Size == 0 {
		t.Errorf("image %+v", img)
	}
	if want := f.host + "/some/app@" + idx.Digest.String(); len(img.RepoDigests) != 1 || img.RepoDigests[0] != want {
		t.Errorf("digests %q, want %s", img.RepoDigests, want)
	}
	for _, ref := range []string{f.host + "/some/app:v1", f.host + "/some/app@" + idx.Digest.String(), img.ID.String(), img.ID.Encoded(), img.ID.Encoded()[:12], "sha256:" + img.ID.Encoded()[:5]} {
		if got, err := s.Get(ctx, ref); err != nil || got.ID != img.ID {
			t.Errorf("get %s: %v", ref, err)
		}
	}
	checkEvents(t, events, img)
	if err := s.Prepare(ctx, "c", img); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "c")
	if got := readFile(t, root+"/etc/hostname"); got != "top\n" {
		t.Errorf("hostname %q", got)
	}

	before := f.count("/blobs/")
	events = nil
	again, err := s.Pull(ctx, f.host+"/some/app:v1", PullOptions{Progress: func(e ProgressEvent) { events = append(events, e) }})
	if err != nil || again.ID != img.ID {
		t.Fatalf("pull again: %v", err)
	}
	if n := f.count("/blobs/") - before; n != 0 {
		t.Errorf("the second pull asked for %d blobs it had", n)
	}
	if last := events[len(events)-1].Status; last != "Status: Image is up to date for "+f.host+"/some/app:v1" {
		t.Errorf("the second pull ends %q", last)
	}
}

func checkEvents(t *testing.T, events []ProgressEvent, img *Image) {
	t.Helper()
	text := ""
	for _, e := range events {
		text += e.ID + ": " + e.Status + "\n"
	}
	for _, l := range img.Layers {
		at := -1
		for _, status := range []string{statusPulling, statusVerify, statusFetched, statusExtract, statusPulled} {
			i := strings.Index(text, short(l.Digest)+": "+status+"\n")
			if i <= at {
				t.Errorf("%q of %s is missing or out of order in\n%s", status, short(l.Digest), text)
			}
			at = i
		}
	}
	for _, line := range []string{"v1: Pulling from some/app\n", ": Status: Downloaded newer image for " + img.RepoTags[0] + "\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("%q is missing in\n%s", line, text)
		}
	}
}

func TestPullFromDockerRegistry(t *testing.T) {
	ctx := context.Background()
	host := realRegistry(t)
	src := openTest(t)
	img := smallImage(t, src, "seed")
	file := filepath.Join(t.TempDir(), "seed.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(src.Save(ctx, []string{"seed"}, out, SaveOptions{}), out.Close()); err != nil {
		t.Fatal(err)
	}
	tool(t, "skopeo", "copy", "--dest-tls-verify=false", "docker-archive:"+file, "docker://"+host+"/seed:1")

	s := openTest(t)
	got, err := s.Pull(ctx, host+"/seed:1", PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != img.ID || got.RepoTags[0] != host+"/seed:1" {
		t.Errorf("pulled %s %q, pushed %s", got.ID, got.RepoTags, img.ID)
	}
	byDigest, err := s.Pull(ctx, got.RepoDigests[0], PullOptions{})
	if err != nil || byDigest.ID != img.ID {
		t.Errorf("pull by digest: %v", err)
	}
	_, err = s.Pull(ctx, host+"/seed:nosuch", PullOptions{})
	if !errors.Is(err, errdefs.ErrNotFound) || errdefs.Hint(err) == "" {
		t.Errorf("unknown tag: %v", err)
	}
}

// TestPullFails: every failure says what it is, in one line, and leaves nothing.
func TestPullFails(t *testing.T) {
	layer := bigLayer(t, "data", 1<<20)
	refuse := func(status int, body string, header ...string) func(*fakeRegistry) {
		return func(f *fakeRegistry) {
			f.intercept = func(w http.ResponseWriter, _ *http.Request) bool {
				for i := 0; i < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(status)
				fmt.Fprint(w, body)
				return true
			}
		}
	}
	for _, tt := range []struct {
		name  string
		set   func(f *fakeRegistry)
		ref   string // "" is the good one
		opts  PullOptions
		class error
		text  string
		hint  string
	}{
		{name: "unknown tag", ref: "HOST/app:nosuch", class: errdefs.ErrNotFound, text: "no such image", hint: "spelling"},
		{name: "bad name", ref: "HOST/App", class: errdefs.ErrInvalid, text: "must be lowercase", hint: "a name looks like"},
		{name: "bad platform", opts: PullOptions{Platform: "a/b/c/d"}, class: errdefs.ErrInvalid, text: "a/b/c/d", hint: "linux/amd64"},
		{name: "denied", set: refuse(403, `{"errors":[{"code":"DENIED","message":"no"}]}`), class: errdefs.ErrPermission, text: "access denied", hint: "login"},
		{name: "no credentials", set: refuse(401, "", "WWW-Authenticate", `Basic realm="x"`), class: errdefs.ErrPermission, text: "access denied", hint: "login"},
		{name: "wrong credentials", set: refuse(401, "", "WWW-Authenticate", `Basic realm="x"`), opts: PullOptions{Auth: &registry.AuthConfig{Username: "u", Password: "p"}}, class: errdefs.ErrPermission, text: "access denied", hint: "login"},
		{name: "too many requests", set: refuse(429, ""), class: errdefs.ErrUnavailable, text: "too many requests", hint: "wait"},
		{name: "registry broken", set: refuse(500, `{"errors":[{"code":"UNKNOWN","message":"out of ink"}]}`), class: errdefs.ErrUnavailable, text: "500 Internal Server Error"},
		{name: "unreachable", ref: "127.0.0.1:1/app:v1", class: errdefs.ErrUnavailable, text: "connection refused", hint: "reaches"},
		{name: "unknown host", ref: "registry.invalid/app:v1", class: errdefs.ErrUnavailable, text: "registry.invalid", hint: "reaches"},
		{name: "other platform in an index", set: func(f *fakeRegistry) {
			f.index(t, "v1", f.put(t, "", ocispec.Platform{OS: "linux", Architecture: "s390x"}, layer), f.put(t, "", ocispec.Platform{OS: "linux", Architecture: "ppc64le"}, layer))
		}, class: errdefs.ErrNotFound, text: "the image is for linux/s390x, linux/ppc64le; this host is linux/", hint: "look for a tag"},
		{name: "other platform alone", set: func(f *fakeRegistry) {
			f.put(t, "v1", ocispec.Platform{OS: "linux", Architecture: "s390x"}, layer)
		}, class: errdefs.ErrNotFound, text: "the image is for linux/s390x; this host is linux/"},
		{name: "not an image", set: func(f *fakeRegistry) {
			f.manifest("v1", ocispec.MediaTypeImageManifest, marshal(t, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON}), ocispec.Platform{})
		}, class: errdefs.ErrUnsupported, text: "not a container image"},
		{name: "corrupt layer", set: corrupt(layer, func(z []byte) []byte { z[len(z)/2] ^= 1; return z }), class: errdefs.ErrInvalid, text: "is not what its digest says", hint: "pull again"},
		{name: "layer too long", set: corrupt(layer, func(z []byte) []byte { return append(z, 0) }), class: errdefs.ErrInvalid, text: "is not what its digest says"},
		{name: "layer missing", set: corrupt(layer, func([]byte) []byte { return nil }), class: errdefs.ErrNotFound, text: "the registry does not have it", hint: "incomplete"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openTest(t)
			f := newFakeRegistry(t)
			good := f.put(t, "good", here(), layer)
			f.put(t, "v1", here(), layer)
			if tt.set != nil {
				tt.set(f)
			}
			ref := strings.Replace(tt.ref, "HOST", f.host, 1)
			if ref == "" {
				ref = f.host + "/app:v1"
			}
			_, err := s.Pull(context.Background(), ref, tt.opts)
			if !errors.Is(err, tt.class) {
				t.Fatalf("error %v is not %v", err, tt.class)
			}
			if msg := err.Error(); !strings.Contains(msg, tt.text) || strings.Contains(msg, "\n") {
				t.Errorf("error %q, want one line with %q", msg, tt.text)
			}
			if !strings.Contains(errdefs.Hint(err), tt.hint) {
				t.Errorf("hint %q, want %q", errdefs.Hint(err), tt.hint)
			}
			t.Logf("%v (%s)", err, errdefs.Hint(err))
			if got := left(t, s); len(got) != 0 {
				t.Errorf("left behind: %q", got)
			}
			f.mu.Lock()
			f.intercept = nil
			f.mu.Unlock()
			f.put(t, "v1", here(), layer)
			if img, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{}); err != nil || img.Target.Digest != good.Digest {
				t.Errorf("pull once it is well: %v", err)
			}
		})
	}
}

// corrupt serves the layer blob changed, or not at all.
func corrupt(layer []byte, change func([]byte) []byte) func(*fakeRegistry) {
	return func(f *fakeRegistry) {
		f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			d := digest.Digest(filepath.Base(r.URL.Path))
			f.mu.Lock()
			b := bytes.Clone(f.blobs[d])
			f.mu.Unlock()
			if len(b) < 1000 || r.Method != http.MethodGet {
				return false
			}
			if b = change(b); b == nil {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			http.ServeContent(w, r, "", time0, bytes.NewReader(b))
			return true
		}
	}
}

// TestPullResumes: a connection cut in the middle of a layer goes on there.
func TestPullResumes(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), bigLayer(t, "data", 8<<20))
	cuts := 0
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		d := digest.Digest(filepath.Base(r.URL.Path))
		f.mu.Lock()
		b := f.blobs[d]
		f.mu.Unlock()
		if len(b) < 1<<20 || cuts > 0 {
			return false
		}
		cuts++
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
		conn.Close()
		return true
	}
	if _, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if f.count("bytes=") == 0 {
		t.Errorf("no request asked for the rest only: %q", f.requests)
	}
}

// TestPullWaits: a layer for which there is no connection says so, and the next
// one is for it.
func TestPullWaits(t *testing.T) {
	s := openTest(t, func(o *Options) { o.MaxDownloads = 1 })
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), tarOf(t, reg("a", "a")), tarOf(t, reg("b", "b")), tarOf(t, reg("c", "c")))
	waiting := make(chan struct{})
	queued := 2
	var config atomic.Bool // the first blob that is asked for
	f.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && config.Swap(true) {
			select {
			case <-waiting:
			case <-r.Context().Done():
			}
		}
		return false
	}
	seen := map[string][]string{}
	img, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{Progress: func(e ProgressEvent) {
		if e.Status == statusWaiting || e.Status == statusPulling || e.Status == statusDownload {
			seen[e.ID] = append(seen[e.ID], e.Status)
		}
		if e.Status == statusWaiting {
			if queued--; queued == 0 {
				close(waiting)
			}
		}
	}})
	must(t, err)
	for i, l := range img.Layers {
		want := []string{statusPulling, statusWaiting, statusDownload}
		if i == 0 {
			want = []string{statusPulling, statusDownload}
		}
		if got := slices.Compact(seen[short(l.Digest)]); !slices.Equal(got, want) {
			t.Errorf("layer %d: %q, want %q", i, got, want)
		}
	}
}

func TestPullCancelled(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), bigLayer(t, "a", 4<<20), bigLayer(t, "b", 4<<20))
	for _, at := range []string{statusPulling, statusDownload, statusFetched, statusExtract, statusPulled} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, err := s.Pull(ctx, f.host+"/app:v1", PullOptions{Progress: func(e ProgressEvent) {
				if e.Status == at {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if got := left(t, s); len(got) != 0 {
				t.Errorf("left behind: %q", got)
			}
		})
	}
}

func TestPullWithCredentials(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), tarOf(t, reg("f", "x")))
	var token http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		_ = r.ParseForm()
		if r.Form.Get("grant_type") == "password" {
			u, p = r.Form.Get("username"), r.Form.Get("password")
		}
		if u == "me" && p == "secret" || r.Form.Get("refresh_token") == "identity" {
			fmt.Fprint(w, `{"access_token":"good","token":"good"}`)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			token(w, r)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	for name, tt := range map[string]struct {
		auth *registry.AuthConfig
		ok   bool
	}{
		"none":           {nil, false},
		"password":       {&registry.AuthConfig{Username: "me", Password: "secret"}, true},
		"wrong":          {&registry.AuthConfig{Username: "me", Password: "guess"}, false},
		"auth field":     {&registry.AuthConfig{Auth: "bWU6c2VjcmV0"}, true},
		"identity token": {&registry.AuthConfig{IdentityToken: "identity"}, true},
		"registry token": {&registry.AuthConfig{RegistryToken: "good"}, true},
	} {
		_, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{Auth: tt.auth})
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, errdefs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPullCompressions: layers by zstd, by nothing, and with Docker's types.
func TestPullCompressions(t *testing.T) {
	ctx := context.Background()
	f := newFakeRegistry(t)
	layer := bigLayer(t, "data", 1<<20)
	var z bytes.Buffer
	w, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(layer); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		manifest, config, layer string
		blob                    []byte
	}{
		"zstd":        {ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerZstd, z.Bytes()},
		"plain":       {ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer, layer},
		"docker gzip": {images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2LayerGzip, gzipped(t, layer)},
	} {
		config := dockerspec.DockerOCIImage{}
		config.Platform = here()
		config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}
		m := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: tt.manifest,
			Config: f.blob(tt.config, marshal(t, config)), Layers: []ocispec.Descriptor{f.blob(tt.layer, tt.blob)},
		}
		f.manifest("v1", tt.manifest, marshal(t, m), here())
		s := openTest(t)
		img, err := s.Pull(ctx, f.host+"/app:v1", PullOptions{})
		if err != nil || img.Layers[0].Digest != digest.FromBytes(tt.blob) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var out bytes.Buffer
		if err := s.Save(ctx, []string{img.ID.String()}, &out, SaveOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := openTest(t).Load(ctx, &out, LoadOptions{}); err != nil {
			t.Errorf("%s: load what was saved: %v", name, err)
		}
	}
}

// TestPullTogether: eight pulls of two images that share a layer fetch each
// blob once.
func TestPullTogether(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	shared := bigLayer(t, "shared", 1<<20)
	f.put(t, "a", here(), shared, tarOf(t, reg("a", "a")))
	f.put(t, "b", here(), shared, tarOf(t, reg("b", "b")))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), f.host+"/app:"+string("ab"[i%2]), PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	d := digest.FromBytes(gzipped(t, shared)).String()
	if n := f.count("GET /v2/app/blobs/" + d); n != 1 {
		t.Errorf("the shared layer was fetched %d times", n)
	}
	if list, err := s.List(context.Background()); err != nil || len(list) != 2 {
		t.Errorf("%d images, %v", len(list), err)
	}
}

// TestPullFromSilentRegistry: a registry that stops sending in the middle of a
// layer is asked again for the rest.
func TestPullFromSilentRegistry(t *testing.T) {
	s := openTest(t, func(o *Options) { o.StallTimeout = time.Second })
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), bigLayer(t, "data", 4<<20))
	silent := make(chan struct{})
	t.Cleanup(func() { close(silent) })
	var once sync.Once
	f.intercept = func(w http.ResponseWriter, r *http.Request) (done bool) {
		d := digest.Digest(filepath.Base(r.URL.Path))
		f.mu.Lock()
		b := f.blobs[d]
		f.mu.Unlock()
		if len(b) < 1<<20 {
			return false
		}
		once.Do(func() {
			done = true
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			_, _ = w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			select {
			case <-silent:
			case <-r.Context().Done():
			}
		})
		return done
	}
	if _, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if f.count("bytes=") == 0 {
		t.Errorf("no request asked for the rest only: %q", f.requests)
	}
}

// TestInsecureRegistry: beyond loopback, plain HTTP needs to be allowed.
func TestInsecureRegistry(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var own net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			own = n.IP
		}
	}
	if own == nil {
		t.Skip("this host has no address but loopback ones")
	}
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), tarOf(t, reg("f", "x")))
	l, err := net.Listen("tcp", net.JoinHostPort(own.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	host := l.Addr().String()

	s := openTest(t)
	_, err = s.Pull(context.Background(), host+"/app:v1", PullOptions{})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(errdefs.Hint(err), "insecure registry") {
		t.Errorf("plain HTTP without leave: %v (%s)", err, errdefs.Hint(err))
	}
	for _, entry := range []string{host, own.String(), own.String() + "/32"} {
		s := openTest(t, func(o *Options) { o.InsecureRegistries = []string{entry} })
		if _, err := s.Pull(context.Background(), host+"/app:v1", PullOptions{}); err != nil {
			t.Errorf("with %s allowed: %v", entry, err)
		}
	}
}

func TestInsecureNames(t *testing.T) {
	s := &Store{}
	s.SetInsecureRegistries([]string{"10.0.0.0/8", "reg.example:5000", "plain.example", "bad/entry"})
	for domain, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.1.2.3": true, "[::1]:5000": true, "[::1]": true,
		"10.1.2.3:5000": true, "11.1.2.3:5000": false, "reg.example:5000": true, "reg.example:5001": false, "plain.example:1": true,
		"docker.io": false, "localhost.example": false, "127.0.0.1.example": false,
	} {
		if got := s.insecure(domain) || loopback(domain); got != want {
			t.Errorf("insecure(%s) = %v", domain, got)
		}
	}
}

// TestTogether runs everything that reads, adds and removes side by side: no
// operation may lose what another one relies on.
func TestTogether(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	f := newFakeRegistry(t)
	shared := bigLayer(t, "shared", 100<<10)
	f.put(t, "a", here(), shared, tarOf(t, reg("a", "a")))
	f.put(t, "b", here(), shared, tarOf(t, reg("b", "b")))
	var wg sync.WaitGroup
	for i := range 6 {
		tag := string("ab"[i%2])
		wg.Go(func() {
			for round := range 8 {
				img, err := s.Pull(ctx, f.host+"/app:"+tag, PullOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				key := fmt.Sprintf("c%d-%d", i, round)
				if err := s.Prepare(ctx, key, img); errors.Is(err, errdefs.ErrNotFound) {
					continue // another one has removed the image since
				} else if err != nil {
					t.Error(err)
					return
				}
				m, err := s.MountDetached(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := os.ReadFile(procPath(m) + "/" + tag); err != nil || string(b) != tag {
					t.Errorf("file says %q, %v", b, err)
				}
				m.Close()
				if _, err := s.Remove(ctx, f.host+"/app:"+tag, RemoveOptions{Force: true}); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					t.Error(err)
				}
				if err := s.RemoveSnapshot(ctx, key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, _, err := s.Prune(ctx, PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
	if err := s.collect(ctx); err != nil {
		t.Error(err)
	}
	if got := left(t, s); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

// TestPullThroughCuts: every connection to the registry is cut off after a
// while; the pull goes on where it was and asks for nothing twice.
func TestPullThroughCuts(t *testing.T) {
	f := newFakeRegistry(t)
	const size = 6 << 20
	f.put(t, "v1", here(), bigLayer(t, "a", size), bigLayer(t, "b", size))
	proxy := newCuttingProxy(t, f.host, 1<<20)
	img, err := openTest(t).Pull(context.Background(), proxy.host+"/app:v1", PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if proxy.cuts() < 2 {
		t.Errorf("only %d connections were cut", proxy.cuts())
	}
	var blobs int64
	for _, l := range img.Layers {
		blobs += l.BlobSize
	}
	// What was on its way through the proxy's and the kernel's buffers is lost.
	if got := proxy.carried(); got > blobs+int64(proxy.cuts()+1)<<20 {
		t.Errorf("%d bytes were transferred for %d, with %d cuts", got, blobs, proxy.cuts())
	}
}

// TestPullInRanges: a long layer comes in several parts, and whole from a
// registry that does no ranges.
func TestPullInRanges(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		f := newFakeRegistry(t)
		layer := bigLayer(t, "data", 3*chunkSize)
		f.put(t, "v1", here(), layer)
		if !ranges {
			f.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
				r.Header.Del("Range")
				return false
			}
		}
		img, err := openTest(t).Pull(context.Background(), f.host+"/app:v1", PullOptions{})
		if err != nil || img.Size < 3*chunkSize {
			t.Errorf("ranges %v: %+v, %v", ranges, img, err)
		}
		want := map[bool]int{true: 3, false: 1}[ranges]
		if got := f.count("GET /v2/app/blobs/" + img.Layers[0].Digest.String()); got != want {
			t.Errorf("ranges %v: %d requests, want %d: %q", ranges, got, want, f.requests)
		}
	}
}

// TestKilledPullGoesOn: what a pull had fetched when its process was killed is
// not fetched again, and what is wrong with it is found out.
func TestKilledPullGoesOn(t *testing.T) {
	layer := bigLayer(t, "data", 4<<20)
	blob := gzipped(t, layer)
	name := "sha256-" + digest.FromBytes(blob).Encoded()
	for what, tt := range map[string]struct {
		left     []byte // of the file, from at on
		at       int64
		requests string // one of the ranges that are asked for
	}{
		"the beginning":     {blob[:1<<20], 0, fmt.Sprintf("bytes=%d-", 1<<20-4096)},
		"the end":           {blob[1<<20:], 1 << 20, fmt.Sprintf("bytes=0-%d", 1<<20-1)},
		"all":               {blob, 0, ""},
		"wrong":             {bytes.Repeat([]byte("x"), len(blob)), 0, "whole"},
		"too much":          {append(bytes.Clone(blob), 'x'), 0, "whole"},
		"a wrong beginning": {bytes.Repeat([]byte("x"), 1<<20), 0, fmt.Sprintf("bytes=%d-", 1<<20-4096)},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFakeRegistry(t)
			f.put(t, "v1", here(), layer)
			root := filepath.Join(t.TempDir(), "s")
			s := openAt(t, root)
			file, err := os.Create(filepath.Join(root, "downloads", name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt(tt.left, tt.at); err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, root)
			if _, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{}); err != nil {
				t.Fatal(err)
			}
			got := f.count("GET /v2/app/blobs/" + digest.FromBytes(blob).String() + " " + strings.TrimPrefix(tt.requests, "whole"))
			if tt.requests == "" && got != 0 || tt.requests != "" && got == 0 {
				t.Errorf("requests %q, want one with %q", f.requests, tt.requests)
			}
			if left, _ := os.ReadDir(filepath.Join(root, "downloads")); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestPartialDownloadsAreSwept: what nobody comes back for goes with time, or
// with a prune.
func TestPartialDownloadsAreSwept(t *testing.T) {
	s := openTest(t)
	young, old := filepath.Join(s.root, "downloads", "young"), filepath.Join(s.root, "downloads", "old")
	for _, path := range []string{young, old} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time0, time.Now().Add(-2*keepPartial)); err != nil {
		t.Fatal(err)
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	smallImage(t, s, "any")
	if !exists(young) || exists(old) {
		t.Errorf("after an import: young %v, old %v", exists(young), exists(old))
	}
	if _, _, err := s.Prune(context.Background(), PruneOptions{}); err != nil || exists(young) {
		t.Errorf("after a prune: young %v, %v", exists(young), err)
	}
}

// TestPullAgainAfterCancel: a second pull takes over what a cancelled one has
// begun; two pulls at once fetch a layer once, also when the first gives up.
func TestPullAgainAfterCancel(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), bigLayer(t, "data", 8<<20))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	second := make(chan error, 1)
	var once sync.Once
	_, err := s.Pull(ctx, f.host+"/app:v1", PullOptions{Progress: func(e ProgressEvent) {
		if e.Status == statusDownload {
			once.Do(func() {
				go func() {
					_, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{Progress: func(e ProgressEvent) {
						if e.Status == statusDownload || e.Status == statusFetched {
							cancel()
						}
					}})
					second <- err
				}()
			})
		}
	}})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if list, err := s.List(context.Background()); err != nil || len(list) != 1 {
		t.Errorf("%d images, %v", len(list), err)
	}
}

// TestUnnamedDirectories: a directory that an upper layer has without naming it
// keeps the attributes it has below.
func TestUnnamedDirectories(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	private := dir("a/b/")
	private.hdr.Mode, private.hdr.Uid, private.hdr.Gid, private.hdr.ModTime = 0o711, 7, 8, time.Unix(1e9, 0)
	private.hdr.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "kept"}
	own := dir("c/")
	own.hdr.Mode = 0o700
	f.put(t, "v1", here(),
		tarOf(t, dir("a/"), private, own, reg("d", "a file")),
		tarOf(t, reg("a/b/new", "x"), reg("c/late", "x"), dir("c/"), reg("d/now/dir", "x"), reg("fresh/file", "x")))
	img, err := s.Pull(context.Background(), f.host+"/app:v1", PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(context.Background(), "c", img); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "c")
	info, err := os.Stat(root + "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode().Perm() != 0o711 || st.Uid != 7 || st.Gid != 8 || !info.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Errorf("a/b is %v, %d:%d, %v", info.Mode(), st.Uid, st.Gid, info.ModTime())
	}
	note := make([]byte, 10)
	if n, err := unix.Getxattr(root+"/a/b", "user.note", note); err != nil || string(note[:n]) != "kept" {
		t.Errorf("a/b has the note %q, %v", note[:max(n, 0)], err)
	}
	for path, want := range map[string]fs.FileMode{"c": 0o755, "d": 0o755, "fresh": 0o755} {
		if info, err := os.Stat(root + "/" + path); err != nil || !info.IsDir() || info.Mode().Perm() != want {
			t.Errorf("%s is %v, %v", path, info.Mode(), err)
		}
	}
}

// TestPullAll: every tag of a repository, whose list comes in pages.
func TestPullAll(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	f.put(t, "v1", here(), tarOf(t, reg("f", "1")))
	f.put(t, "v2", here(), tarOf(t, reg("f", "2")))
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v2/app/tags/list" {
			return false
		}
		if r.URL.Query().Get("last") == "" {
			w.Header().Set("Link", `</v2/app/tags/list?last=v1&n=1>; rel="next"`)
			fmt.Fprint(w, `{"name":"app","tags":["v1"]}`)
		} else {
			fmt.Fprint(w, `{"name":"app","tags":["v2"]}`)
		}
		return true
	}
	pulled, err := s.PullAll(context.Background(), f.host+"/app", PullOptions{})
	if err != nil || len(pulled) != 2 || pulled[1].RepoTags[0] != f.host+"/app:v2" {
		t.Errorf("%+v, %v", pulled, err)
	}
	if _, err := s.PullAll(context.Background(), f.host+"/nosuch", PullOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no such repository: %v", err)
	}
}

// TestPullMovesOnlyWhatChanged: of an image with another top layer only that
// comes.
func TestPullMovesOnlyWhatChanged(t *testing.T) {
	s := openTest(t)
	f := newFakeRegistry(t)
	base := bigLayer(t, "base", 1<<20)
	f.put(t, "v1", here(), base, tarOf(t, reg("top", "1")))
	f.put(t, "v2", here(), base, tarOf(t, reg("top", "2")))
	for i, want := range []int{3, 2} { // the config and layers
		before := f.count("/blobs/")
		if _, err := s.Pull(context.Background(), fmt.Sprintf("%s/app:v%d", f.host, i+1), PullOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := f.count("/blobs/") - before; got != want {
			t.Errorf("v%d: %d blobs were asked for, want %d", i+1, got, want)
		}
	}
}
