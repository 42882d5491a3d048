package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// twoImages is a store with app:1, app:2 and other, of which the first two share
// a layer.
func twoImages(t *testing.T) *Store {
	t.Helper()
	ctx := context.Background()
	s := openTest(t)
	app := smallImage(t, s, "app:1")
	if err := s.Prepare(ctx, "c", app); err != nil {
		t.Fatal(err)
	}
	f, err := s.MountDetached(ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(procPath(f)+"/second", []byte("layer"), 0o600), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, "c", app, CommitOptions{Ref: "app:2"}); err != nil {
		t.Fatal(err)
	}
	smallImage(t, s, "localhost:5000/other")
	return s
}

func saveBytes(t *testing.T, s *Store, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(context.Background(), names, &b, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ids(t *testing.T, s *Store) map[string]string {
	t.Helper()
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, img := range list {
		for _, tag := range img.RepoTags {
			m[tag] = img.ID.String()
		}
	}
	return m
}

func TestSaveAndLoad(t *testing.T) {
	src := twoImages(t)
	archive := saveBytes(t, src, "app", "localhost:5000/other")
	var zst bytes.Buffer
	w, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"plain": archive, "gzip": gzipped(t, archive), "zstd": zst.Bytes()} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t)
			var stream string
			loaded, err := s.Load(context.Background(), bytes.NewReader(b), LoadOptions{Progress: func(e ProgressEvent) { stream += e.Stream }})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fmt.Sprint(ids(t, s)), fmt.Sprint(ids(t, src)); got != want || len(loaded) != 3 {
				t.Errorf("loaded %s, saved %s", got, want)
			}
			if want := "Loaded image: app:1\n"; !strings.Contains(stream, want) {
				t.Errorf("stream %q lacks %q", stream, want)
			}
			again, err := s.Load(context.Background(), bytes.NewReader(b), LoadOptions{})
			if err != nil || len(again) != 3 {
				t.Errorf("load again: %v", err)
			}
		})
	}
}

func TestSaveByID(t *testing.T) {
	src := twoImages(t)
	id := ids(t, src)["app:2"]
	s := openTest(t)
	var stream string
	loaded, err := s.Load(context.Background(), bytes.NewReader(saveBytes(t, src, id)), LoadOptions{Progress: func(e ProgressEvent) { stream += e.Stream }})
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) != 1 || loaded[0].ID.String() != id || len(loaded[0].RepoTags) != 0 || stream != "Loaded image ID: "+id+"\n" {
		t.Errorf("loaded %+v, %q", loaded, stream)
	}
	if err := src.Save(context.Background(), []string{"nosuch"}, io.Discard, SaveOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("save of what is not there: %v", err)
	}
}

// TestOthersReadWhatIsSaved and write what is loaded: skopeo and Podman, both
// formats.
func TestOthersReadWhatIsSaved(t *testing.T) {
	src := twoImages(t)
	want := ids(t, src)["app:2"]
	dir := t.TempDir()
	saved := filepath.Join(dir, "saved.tar")
	if err := os.WriteFile(saved, saveBytes(t, src, "app:2"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(t *testing.T, path, tag string) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := openTest(t)
		loaded, err := s.Load(context.Background(), f, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(loaded) != 1 || loaded[0].ID.String() != want && tag != "" || tag != "" && !slices.Contains(loaded[0].RepoTags, tag) {
			t.Errorf("loaded %+v, want %s %s", loaded[0], tag, want)
		}
		if err := s.Prepare(context.Background(), "c", loaded[0]); err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, mounted(t, s, "c")+"/second"); got != "layer" {
			t.Errorf("file says %q", got)
		}
	}
	for _, from := range []string{"docker-archive:" + saved, "oci-archive:" + saved} {
		kind, _, _ := strings.Cut(from, ":")
		t.Run("skopeo/"+kind, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "d.tar")
			tool(t, "skopeo", "copy", from, "docker-archive:"+out+":app:2")
			load(t, out, "app:2")
			out = filepath.Join(t.TempDir(), "o.tar")
			tool(t, "skopeo", "copy", from, "oci-archive:"+out+":app:2")
			load(t, out, "")
		})
	}
	t.Run("podman", func(t *testing.T) {
		root, err := os.MkdirTemp("", "p") // Podman wants it short
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
		podman := func(args ...string) string {
			return tool(t, "podman", append([]string{"--root", root + "/root", "--runroot", root + "/run", "--storage-driver", "vfs"}, args...)...)
		}
		podman("load", "-i", saved)
		if got := podman("images", "--noheading", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}", "--no-trunc"); !strings.Contains(got, want) || !strings.Contains(got, "app:2") {
			t.Errorf("podman has %q, want %s", got, want)
		}
		for _, format := range []string{"docker-archive", "oci-archive"} {
			out := filepath.Join(t.TempDir(), format+".tar")
			podman("save", "--format", format, "-o", out, want)
			load(t, out, "")
		}
		podman("rmi", "-f", want)
	})
}

func TestLoadFails(t *testing.T) {
	good := saveBytes(t, twoImages(t), "app:2")
	cut := func(f func(name string, body []byte) []byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for r := tar.NewReader(bytes.NewReader(good)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			body, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				if body = f(h.Name, body); body == nil {
					continue
				}
			}
			h.Size = int64(len(body))
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(body); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	isLayer := func(body []byte) bool { return len(body) > 1000 && body[0] != '{' }
	for name, tt := range map[string]struct {
		b    []byte
		text string
	}{
		"empty":          {nil, "unrecognized image format"},
		"noise":          {[]byte(strings.Repeat("noise", 1000)), ""},
		"rootfs":         {tarOf(t, dir("etc/"), reg("etc/passwd", "x")), "unrecognized image format"},
		"cut short":      {good[:len(good)/2], ""},
		"gzip cut short": {gzipped(t, good)[:1000], "unexpected EOF"},
		"layer missing":  {cut(func(_ string, b []byte) []byte { return map[bool][]byte{false: b}[isLayer(b)] }), "the archive is incomplete"},
		"layer changed": {cut(func(_ string, b []byte) []byte {
			if isLayer(b) {
				b = bytes.Replace(b, []byte("layer"), []byte("layor"), 1)
				b = bytes.Replace(b, []byte("hello"), []byte("hallo"), 1)
			}
			return b
		}), "its content is sha256:"},
	} {
		bothWays(t, name, tt.b, func(t *testing.T, r io.Reader) {
			s := openTest(t)
			_, err := s.Load(context.Background(), r, LoadOptions{})
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, tt.text)
			}
			if errdefs.Hint(err) == "" {
				t.Error("no hint")
			}
			t.Log(err)
			if got := left(t, s); len(got) != 0 {
				t.Errorf("left behind: %q", got)
			}
		})
	}
}

// TestLoadDockerArchive: the oldest layout still written, a directory per layer
// with links between equal layers; its layers are known by their diff IDs alone.
func TestLoadDockerArchive(t *testing.T) {
	layer := tarOf(t, reg("f", "x"))
	f := newFakeRegistry(t)
	desc := f.put(t, "", here(), layer, layer)
	f.mu.Lock()
	var m ocispec.Manifest
	unmarshal(t, f.manifests[desc.Digest.String()].body, &m)
	config := f.blobs[m.Config.Digest]
	f.mu.Unlock()
	name := m.Config.Digest.Encoded() + ".json"
	archive := tarOf(t,
		dir("aaa/"), reg("aaa/VERSION", "1.0"), reg("aaa/json", "{}"), reg("aaa/layer.tar", string(layer)),
		dir("bbb/"), reg("bbb/json", "{}"), symlink("bbb/layer.tar", "../aaa/layer.tar"),
		reg(name, string(config)), reg("repositories", "{}"),
		reg("manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":["old:1","old:2"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}]`, name)))
	s := openTest(t)
	loaded, err := s.Load(context.Background(), bytes.NewReader(archive), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) != 1 || loaded[0].ID != m.Config.Digest || !slices.Equal(loaded[0].RepoTags, []string{"old:1", "old:2"}) {
		t.Errorf("loaded %+v", loaded)
	}
	if n := len(left(t, s)); n != 2+3 { // two layers, and config, manifest and one blob
		t.Errorf("kept %q", left(t, s))
	}
}

func TestImport(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	rootfs := tarOf(t, reg("f", "x"))
	var ids []string
	for name, b := range map[string][]byte{"plain": rootfs, "gzip": gzipped(t, rootfs)} {
		img, err := s.Import(ctx, bytes.NewReader(b), ImportOptions{
			Ref: "imp:" + name, Message: "from " + name, Platform: "linux/arm64",
			Changes: []string{`ENTRYPOINT ["/f"]`, "CMD a b", "env A=1 B='two words'", "EXPOSE 80 53/udp", "LABEL x=y", "VOLUME /data", "WORKDIR /w"},
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.Config.RootFS.DiffIDs[0].String())
		c := img.Config.Config
		got := fmt.Sprintln(c.Entrypoint, c.Cmd, c.Env, c.ExposedPorts, c.Labels, c.Volumes, c.WorkingDir, img.Config.Architecture, img.Config.History[0].Comment)
		want := "[/f] [/bin/sh -c a b] [A=1 B=two words] map[53/udp:{} 80/tcp:{}] map[x:y] map[/data:{}] /w arm64 from " + name + "\n"
		if got != want {
			t.Errorf("config %s\nwant   %s", got, want)
		}
		if err := CheckPlatform(img); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "linux/arm64") {
			t.Errorf("platform check: %v", err)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("diff IDs differ: %q", ids)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(rootfs)
	for name, b := range map[string][]byte{"empty": nil, "noise": bytes.Repeat([]byte("noise "), 1000), "cut gzip": z.Bytes(), "xz": []byte("\xfd7zXZ\x00abcdefgh")} {
		_, err := s.Import(ctx, bytes.NewReader(b), ImportOptions{})
		if !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := len(left(t, s)); got != 2*3+1 { // config, manifest and blob each; one layer
		t.Errorf("left %q", left(t, s))
	}
}
