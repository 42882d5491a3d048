package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// eachSnapshotter runs a test with every one this machine has.
func eachSnapshotter(t *testing.T, test func(t *testing.T, use func(*Options))) {
	for _, name := range []string{SnapshotterOverlay, SnapshotterErofs, SnapshotterNative} {
		t.Run(name, func(t *testing.T) {
			if name == SnapshotterErofs {
				needErofs(t)
			}
			test(t, func(o *Options) { o.Snapshotter = name })
		})
	}
}

// needErofs skips where there is no mkfs.erofs, or no kernel that stacks what it
// makes; with both of them the snapshotter has to work.
func needErofs(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath(erofsTool)
	known, rerr := os.ReadFile("/proc/filesystems")
	must(t, rerr)
	var u unix.Utsname
	must(t, unix.Uname(&u))
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if err != nil || !strings.Contains(string(known), "\terofs\n") || major < 6 || major == 6 && minor < 15 {
		t.Skip("needs mkfs.erofs of erofs-utils, and Linux 6.15 with EROFS")
	}
}

// TestSnapshotters: what a container sees, writes and commits does not depend on
// how its layers are kept.
func TestSnapshotters(t *testing.T) {
	eachSnapshotter(t, func(t *testing.T, use func(*Options)) {
		ctx := context.Background()
		root := filepath.Join(t.TempDir(), "s")
		s := openAt(t, root, use)
		owned := reg("suid", "x")
		owned.hdr.Uid, owned.hdr.Gid, owned.hdr.Mode = 1234, 70000, 0o4711
		capable := reg("ping", "p")
		capable.hdr.Format = tar.FormatPAX
		capable.hdr.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hi"}
		base, err := pullLayers(t, s,
			tarOf(t, dir("gone/"), reg("gone/a", "a"), dir("opaque/"), reg("opaque/old", "o"), reg("file", "f"), dir("kept/"), reg("kept/old", "k"),
				owned, capable, reg("one", "linked"), hardlink("two", "one"), symlink("sym", "../../etc/passwd"), symlink("turn", "/etc"),
				file{name: "null", hdr: tar.Header{Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}}, file{name: "fifo", hdr: tar.Header{Typeflag: tar.TypeFifo, Mode: 0o600}}),
			tarOf(t, reg(".wh.gone", ""), reg("opaque/.wh..wh..opq", ""), reg("opaque/new", "n"), reg(".wh.file", ""), reg("kept/new", "k"), dir("turn/"), reg("turn/ed", "t")),
		)
		must(t, err)
		must(t, s.Prepare(ctx, "c", base))
		box := mounted(t, s, "c")
		want := []string{"fifo", "kept", "kept/new", "kept/old", "null", "one", "opaque", "opaque/new", "ping", "suid", "sym -> ../../etc/passwd", "turn", "turn/ed", "two"}
		if got := tree(t, box); !slices.Equal(got, want) {
			t.Errorf("tree %q\nwant %q", got, want)
		}
		var st, other syscall.Stat_t
		must(t, errors.Join(syscall.Lstat(box+"/suid", &st), syscall.Lstat(box+"/two", &other)))
		if st.Uid != 1234 || st.Gid != 70000 || st.Mode&0o7777 != 0o4711 || other.Nlink != 2 {
			t.Errorf("suid is %d:%d %o, two has %d names", st.Uid, st.Gid, st.Mode, other.Nlink)
		}
		b := make([]byte, 100)
		if n, err := unix.Lgetxattr(box+"/ping", "security.capability", b); err != nil || string(b[:n]) != capability {
			t.Errorf("capability %q, %v", b[:max(n, 0)], err)
		}
		if changed := commitOf(t, s, base, ""); len(changed.Layers) != 3 {
			t.Errorf("a commit of one file has %d layers", len(changed.Layers))
		}

		checkMapped(t, s, base)

		// What a container changes, beside the image and a second container.
		must(t, errors.Join(
			os.WriteFile(box+"/kept/old", []byte("new"), 0o600), os.Remove(box+"/one"), os.RemoveAll(box+"/opaque"), os.Mkdir(box+"/opaque", 0o700),
			os.WriteFile(box+"/opaque/mine", nil, 0o600), os.Chmod(box+"/ping", 0o700), os.Remove(box+"/sym"), os.Mkdir(box+"/dir", 0o755), os.RemoveAll(box+"/turn"),
			os.Symlink("/etc", box+"/dir/link"),
		))
		changes, err := s.Changes(ctx, "c")
		must(t, err)
		for _, want := range []Change{{"/kept/old", Modified}, {"/one", Deleted}, {"/opaque/new", Deleted}, {"/opaque/mine", Added}, {"/ping", Modified}, {"/dir/link", Added}, {"/turn", Deleted}} {
			if !slices.Contains(changes, want) {
				t.Errorf("changes %v lack %v", changes, want)
			}
		}
		if slices.ContainsFunc(changes, func(c Change) bool { return c.Path == "/suid" || c.Path == "/fifo" }) {
			t.Errorf("changes %v have what is the same", changes)
		}
		must(t, s.Prepare(ctx, "d", base))
		if got := tree(t, mounted(t, s, "d")); !slices.Equal(got, want) {
			t.Errorf("another container sees %q", got)
		}
		img, err := s.Commit(ctx, "c", base, CommitOptions{Ref: "made"})
		must(t, err)
		must(t, s.PrepareVolatile(ctx, "e", img))
		if got, want := tree(t, mounted(t, s, "e")), tree(t, box); !slices.Equal(got, want) {
			t.Errorf("committed %q\nwas %q", got, want)
		}
		idle, err := s.Commit(ctx, "d", base, CommitOptions{})
		must(t, err)
		if len(idle.Layers) != 2 {
			t.Errorf("a commit of nothing has %d layers", len(idle.Layers))
		}
		f, err := s.MountImage(ctx, img)
		must(t, err)
		if got, want := tree(t, procPath(f)), tree(t, box); !slices.Equal(got, want) {
			t.Errorf("the image shows %q\nwant %q", got, want)
		}
		if err := os.WriteFile(procPath(f)+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing into an image: %v", err)
		}
		must(t, f.Close())

		// After a restart everything is as it was; after a removal it is gone.
		must(t, s.Close())
		s = openAt(t, root) // and the choice need not be repeated
		if got := readFile(t, mounted(t, s, "c")+"/kept/old"); got != "new" {
			t.Errorf("after a restart the file says %q", got)
		}
		for key := range s.Snapshots() {
			must(t, s.RemoveSnapshot(ctx, key))
		}
		_, _, err = s.Prune(ctx, PruneOptions{All: true})
		must(t, err)
		if got := left(t, s); len(got) != 0 {
			t.Errorf("left behind: %q", got)
		}
		if len(s.mounted) != 0 {
			t.Errorf("still mounted: %v", s.mounted)
		}
	})
}

// checkMapped: a container with ids of its own sees the owners of the image.
func checkMapped(t *testing.T, s *Store, img *Image) {
	t.Helper()
	ctx := context.Background()
	const first = 100_000
	ids := []syscall.SysProcIDMap{{HostID: first, Size: 70_001}}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	must(t, cmd.Start())
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	must(t, errors.Join(err, cmd.Process.Kill()))
	defer userns.Close()
	_ = cmd.Wait()
	must(t, s.Prepare(ctx, "mapped", img))
	f, err := s.MountRoot(ctx, "mapped", RootOptions{Userns: userns, UID: first, GID: first})
	must(t, err)
	var st syscall.Stat_t
	must(t, syscall.Lstat(procPath(f)+"/suid", &st))
	if st.Uid != first+1234 || st.Gid != first+70_000 || st.Mode&0o7777 != 0o4711 {
		t.Errorf("mapped, suid is %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	must(t, errors.Join(f.Close(), s.RemoveSnapshot(ctx, "mapped")))
}

// TestSnapshotterOfAnother: a store is converted when there is nothing that
// stands on its layers, else refused.
func TestSnapshotterOfAnother(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "s")
	s := openAt(t, root, func(o *Options) { o.Snapshotter = SnapshotterOverlay })
	img := smallImage(t, s, "a")
	must(t, s.Prepare(ctx, "c", img))
	if name, backing := s.Snapshotter(); name != SnapshotterOverlay || backing == "" {
		t.Errorf("it is %q on %q", name, backing)
	}
	must(t, s.Close())
	_, err := Open(ctx, Options{Root: root, Snapshotter: SnapshotterNative})
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "was made with the snapshotter overlayfs, the configuration says native") || !strings.Contains(errdefs.Hint(err), `snapshotter = "overlayfs"`) {
		t.Errorf("with a container: %v (%s)", err, errdefs.Hint(err))
	}
	s = openAt(t, root)
	if got := readFile(t, mounted(t, s, "c")+"/hello"); got != "hello a\n" {
		t.Errorf("file says %q", got)
	}
	must(t, s.RemoveSnapshot(ctx, "c"))
	must(t, s.Close())
	for _, name := range []string{SnapshotterNative, SnapshotterOverlay} {
		s = openAt(t, root, func(o *Options) { o.Snapshotter = name })
		if got, _ := s.Snapshotter(); got != name {
			t.Errorf("it is %q, want %q", got, name)
		}
		must(t, s.Prepare(ctx, name, img))
		if got := readFile(t, mounted(t, s, name)+"/hello"); got != "hello a\n" {
			t.Errorf("%s: file says %q", name, got)
		}
		must(t, s.RemoveSnapshot(ctx, name))
		must(t, s.Close())
	}
	if _, err := Open(ctx, Options{Root: root, Snapshotter: "zfs"}); !errors.Is(err, errdefs.ErrInvalid) || errdefs.Hint(err) == "" {
		t.Errorf("an unknown one: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Open(ctx, Options{Root: filepath.Join(t.TempDir(), "e"), Snapshotter: SnapshotterErofs}); !errors.Is(err, errdefs.ErrUnsupported) || errdefs.Hint(err) != "install erofs-utils" {
		t.Errorf("erofs without its tool: %v", err)
	}
}
