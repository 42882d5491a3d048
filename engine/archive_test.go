package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// fetch reads a file or directory of a container: its description, and each
// entry as "name type mode uid link content".
func (te *testEngine) fetch(id, path string) (container.PathStat, []string, error) {
	te.t.Helper()
	var b bytes.Buffer
	var st container.PathStat
	err := te.ContainerArchive(te.t.Context(), id, path, func(s container.PathStat) (io.Writer, error) {
		st = s
		return &b, nil
	})
	if err != nil {
		return st, nil, err
	}
	var list []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return st, list, nil
		}
		if err != nil {
			te.t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			te.t.Fatal(err)
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %c %o %d %s%s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Linkname, text)))
	}
}

// packed is a tar of entries.
func packed(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "text of " + h.Name
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func regular(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

// eachState runs f on a container that runs and on one that does not, both
// with a volume, a bind and a tmpfs.
func eachState(t *testing.T, f func(t *testing.T, te *testEngine, id string)) {
	te := newTestEngine(t)
	bind := filepath.Join(te.dir, "bind")
	if err := os.Mkdir(bind, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, act := range map[string]func(string, *container.CreateRequest) string{"running": te.run, "stopped": te.create} {
		t.Run(name, func(t *testing.T) {
			req := bound(request("sleep", "1000"), name+":/vol", bind+":/bind:ro")
			f(t, te, act(name, req))
		})
	}
}

// TestArchive: what is read of a container, by Docker's rules of names.
func TestArchive(t *testing.T) {
	eachState(t, func(t *testing.T, te *testEngine, id string) {
		put := packed(t, link("abs", "/home/sailor/chart"), link("rel", "../home/sailor"), link("far", "abs/../none"),
			regular("a.b"), tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "a.b"},
			tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"})
		if err := te.ContainerExtract(t.Context(), id, "/vol", put, ExtractOptions{}); err != nil {
			t.Fatal(err)
		}
		chart := "0 640 1000 here be dragons"
		for path, want := range map[string][]string{
			"/home/sailor/chart":    {"chart " + chart},
			"home/sailor/../sailor": {"sailor/ 5 750 1000", "sailor/chart " + chart},
			"/home/sailor/.":        {"./ 5 750 1000", "./chart " + chart},
			"/vol/abs":              {"abs 2 777 0 /home/sailor/chart"},
			"/vol/rel/":             {"rel/ 5 750 1000", "rel/chart " + chart},
			"/vol": {"vol/ 5 755 0", "vol/a.b 0 755 0 text of a.b", "vol/abs 2 777 0 /home/sailor/chart",
				"vol/far 2 777 0 abs/../none", "vol/hard 1 755 0 vol/a.b", "vol/pipe 6 755 0", "vol/rel 2 777 0 ../home/sailor"},
		} {
			_, got, err := te.fetch(id, path)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q, %v", path, got, err)
			}
		}
		if _, got, err := te.fetch(id, "/"); err != nil || got[0] != "/ 5 755 0" || !slices.Contains(got, "/home/sailor/chart "+chart) || !slices.Contains(got, "/proc/ 5 755 0") || !slices.Contains(got, "/dev/ 5 755 0") {
			t.Errorf("/: %v, %v", got, err)
		}
		for path, want := range map[string]string{"/vol/abs": "/home/sailor/chart", "/vol/rel": "/home/sailor", "/vol/far": "/home/sailor/none"} {
			if st, _, err := te.fetch(id, path); err != nil || st.LinkTarget != want || st.Mode&os.ModeSymlink == 0 {
				t.Errorf("%s leads to %q, %v", path, st.LinkTarget, err)
			}
		}
		if _, _, err := te.fetch(id, "/nosuch"); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("no such file: %v", err)
		}
		if st, _, err := te.fetch(id, "/vol/a.b"); err != nil || st.Name != "a.b" || st.Size != 11 {
			t.Errorf("stat %+v, %v", st, err)
		}
	})
}

// TestExtract: what is made in a container, and what is refused.
func TestExtract(t *testing.T) {
	eachState(t, func(t *testing.T, te *testEngine, id string) {
		ctx := t.Context()
		extract := func(dir string, opt ExtractOptions, entries ...tar.Header) error {
			return te.ContainerExtract(ctx, id, dir, packed(t, entries...), opt)
		}
		strict := ExtractOptions{NoOverwriteDirNonDir: true}
		when := time.Unix(1e9, 0)
		owned := tar.Header{Typeflag: tar.TypeReg, Name: "deep/er/f", Mode: 0o4751, Uid: 7, Gid: 8, ModTime: when}
		dir := tar.Header{Typeflag: tar.TypeDir, Name: "deep/", Mode: 0o711, ModTime: when}
		if err := extract("/tmp", strict, dir, owned); err != nil {
			t.Fatal(err)
		}
		st, got, err := te.fetch(id, "/tmp/deep")
		if err != nil || !slices.Equal(got, []string{"deep/ 5 711 0", "deep/er/ 5 755 0", "deep/er/f 0 4751 7 text of deep/er/f"}) || !st.Mtime.Equal(when) {
			t.Errorf("made %q, %v, %v", got, st.Mtime, err)
		}
		for name, test := range map[string]struct {
			err   error
			class error
			text  string
		}{
			"file over directory": {extract("/tmp", strict, regular("deep")), errdefs.ErrInvalid, "cannot overwrite directory"},
			"directory over file": {extract("/tmp/deep/er", strict, tar.Header{Typeflag: tar.TypeDir, Name: "f"}), errdefs.ErrInvalid, "cannot overwrite non-directory"},
			"out of it":           {extract("/tmp", strict, regular("../../x")), errdefs.ErrInvalid, "leads out"},
			"into a file":         {extract("/etc/passwd", strict, regular("x")), errdefs.ErrInvalid, "not a directory"},
			"into nothing":        {extract("/nosuch", strict, regular("x")), errdefs.ErrNotFound, "could not find"},
			"read-only bind":      {extract("/bind", strict, regular("x")), errdefs.ErrPermission, "mounted volume is marked read-only"},
			"no archive":          {te.ContainerExtract(ctx, id, "/tmp", strings.NewReader(strings.Repeat("x", 2000)), strict), errdefs.ErrInvalid, "read archive"},
		} {
			if !errors.Is(test.err, test.class) || !strings.Contains(test.err.Error(), test.text) {
				t.Errorf("%s: %v", name, test.err)
			}
		}
		if err := extract("/tmp", ExtractOptions{}, regular("deep")); err != nil {
			t.Errorf("file over directory, allowed: %v", err)
		}
		// Links in the container lead to where the container sees them lead.
		if err := extract("/tmp", strict, link("sub", "/home/sailor"), regular("sub/new")); err != nil {
			t.Error(err)
		}
		if _, got, err := te.fetch(id, "/home/sailor/new"); err != nil || got[0] != "new 0 755 0 text of sub/new" {
			t.Errorf("through a link: %q, %v", got, err)
		}
		if te.inspect(id).State.Running {
			if out, _ := te.exec(id, "cat", "/home/sailor/new"); out != "text of sub/new" {
				t.Errorf("the container sees %q", out)
			}
			return
		}
		if err := te.ContainerStart(ctx, id); err != nil {
			t.Fatal(err)
		}
		if out, _ := te.exec(id, "cat", "/home/sailor/new"); out != "text of sub/new" {
			t.Errorf("the container sees %q", out)
		}
	})
}

// TestExtractForTheUser: with copyUIDGID the files are the container's user's.
func TestExtractForTheUser(t *testing.T) {
	te := newTestEngine(t)
	req := request("true")
	req.User = "sailor"
	req.HostConfig.ReadonlyRootfs = true
	req.HostConfig.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "vv", Target: "/v"}}
	id := te.create("", req)
	if err := te.ContainerExtract(t.Context(), id, "/v", packed(t, regular("f")), ExtractOptions{CopyUIDGID: true}); err != nil {
		t.Fatal(err)
	}
	if _, got, err := te.fetch(id, "/v/f"); err != nil || got[0] != "f 0 755 1000 text of f" {
		t.Errorf("%q, %v", got, err)
	}
	err := te.ContainerExtract(t.Context(), id, "/tmp", packed(t, regular("f")), ExtractOptions{})
	if !errors.Is(err, errdefs.ErrPermission) || !strings.Contains(err.Error(), "rootfs is marked read-only") {
		t.Errorf("read-only root: %v", err)
	}
}

// TestFilesHoldNothingUp: while a stopped container's files are read it can be
// started, and both see the same files; it can be removed as well.
func TestFilesHoldNothingUp(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.create("", bound(request("sh", "-c", "echo from within > /tmp/f; sleep 1000"), "vv:/v"))
	c, err := te.containers.get(id)
	if err != nil {
		t.Fatal(err)
	}
	root, _, done, err := te.openFiles(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Fatal(err)
	}
	te.exec(id, "sh", "-c", "until test -s /tmp/f; do usleep 1000; done")
	f, err := openInRoot(root, "tmp/f", os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(f)
	f.Close()
	if string(text) != "from within\n" {
		t.Errorf("the reader sees %q", text)
	}
	if err := te.ContainerRemove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	done()
}

// TestHostileArchive: a container that swaps a directory for a link to the
// host's, over and over, gets nothing of the host read and nothing written there
// (CVE-2018-15664), in and out of the container.
func TestHostileArchive(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	outside := filepath.Join(te.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("the host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := te.run("", bound(request("sleep", "1000"), "vv:/v"))
	v, err := te.VolumeInspect(ctx, "vv")
	if err != nil {
		t.Fatal(err)
	}
	dir, trap := filepath.Join(v.Mountpoint, "dir"), filepath.Join(v.Mountpoint, "trap")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, trap); err != nil {
		t.Fatal(err)
	}
	swap(t, dir, trap)
	for range 300 {
		// An error is fine: the link leads to what is not in the container.
		_ = te.ContainerExtract(ctx, id, "/v/dir", packed(t, regular("planted"), regular("dir/planted")), ExtractOptions{})
		_ = te.ContainerExtract(ctx, id, "/v", packed(t, regular("dir/planted")), ExtractOptions{})
		for _, path := range []string{"/v/dir/secret", "/v/dir/", "/v/dir/."} {
			_, got, _ := te.fetch(id, path)
			for _, entry := range got {
				if strings.Contains(entry, "the host's") {
					t.Fatalf("read a file of the host: %s", entry)
				}
			}
		}
	}
	list, err := os.ReadDir(outside)
	if err != nil || len(list) != 1 {
		t.Errorf("written on the host: %v, %v", list, err)
	}
}

// TestArchiveEndsWithItsContext: a copy nobody waits for any more ends.
func TestArchiveEndsWithItsContext(t *testing.T) {
	te := newTestEngine(t)
	id := te.create("", request("true"))
	ctx, cancel := context.WithCancel(t.Context())
	err := te.ContainerArchive(ctx, id, "/", func(container.PathStat) (io.Writer, error) {
		cancel()
		return io.Discard, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestChanges: what differs from the image, in Docker's words.
func TestChanges(t *testing.T) {
	te := newTestEngine(t)
	id := te.run("", bound(request("sh", "-c", "echo x > /home/sailor/chart; mkdir /home/new; echo y > /home/new/f; rm /etc/notexec; echo z > /vol/f"), "vv:/vol"))
	te.wait(id, container.WaitConditionNotRunning)
	list, err := te.ContainerChanges(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range list {
		got = append(got, c.Kind.String()+" "+c.Path)
	}
	slices.Sort(got)
	want := []string{"A /home/new", "A /home/new/f", "A /vol", "C /etc", "C /home", "C /home/sailor/chart", "D /etc/notexec"}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	fresh := te.run("", request("true"))
	te.wait(fresh, container.WaitConditionNotRunning)
	if list, err := te.ContainerChanges(t.Context(), fresh); err != nil || len(list) != 0 {
		t.Errorf("of nothing: %+v, %v", list, err)
	}
}
