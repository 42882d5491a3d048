package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/berth-containers/berth/errdefs"
)

// bothWays runs a test with an archive as a stream and as a file that can be read
// anywhere.
func bothWays(t *testing.T, name string, archive []byte, test func(t *testing.T, r io.Reader)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { test(t, bytes.NewReader(archive)) })
	t.Run(name+" in a file", func(t *testing.T) { test(t, inFile(t, archive)) })
}

// inFile is an open file with the archive in it, behind something else that was
// read already.
func inFile(t *testing.T, archive []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	must(t, os.WriteFile(path, append([]byte("before"), archive...), 0o600))
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Seek(6, io.SeekStart)
	must(t, err)
	return f
}

// dockerArchive is what Podman and skopeo write: layers named by their digests.
func dockerArchive(t *testing.T, tag string, cmd []string, layers ...[]byte) []byte {
	t.Helper()
	config := dockerspec.DockerOCIImage{}
	config.Platform, config.RootFS.Type, config.Config.Cmd = here(), "layers", cmd
	var files []file
	var names []string
	for _, b := range layers {
		d := digest.FromBytes(b)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d)
		names = append(names, d.Encoded()+".tar")
		files = append(files, reg(d.Encoded()+".tar", string(b)))
	}
	list, err := json.Marshal([]dockerImage{{Config: "c.json", RepoTags: []string{tag}, Layers: names}})
	must(t, err)
	return tarOf(t, append(files, reg("c.json", string(marshal(t, config))), reg("manifest.json", string(list)))...)
}

// bigTar is a layer that is too long to wait in memory.
func bigTar(t *testing.T, name string) []byte {
	return tarOf(t, reg(name, strings.Repeat(name, 2*smallFile/len(name))))
}

// TestLoadPassesOver: what the store has is not read. The archives that are
// loaded a second time have nonsense in the place of their layers.
func TestLoadPassesOver(t *testing.T) {
	ctx := context.Background()
	one, two, small := bigTar(t, "one"), bigTar(t, "two"), tarOf(t, reg("small", "x"))
	spoil := func(archive []byte, layers ...[]byte) []byte {
		archive = bytes.Clone(archive)
		for _, b := range layers {
			at := bytes.Index(archive, b)
			copy(archive[at:], bytes.Repeat([]byte{'?'}, len(b)))
		}
		return archive
	}
	archive := dockerArchive(t, "x:1", nil, one, two, small)
	bothWays(t, "all of it", spoil(archive, one, two, small), func(t *testing.T, again io.Reader) {
		s := openTest(t)
		first, err := s.Load(ctx, bytes.NewReader(archive), LoadOptions{})
		must(t, err)
		before := left(t, s)
		second, err := s.Load(ctx, again, LoadOptions{})
		if err != nil || len(second) != 1 || second[0].ID != first[0].ID || !slices.Equal(left(t, s), before) {
			t.Errorf("loaded %+v, %v, left %q, before %q", second, err, left(t, s), before)
		}
	})
	other := dockerArchive(t, "x:2", []string{"/other"}, one, two, small)
	bothWays(t, "the layers", spoil(other, one, two, small), func(t *testing.T, again io.Reader) {
		s := openTest(t)
		_, err := s.Load(ctx, inFile(t, archive), LoadOptions{})
		must(t, err)
		second, err := s.Load(ctx, again, LoadOptions{})
		if err != nil || len(second) != 1 || second[0].Config.Config.Cmd[0] != "/other" || len(ids(t, s)) != 2 {
			t.Errorf("loaded %+v, %v", second, err)
		}
	})
	other = dockerArchive(t, "x:2", nil, one, small, two)
	bothWays(t, "the first", spoil(other, one), func(t *testing.T, again io.Reader) {
		s := openTest(t)
		_, err := s.Load(ctx, inFile(t, dockerArchive(t, "x:1", nil, one)), LoadOptions{})
		must(t, err)
		_, err = s.Load(ctx, again, LoadOptions{})
		must(t, err)
		if _, err := s.Remove(ctx, "x:1", RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		img, err := s.Get(ctx, "x:2")
		must(t, err)
		must(t, s.Save(ctx, []string{"x:2"}, io.Discard, SaveOptions{})) // compares all digests
		must(t, s.Prepare(ctx, "c", img))
		for name, size := range map[string]int{"one": 2 * smallFile / 3 * 3, "two": 2 * smallFile / 3 * 3, "small": 1} {
			if got := len(readFile(t, mounted(t, s, "c")+"/"+name)); got != size {
				t.Errorf("%s has %d bytes, want %d", name, got, size)
			}
		}
	})
	bothWays(t, "nothing", spoil(archive, two), func(t *testing.T, r io.Reader) {
		s := openTest(t)
		_, err := s.Load(ctx, r, LoadOptions{})
		if !errors.Is(err, errdefs.ErrInvalid) || len(left(t, s)) > 0 {
			t.Errorf("a layer of nonsense: %v, left %q", err, left(t, s))
		}
	})
}

// TestLoadManySmallFiles: what waits in memory is bounded, and what no image is
// made of is not kept.
func TestLoadManySmallFiles(t *testing.T) {
	layer := tarOf(t, reg("f", "x"))
	config := dockerspec.DockerOCIImage{}
	config.Platform, config.RootFS.Type, config.RootFS.DiffIDs = here(), "layers", []digest.Digest{digest.FromBytes(layer)}
	var files []file
	for i := range smallFiles/smallFile + 3 {
		files = append(files, reg(fmt.Sprint("extra", i), strings.Repeat("x", smallFile)))
	}
	files = append(files, reg("c.json", string(marshal(t, config))), reg("l.tar", string(layer)),
		reg("manifest.json", `[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]`))
	bothWays(t, "load", tarOf(t, files...), func(t *testing.T, r io.Reader) {
		s := openTest(t)
		loaded, err := s.Load(context.Background(), r, LoadOptions{})
		if err != nil || len(loaded) != 1 || len(left(t, s)) != 1+3 {
			t.Errorf("loaded %+v, %v, left %q", loaded, err, left(t, s))
		}
	})
}

// TestLoadOfTwoMinds: a file is not another image's layer because that one's config
// says so. Whoever pulls the other image would get it.
func TestLoadOfTwoMinds(t *testing.T) {
	ctx := context.Background()
	for name, pair := range map[string][2][]byte{
		"small": {tarOf(t, reg("f", "evil")), tarOf(t, reg("f", "good"))}, "big": {bigTar(t, "evil"), bigTar(t, "good")},
	} {
		evil, good := pair[0], pair[1]
		var files []file
		for i, layer := range pair {
			config := dockerspec.DockerOCIImage{}
			config.Platform, config.RootFS.Type, config.RootFS.DiffIDs = here(), "layers", []digest.Digest{digest.FromBytes(layer)}
			files = append(files, reg(fmt.Sprintf("c%d.json", i), string(marshal(t, config))))
		}
		files = append(files, reg("l.tar", string(evil)),
			reg("manifest.json", `[{"Config":"c0.json","RepoTags":["x:0"],"Layers":["l.tar"]},{"Config":"c1.json","RepoTags":["x:1"],"Layers":["l.tar"]}]`))
		bothWays(t, name, tarOf(t, files...), func(t *testing.T, r io.Reader) {
			s := openTest(t)
			_, err := s.Load(ctx, r, LoadOptions{})
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), digest.FromBytes(evil).String()) {
				t.Errorf("load: %v", err)
			}
			_, err = s.layers.Stat(quiet(ctx), digest.FromBytes(good).String())
			if !cerrdefs.IsNotFound(err) || len(left(t, s)) > 0 {
				t.Errorf("the layer is there: %v, left %q", err, left(t, s))
			}
		})
	}
}

// TestLoadCancelled: a load that is given up leaves nothing.
func TestLoadCancelled(t *testing.T) {
	archive := dockerArchive(t, "x:1", nil, bigTar(t, "one"), bigTar(t, "two"))
	for _, at := range []int{1, 2} {
		s := openTest(t)
		ctx, cancel := context.WithCancel(context.Background())
		seen := 0
		_, err := s.Load(ctx, inFile(t, archive), LoadOptions{Progress: func(ProgressEvent) {
			if seen++; seen == at {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) || len(left(t, s)) > 0 {
			t.Errorf("given up at event %d: %v, left %q", at, err, left(t, s))
		}
	}
}
