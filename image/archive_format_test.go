package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"github.com/berth-containers/berth/errdefs"
)

func xzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	must(t, err)
	_, err = w.Write(b)
	must(t, errors.Join(err, w.Close()))
	return out.Bytes()
}

// TestXZ: archives and root file systems as kernel.org and others ship them.
func TestXZ(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	img, err := s.Import(ctx, bytes.NewReader(xzipped(t, tarOf(t, reg("f", "x")))), ImportOptions{Ref: "x:1"})
	must(t, err)
	must(t, s.Prepare(ctx, "c", img))
	if got := readFile(t, mounted(t, s, "c")+"/f"); got != "x" {
		t.Errorf("file says %q", got)
	}
	loaded, err := openTest(t).Load(ctx, bytes.NewReader(xzipped(t, saveBytes(t, s, "x:1"))), LoadOptions{})
	if err != nil || len(loaded) != 1 || loaded[0].ID != img.ID {
		t.Errorf("loaded %+v, %v", loaded, err)
	}
	greedy := xzipped(t, tarOf(t, reg("f", "x")))
	// The first filter of the first block: id 0x21, one byte, the dictionary.
	i := bytes.Index(greedy[12:], []byte{0x21, 1}) + 12
	greedy[i+2] = 40 // 4 GiB
	if _, err := s.Import(ctx, bytes.NewReader(greedy), ImportOptions{}); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "4095 MiB of memory") {
		t.Errorf("a dictionary of 4 GiB: %v", err)
	}
	if _, err := s.Import(ctx, bytes.NewReader(greedy[:10]), ImportOptions{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("cut: %v", err)
	}
}

// archiveNames are the files of an archive.
func archiveNames(t *testing.T, b []byte) (names []string) {
	t.Helper()
	for tr := tar.NewReader(bytes.NewReader(b)); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		must(t, err)
		if hdr.Typeflag == tar.TypeReg {
			names = append(names, hdr.Name)
		}
	}
}

func TestSaveFormats(t *testing.T) {
	ctx := context.Background()
	src := twoImages(t)
	for format, docker := range map[string]bool{"": true, FormatDocker: true, FormatOCI: false} {
		var b bytes.Buffer
		must(t, src.Save(ctx, []string{"app"}, &b, SaveOptions{Format: format}))
		names := archiveNames(t, b.Bytes())
		if slices.Contains(names, "manifest.json") != docker || !slices.Contains(names, "oci-layout") || !slices.Contains(names, "index.json") {
			t.Errorf("%q has %q", format, names)
		}
		s := openTest(t)
		loaded, err := s.Load(ctx, &b, LoadOptions{})
		if err != nil || len(loaded) != 2 || ids(t, s)["app:2"] != ids(t, src)["app:2"] {
			t.Errorf("%q loads as %+v, %v", format, loaded, err)
		}
	}
	err := src.Save(ctx, []string{"app"}, io.Discard, SaveOptions{Format: "docker-dir"})
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.Hint(err), "oci-archive") {
		t.Errorf("an unknown format: %v", err)
	}
	must(t, src.Save(ctx, []string{"app:1"}, io.Discard, SaveOptions{Platform: "linux/" + here().Architecture}))
	err = src.Save(ctx, []string{"app:1"}, io.Discard, SaveOptions{Platform: "linux/s390x"})
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "app:1: the image is for linux/"+here().Architecture) {
		t.Errorf("another platform: %v", err)
	}
}

// layout builds archives by hand.
type layout struct {
	t     *testing.T
	files []file
}

func (l *layout) blob(mediaType string, b []byte) ocispec.Descriptor {
	d := digest.FromBytes(b)
	l.files = append(l.files, reg("blobs/sha256/"+d.Encoded(), string(b)))
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (l *layout) image(arch string, layers ...[]byte) ocispec.Descriptor {
	config := dockerspec.DockerOCIImage{}
	config.Platform = ocispec.Platform{OS: "linux", Architecture: arch}
	config.RootFS.Type = "layers"
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, b := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(b))
		m.Layers = append(m.Layers, l.blob(ocispec.MediaTypeImageLayer, b))
	}
	m.Config = l.blob(ocispec.MediaTypeImageConfig, marshal(l.t, config))
	desc := l.blob(m.MediaType, marshal(l.t, m))
	desc.Platform = &config.Platform
	return desc
}

func (l *layout) tar(manifests ...ocispec.Descriptor) []byte {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
	index.SchemaVersion = 2
	files := append([]file{reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)}, l.files...)
	return tarOf(l.t, append(files, reg("index.json", string(marshal(l.t, index))))...)
}

func named(desc ocispec.Descriptor, name string) ocispec.Descriptor {
	desc.Annotations = map[string]string{"io.containerd.image.name": name}
	return desc
}

// TestLoadPlatforms: of an image for several platforms the one asked for, this
// host's when none is, and the only one there is.
func TestLoadPlatforms(t *testing.T) {
	const foreign = "s390x"
	mine := here().Architecture
	l := &layout{t: t}
	a, b := l.image(mine, tarOf(t, reg("arch", mine))), l.image(foreign, tarOf(t, reg("arch", foreign)))
	note := l.image("unknown", tarOf(t, reg("note", "x")))
	note.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{b, a, note}}
	index.SchemaVersion = 2
	both := l.blob(index.MediaType, marshal(t, index))
	index.Manifests = []ocispec.Descriptor{b, note}
	one := l.blob(index.MediaType, marshal(t, index))
	const name = "docker.io/library/x:1"
	for title, test := range map[string]struct {
		archive        []byte
		platform, want string
	}{
		"an index":                      {l.tar(named(both, name)), "", mine},
		"an index, asked":               {l.tar(named(both, name)), "linux/" + foreign, foreign},
		"an index, asked in vain":       {l.tar(named(both, name)), "linux/mips64le", ""},
		"an index of one":               {l.tar(named(one, name)), "", foreign},
		"an index of one, asked":        {l.tar(named(one, name)), "linux/" + mine, ""},
		"side by side":                  {l.tar(named(b, name), named(a, name), note), "", mine},
		"side by side, asked":           {l.tar(named(b, name), named(a, name)), "linux/" + foreign, foreign},
		"a manifest":                    {l.tar(named(b, name)), "", foreign},
		"a manifest, asked in vain":     {l.tar(named(b, name)), "linux/" + mine, ""},
		"a platform that is none at al": {l.tar(named(b, name)), "///", "invalid"},
	} {
		bothWays(t, title, test.archive, func(t *testing.T, r io.Reader) {
			s := openTest(t)
			loaded, err := s.Load(context.Background(), r, LoadOptions{Platform: test.platform})
			switch test.want {
			case "":
				if !errors.Is(err, errdefs.ErrNotFound) || len(left(t, s)) > 0 {
					t.Errorf("loaded %+v, %v, left %q", loaded, err, left(t, s))
				}
			case "invalid":
				if !errors.Is(err, errdefs.ErrInvalid) {
					t.Errorf("error %v", err)
				}
			default:
				if err != nil || len(loaded) != 1 || loaded[0].Config.Architecture != test.want || !slices.Equal(loaded[0].RepoTags, []string{"x:1"}) {
					t.Errorf("loaded %+v, %v, want %s", loaded, err, test.want)
				}
			}
		})
	}
}

// TestLoadDockerArchives: the ways of writing one that there have been.
func TestLoadDockerArchives(t *testing.T) {
	layer := tarOf(t, reg("f", "x"))
	config := dockerspec.DockerOCIImage{}
	config.Platform = here()
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer), digest.FromBytes(layer)}}
	configJSON := string(marshal(t, config))
	list := func(layers ...string) file {
		b, err := json.Marshal([]dockerImage{{Config: "c.json", RepoTags: []string{"x:1", "y:2"}, Layers: layers}})
		must(t, err)
		return reg("./manifest.json", string(b))
	}
	for name, files := range map[string][]file{
		"plain":      {reg("c.json", configJSON), reg("a/layer.tar", string(layer)), reg("b/layer.tar", string(layer)), list("a/layer.tar", "b/layer.tar")},
		"list first": {list("a/layer.tar", "a/layer.tar"), reg("./c.json", configJSON), reg("./a/layer.tar", string(layer))},
		"links":      {reg("c.json", configJSON), reg("a/layer.tar", string(layer)), symlink("b/layer.tar", "../a/layer.tar"), hardlink("h.tar", "b/layer.tar"), list("b/layer.tar", "h.tar")},
		"compressed": {reg("c.json", configJSON), reg("a", string(gzipped(t, layer))), list("a", "a")},
	} {
		bothWays(t, name, tarOf(t, files...), func(t *testing.T, r io.Reader) {
			s := openTest(t)
			loaded, err := s.Load(context.Background(), r, LoadOptions{})
			if err != nil || len(loaded) != 1 || loaded[0].ID != digest.FromString(configJSON) || !slices.Equal(loaded[0].RepoTags, []string{"x:1", "y:2"}) {
				t.Errorf("loaded %+v, %v", loaded, err)
			}
		})
	}
	l := &layout{t: t}
	img := l.image("amd64", layer)
	lying := slices.Clone(l.files)
	for i, f := range lying {
		lying[i].body = strings.Replace(f.body, "x", "y", 1)
	}
	for name, test := range map[string]struct {
		files []file
		want  string
	}{
		"no config":       {[]file{reg("a", string(layer)), list("a", "a")}, `"c.json" is not in it`},
		"no layer":        {[]file{reg("c.json", configJSON), list("a", "a")}, `"a" is not in it`},
		"link loop":       {[]file{reg("c.json", configJSON), symlink("a", "b"), symlink("b", "a"), list("a", "a")}, `"a" is not in it`},
		"bad list":        {[]file{reg("manifest.json", "{")}, "manifest.json"},
		"bad name":        {[]file{reg("c.json", configJSON), reg("a", string(layer)), reg("manifest.json", `[{"Config":"c.json","RepoTags":["UPPER"],"Layers":["a","a"]}]`)}, "UPPER"},
		"bad layout":      {[]file{reg("oci-layout", `{"imageLayoutVersion":"7"}`), reg("index.json", "{}")}, `version "7"`},
		"no index":        {[]file{reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)}, "index.json is not in it"},
		"empty":           {nil, "neither an oci-layout nor a manifest.json"},
		"no images":       {[]file{reg("manifest.json", "[]")}, "holds no image"},
		"lying digest":    {append(lying, reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), reg("index.json", string(marshal(t, ocispec.Index{Manifests: []ocispec.Descriptor{img}})))), "its content is sha256:"},
		"missing blob":    {[]file{reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), reg("index.json", string(marshal(t, ocispec.Index{Manifests: []ocispec.Descriptor{img}})))}, img.Digest.String()},
		"too large":       {[]file{reg("manifest.json", strings.Repeat(" ", maxMetadata+1))}, "are too many"},
		"layer too large": {[]file{reg("big", strings.Repeat("\x00", 2<<20))}, `"big": it unpacks to more than the 1MiB`},
	} {
		bothWays(t, name, tarOf(t, test.files...), func(t *testing.T, r io.Reader) {
			s := openTest(t, func(o *Options) { o.MaxLayerSize = 1 << 20 })
			_, err := s.Load(context.Background(), r, LoadOptions{})
			if err == nil || !strings.Contains(err.Error(), test.want) || errdefs.Hint(err) == "" || !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
				t.Errorf("error %v (%s), want %q", err, errdefs.Hint(err), test.want)
			}
			if got := left(t, s); len(got) > 0 {
				t.Errorf("left behind: %q", got)
			}
		})
	}
}

// TestOthersReadLayouts: skopeo and umoci take the oci-archive, and what skopeo
// writes as a layout directory comes back the same.
func TestOthersReadLayouts(t *testing.T) {
	src := twoImages(t)
	want := ids(t, src)["app:2"]
	dir := t.TempDir()
	saved := filepath.Join(dir, "oci.tar")
	var b bytes.Buffer
	must(t, src.Save(context.Background(), []string{"app:2"}, &b, SaveOptions{Format: FormatOCI}))
	must(t, os.WriteFile(saved, b.Bytes(), 0o600))
	if got := tool(t, "skopeo", "inspect", "--format", "{{.Os}} {{len .Layers}}", "oci-archive:"+saved); strings.TrimSpace(got) != "linux 2" {
		t.Errorf("skopeo reads %q", got)
	}
	tool(t, "skopeo", "copy", "oci-archive:"+saved, "oci:"+dir+"/layout:app:2")
	var again bytes.Buffer
	w := tar.NewWriter(&again)
	must(t, w.AddFS(os.DirFS(dir+"/layout")))
	must(t, w.Close())
	loaded, err := openTest(t).Load(context.Background(), &again, LoadOptions{})
	if err != nil || len(loaded) != 1 || loaded[0].ID.String() != want {
		t.Errorf("loaded %+v, %v, want %s", loaded, err, want)
	}
}

func TestOpenURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/f.tar" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "content")
	}))
	defer server.Close()
	body, err := OpenURL(context.Background(), server.URL+"/f.tar")
	must(t, err)
	b, err := io.ReadAll(body)
	if err != nil || string(b) != "content" || body.Close() != nil {
		t.Errorf("read %q, %v", b, err)
	}
	for from, class := range map[string]error{
		server.URL + "/nosuch": errdefs.ErrNotFound, "file:///etc/passwd": errdefs.ErrInvalid, "nosuch.tar": errdefs.ErrInvalid,
		"http://": errdefs.ErrInvalid, "http://127.0.0.1:1/": errdefs.ErrUnavailable,
	} {
		if _, err := OpenURL(context.Background(), from); !errors.Is(err, class) {
			t.Errorf("%s: %v, want %v", from, err, class)
		}
	}
}
