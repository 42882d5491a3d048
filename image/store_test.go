package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// openTest opens a store in a directory of its own and checks at the test's end
// that it closes and that no mount below it is in the host's table.
func openTest(t *testing.T, change ...func(*Options)) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "s"), change...)
}

func openAt(t *testing.T, root string, change ...func(*Options)) *Store {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("overlayfs and file ownership need root")
	}
	opts := Options{Root: root, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	for _, c := range change {
		c(&opts)
	}
	s, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.lock.Fd() != ^uintptr(0) {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(b), " "+root+"/") {
			t.Errorf("a mount below %s is left (or the table unreadable: %v)", root, err)
		}
	})
	return s
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// file is an entry of a test's tar.
type file struct {
	name, body string
	hdr        tar.Header // Name and Size are filled in
}

func dir(name string) file {
	return file{name: name, hdr: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
}
func reg(name, body string) file {
	return file{name: name, body: body, hdr: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}}
}
func symlink(name, to string) file {
	return file{name: name, hdr: tar.Header{Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}}
}
func hardlink(name, to string) file {
	return file{name: name, hdr: tar.Header{Typeflag: tar.TypeLink, Linkname: to, Mode: 0o644}}
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.hdr.Name, f.hdr.Size = f.name, int64(len(f.body))
		if err := w.WriteHeader(&f.hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// smallImage imports a little root file system under a name.
func smallImage(t *testing.T, s *Store, name string, files ...file) *Image {
	t.Helper()
	if len(files) == 0 {
		files = []file{dir("etc/"), reg("etc/passwd", "root:x:0:0::/:/bin/sh\n"), reg("hello", "hello "+name+"\n")}
	}
	img, err := s.Import(context.Background(), bytes.NewReader(tarOf(t, files...)), ImportOptions{Ref: name, Changes: []string{`CMD ["/hello"]`}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// mounted mounts a snapshot for the length of the test and gives its path.
func mounted(t *testing.T, s *Store, key string) string {
	t.Helper()
	f, err := s.MountDetached(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return procPath(f)
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// left lists what a store has besides its fixed parts: blobs, ingests, layer
// directories, container directories, trash.
func left(t *testing.T, s *Store) []string {
	t.Helper()
	s.janitor.wait()
	var all []string
	for _, pattern := range []string{"content/blobs/*/*", "content/ingest/*", "layers/snapshots/*", "containers/*", "containers/.*", "trash/*", "unsynced.json", ".*"} {
		m, err := filepath.Glob(filepath.Join(s.root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m {
			rel, _ := filepath.Rel(s.root, p)
			if base := filepath.Base(p); base != "." && base != ".." {
				all = append(all, rel)
			}
		}
	}
	sort.Strings(all)
	return all
}

func TestImportPrepareMountRemove(t *testing.T) {
	ctx := context.Background()
	s := openTest(t)
	img := smallImage(t, s, "demo")
	if got := img.RepoTags; len(got) != 1 || got[0] != "demo:latest" {
		t.Errorf("tags %q", got)
	}
	if got := img.Config.Config.Cmd; len(got) != 1 || got[0] != "/hello" {
		t.Errorf("cmd %q", got)
	}
	if err := s.Prepare(ctx, "one", img); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "one")
	if got := readFile(t, root+"/hello"); got != "hello demo\n" {
		t.Errorf("file says %q", got)
	}
	if err := os.WriteFile(root+"/new", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if size, inodes, err := s.Usage(ctx, "one"); err != nil || size == 0 || inodes < 2 {
		t.Errorf("usage %d bytes, %d inodes, %v", size, inodes, err)
	}
	if err := s.RemoveSnapshot(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, "demo", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := left(t, s); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
	if _, err := os.Stat(filepath.Join(s.root, "images.json")); errors.Is(err, fs.ErrNotExist) {
		t.Error("no images.json")
	}
}

// benchStore is a store with one image of five layers.
func benchStore(b *testing.B) (*Store, *Image) {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("needs root")
	}
	ctx := context.Background()
	s, err := Open(ctx, Options{Root: filepath.Join(b.TempDir(), "s")})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	img, err := s.Import(ctx, bytes.NewReader(tarOf(b, dir("etc/"), reg("etc/passwd", "root"))), ImportOptions{Ref: "bench"})
	must(b, err)
	for i := range 4 {
		must(b, s.Prepare(ctx, "layer", img))
		f, err := s.MountDetached(ctx, "layer")
		must(b, err)
		must(b, os.WriteFile(fmt.Sprintf("%s/file%d", procPath(f), i), []byte("x"), 0o600))
		must(b, f.Close())
		img, err = s.Commit(ctx, "layer", img, CommitOptions{Ref: "bench"})
		must(b, err)
		must(b, s.RemoveSnapshot(ctx, "layer"))
	}
	return s, img
}
