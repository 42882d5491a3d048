package image

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// pushed collects what a push reports.
type pushed struct{ events []ProgressEvent }

func (p *pushed) add(e ProgressEvent) { p.events = append(p.events, e) }

// ends is the last status of each layer, by diff ID.
func (p *pushed) end(l Layer) string {
	status := ""
	for _, e := range p.events {
		if e.ID == short(l.DiffID) {
			status = e.Status
		}
	}
	return status
}

func (p *pushed) tags() (tags []string) {
	for _, e := range p.events {
		if e.Pushed != nil {
			tags = append(tags, e.Pushed.Tag)
		}
	}
	return tags
}

// TestPush: an image goes to a real registry and comes back the same, its
// layers compressed; what is there is not sent again, and what another
// repository has is mounted.
func TestPush(t *testing.T) {
	ctx := context.Background()
	host := realRegistry(t)
	s := openTest(t)
	img := smallImage(t, s, host+"/team/app:1", dir("etc/"), reg("etc/text", strings.Repeat("a line of text\n", 1000)))
	var first pushed
	names, err := s.Push(ctx, host+"/team/app:1", PushOptions{Progress: first.add})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{host + "/team/app:1"}; !slices.Equal(names, want) {
		t.Errorf("pushed %q, want %q", names, want)
	}
	if got := first.end(img.Layers[0]); got != statusPushed {
		t.Errorf("the layer ends %q", got)
	}
	if first.events[0].Status != "The push refers to repository ["+host+"/team/app]" || !slices.Equal(first.tags(), []string{"1"}) {
		t.Errorf("events %+v", first.events)
	}
	after, err := s.Get(ctx, host+"/team/app:1")
	if err != nil || after.ID != img.ID {
		t.Fatalf("the image after the push: %+v, %v", after, err)
	}
	digestName := host + "/team/app@" + after.Target.Digest.String()
	if after.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip || after.Layers[0].BlobSize >= 15000 || !slices.Equal(after.RepoDigests, []string{digestName}) {
		t.Errorf("the image after the push: %+v", after)
	}
	for _, ref := range []string{host + "/team/app:1", digestName} {
		got, err := openTest(t).Pull(ctx, ref, PullOptions{})
		if err != nil || got.ID != img.ID || got.Target.Digest != after.Target.Digest {
			t.Errorf("pull %s: %+v, %v", ref, got, err)
		}
	}

	var again pushed
	if err := s.Tag(ctx, img.ID.String(), host+"/team/app:2"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(ctx, host+"/team/app", PushOptions{AllTags: true, Progress: again.add}); err != nil {
		t.Fatal(err)
	}
	if got := again.end(img.Layers[0]); got != statusLayerExists {
		t.Errorf("the layer of the second push ends %q", got)
	}
	if got := again.tags(); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("pushed tags %q", got)
	}
	if _, err := openTest(t).Pull(ctx, host+"/team/app:2", PullOptions{}); err != nil {
		t.Error(err)
	}

	var mount pushed
	if err := s.Tag(ctx, img.ID.String(), host+"/other:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(ctx, host+"/other:1", PushOptions{Progress: mount.add}); err != nil {
		t.Fatal(err)
	}
	if got := mount.end(img.Layers[0]); got != "Mounted from team/app" {
		t.Errorf("the layer in another repository ends %q", got)
	}
}

// TestPushFails: what cannot be pushed says why.
func TestPushFails(t *testing.T) {
	ctx := context.Background()
	f := newFakeRegistry(t)
	f.intercept = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	s := openTest(t)
	smallImage(t, s, f.host+"/app:1")
	smallImage(t, s, "127.0.0.1:1/app:1")
	for _, tt := range []struct {
		ref   string
		opts  PushOptions
		class error
		text  string
		hint  string
	}{
		{ref: f.host + "/app:nosuch", class: errdefs.ErrNotFound, text: "does not exist locally with the tag: " + f.host + "/app:nosuch", hint: "berth tag"},
		{ref: f.host + "/nosuch", opts: PushOptions{AllTags: true}, class: errdefs.ErrNotFound, text: "does not exist locally", hint: "berth tag"},
		{ref: f.host + "/app@sha256:" + strings.Repeat("0", 64), class: errdefs.ErrInvalid, text: "digest reference"},
		{ref: f.host + "/App", class: errdefs.ErrInvalid, text: "lowercase", hint: "a name looks like"},
		{ref: f.host + "/app:1", class: errdefs.ErrPermission, text: "access denied", hint: "berth login " + f.host},
		{ref: f.host + "/app:1", opts: PushOptions{Platform: "linux/s390x"}, class: errdefs.ErrNotFound, text: "linux/s390x"},
		{ref: "127.0.0.1:1/app:1", class: errdefs.ErrUnavailable, text: "connection refused", hint: "reaches"},
	} {
		_, err := s.Push(ctx, tt.ref, tt.opts)
		if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(errdefs.Hint(err), tt.hint) {
			t.Errorf("%s: %v (%s)", tt.ref, err, errdefs.Hint(err))
		}
	}
	if got, err := s.Get(ctx, f.host+"/app:1"); err != nil || got.Layers[0].MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("a failed push has changed the image: %+v, %v", got, err)
	}
}

// TestPushCancelled ends in the middle of a layer, and leaves the image as it was.
func TestPushCancelled(t *testing.T) {
	host := realRegistry(t)
	s := openTest(t)
	img := smallImage(t, s, host+"/app:1", reg("data", string(bigLayer(t, "data", 4<<20))))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := s.Push(ctx, host+"/app:1", PushOptions{Progress: func(e ProgressEvent) {
		if e.Status == statusPushing {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got, err := s.Get(context.Background(), host+"/app:1"); err != nil || got.Target.Digest != img.Target.Digest {
		t.Errorf("the image after it: %+v, %v", got, err)
	}
	if _, err := s.Push(context.Background(), host+"/app:1", PushOptions{}); err != nil {
		t.Error(err)
	}
}

// certificate makes a key and a certificate for 127.0.0.1 and returns their files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// hostDir makes a registry's directory with one file and returns what it is in.
func hostDir(t *testing.T, host, name string, text []byte) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, host, name), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestPrivateRegistry: a real registry with TLS and a password file.
func TestPrivateRegistry(t *testing.T) {
	ctx := context.Background()
	cert, key := certificate(t)
	users := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(users, []byte("me:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := configuredRegistry(t, "  tls: {certificate: "+cert+", key: "+key+"}\n", "auth: {htpasswd: {realm: here, path: "+users+"}}\n")
	pemText, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	good := &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: host}
	wrong := &registry.AuthConfig{Username: "me", Password: "guess", ServerAddress: host}
	for name, change := range map[string]func(*Options){
		"unverified": func(*Options) {}, // it is on loopback
		"its certificate is trusted": func(o *Options) {
			o.RegistryDirs = []string{"/nonexistent", hostDir(t, host, "ca.crt", pemText)}
		},
		"hosts.toml": func(o *Options) {
			o.RegistryDirs = []string{hostDir(t, host, hostsFile, []byte("server = \"https://"+host+"\"\nca = \""+cert+"\"\n"))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, change)
			if token, err := s.Login(ctx, good); err != nil || token != "" {
				t.Errorf("login: %q, %v", token, err)
			}
			if _, err := s.Login(ctx, wrong); !errors.Is(err, errdefs.ErrPermission) || !strings.Contains(err.Error(), "incorrect username or password") {
				t.Errorf("login with a wrong password: %v", err)
			}
			img := smallImage(t, s, host+"/app:1", reg("f", name))
			if _, err := s.Push(ctx, host+"/app:1", PushOptions{}); !errors.Is(err, errdefs.ErrPermission) {
				t.Errorf("push without credentials: %v", err)
			}
			if _, err := s.Push(ctx, host+"/app:1", PushOptions{Auth: good}); err != nil {
				t.Fatal(err)
			}
			other := openTest(t, change)
			if _, err := other.Pull(ctx, host+"/app:1", PullOptions{}); !errors.Is(err, errdefs.ErrPermission) {
				t.Errorf("pull without credentials: %v", err)
			}
			if got, err := other.Pull(ctx, host+"/app:1", PullOptions{Auth: good}); err != nil || got.ID != img.ID {
				t.Errorf("pull: %v", err)
			}
			found, err := other.Inspect(ctx, host+"/app:1", good)
			if err != nil || found.Target.MediaType != ocispec.MediaTypeImageManifest || len(found.Platforms) != 1 {
				t.Errorf("inspect: %+v, %v", found, err)
			}
		})
	}
	t.Run("nobody vouches for it", func(t *testing.T) {
		other, _ := certificate(t)
		text, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		s := openTest(t, func(o *Options) { o.RegistryDirs = []string{hostDir(t, host, "ca.crt", text)} })
		if _, err := s.Pull(ctx, host+"/app:1", PullOptions{Auth: good}); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(errdefs.Hint(err), "ca.crt") {
			t.Errorf("pull: %v (%s)", err, errdefs.Hint(err))
		}
	})
}

// TestLoginToken: a registry with a token server gives an identity token.
func TestLoginToken(t *testing.T) {
	f := newFakeRegistry(t)
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			_ = r.ParseForm()
			if r.Form.Get("username") != "me" || r.Form.Get("password") != "secret" || r.Form.Get("access_type") != "offline" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			_, _ = w.Write([]byte(`{"access_token":"good","refresh_token":"identity"}`))
		case r.Header.Get("Authorization") == "Bearer good":
			_, _ = w.Write([]byte("{}"))
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		return true
	}
	s := openTest(t)
	token, err := s.Login(context.Background(), &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "http://" + f.host + "/v1/"})
	if err != nil || token != "identity" {
		t.Errorf("token %q, %v", token, err)
	}
	if _, err := s.Login(context.Background(), &registry.AuthConfig{Username: "me", Password: "guess", ServerAddress: f.host}); !errors.Is(err, errdefs.ErrPermission) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := s.Login(context.Background(), &registry.AuthConfig{ServerAddress: "a b"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("no host: %v", err)
	}
}

// TestMirror: hosts.toml names a mirror, which is asked first, without the
// credentials; what it lacks comes from the registry.
func TestMirror(t *testing.T) {
	ctx := context.Background()
	mirror, origin := newFakeRegistry(t), newFakeRegistry(t)
	layer := tarOf(t, reg("f", "x"))
	mirror.put(t, "v1", here(), layer)
	origin.put(t, "v1", here(), layer)
	origin.put(t, "v2", here(), layer)
	mirror.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Own") != "yes" || r.URL.Query().Get("ns") != "registry.example.com" {
			t.Errorf("the mirror is asked %s with %v", r.URL, r.Header)
		}
		return false
	}
	text := "server = \"" + origin.URL + "\"\n[host.\"" + mirror.URL + "\"]\ncapabilities = [\"pull\", \"resolve\"]\n" +
		"[host.\"" + mirror.URL + "\".header]\nX-Own = \"yes\"\n"
	s := openTest(t, func(o *Options) {
		o.RegistryDirs = []string{hostDir(t, "registry.example.com", hostsFile, []byte(text))}
	})
	if _, err := s.Pull(ctx, "registry.example.com/app:v1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := origin.count(""); n != 0 {
		t.Errorf("the registry was asked %d times though its mirror has it", n)
	}
	if _, err := s.Pull(ctx, "registry.example.com/app:v2", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if origin.count("/manifests/v2") == 0 {
		t.Error("the registry was not asked for what its mirror lacks")
	}
	smallImage(t, s, "registry.example.com/mine:1")
	if _, err := s.Push(ctx, "registry.example.com/mine:1", PushOptions{}); err == nil || mirror.count("POST") != 0 || origin.count("POST") == 0 {
		t.Errorf("a push went to the mirror, or not to the registry: %v", err)
	}
}

// TestHostsFile: a hosts.toml that is wrong is an error that says where.
func TestHostsFile(t *testing.T) {
	for text, want := range map[string]string{
		"server = ":                "line 1",
		"nosuch = 1":               `line 1: unknown key "nosuch"`,
		"capabilities = [\"fly\"]": `capability "fly"`,
		"[host.\"https://x\"]\ncapabilities = [\"fly\"]": `host "https://x": capability "fly"`,
		"server = \"http://\"":                           "want http://HOST",
		"ca = \"nosuch.pem\"":                            "nosuch.pem",
	} {
		s := openTest(t, func(o *Options) { o.RegistryDirs = []string{hostDir(t, "_default", hostsFile, []byte(text))} })
		_, err := s.Pull(context.Background(), "registry.invalid/app", PullOptions{})
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), want) || errdefs.Hint(err) == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestPushRetries: an upload that is cut off is sent again.
func TestPushRetries(t *testing.T) {
	host := realRegistry(t)
	proxy := newCuttingProxy(t, host, 1<<20)
	// An attempt may go over a connection that was opened before a cut, with the budget of
	// that time: which of them are cut would be luck.
	proxy.once = true
	s := openTest(t)
	smallImage(t, s, proxy.host+"/app:1", reg("data", string(bigLayer(t, "data", 2<<20))))
	if _, err := s.Push(context.Background(), proxy.host+"/app:1", PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if proxy.cuts() == 0 {
		t.Error("nothing was cut off")
	}
	var out bytes.Buffer
	if err := s.Save(context.Background(), []string{proxy.host + "/app:1"}, &out, SaveOptions{}); err != nil {
		t.Error(err)
	}
}
