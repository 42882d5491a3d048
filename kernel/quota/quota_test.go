package quota

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// makers make file systems; the options are those for project quotas.
var makers = map[string][2][]string{
	"xfs":  {{"mkfs.xfs", "-q"}},
	"ext4": {{"mkfs.ext4", "-q"}, {"-O", "quota,project", "-E", "quotatype=prjquota"}},
}

// mountNew makes a file system and mounts it for the test, with quotas or without.
// Where the kernel takes it only without, it has no such quotas, and the test is
// skipped.
func mountNew(t *testing.T, kind string, quotas bool) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	argv := makers[kind][0]
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("%s is not installed", argv[0])
	}
	option := "loop"
	if quotas {
		argv, option = slices.Concat(argv, makers[kind][1]), "loop,prjquota"
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(320<<20), f.Close(), os.Mkdir(at, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(argv[0], append(argv[1:], image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", argv[0], err, out)
	}
	out, err := exec.Command("mount", "-o", option, image, at).CombinedOutput()
	if err != nil && quotas {
		mountNew(t, kind, false)
		t.Skipf("this kernel has no quotas of %s: %s", kind, out)
	}
	if err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return at
}

func TestQuota(t *testing.T) {
	for kind := range makers {
		t.Run(kind, func(t *testing.T) {
			at := mountNew(t, kind, true)
			q, err := Open(at)
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			checkLimit(t, q, at)
			checkLost(t, q, at)
			checkForeign(t, q, at)
			checkStrays(t, q, at)
		})
	}
}

func claim(t *testing.T, q *FS, dir string, limit int64) uint32 {
	t.Helper()
	if err := errors.Join(os.Mkdir(dir, 0o700), q.Claim(dir, limit)); err != nil {
		t.Fatal(err)
	}
	u, err := q.Status(dir)
	if err != nil || !ours(u.Project) || u.Limit != limit {
		t.Fatalf("after a claim: %+v, %v", u, err)
	}
	return u.Project
}

// most is what fill writes: more than any limit here.
const most = 20 << 20

// fill writes into a file until that is refused and returns how much went in.
func fill(t *testing.T, path string) (int64, error) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, n := make([]byte, 64<<10), int64(0)
	for n < most {
		k, err := f.Write(b)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// checkLimit fills a directory: it ends at its limit, its neighbour and the file
// system's own part do not. Root with CAP_SYS_RESOURCE is above ext4's limits.
func checkLimit(t *testing.T, q *FS, at string) {
	a, b := filepath.Join(at, "a"), filepath.Join(at, "b")
	one, two := claim(t, q, a, 4<<20), claim(t, q, b, 8<<20)
	if one == two {
		t.Errorf("both have project %d", one)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(a, &fs); err != nil || int64(fs.Blocks)*fs.Bsize != 4<<20 {
		t.Errorf("statfs says %d bytes, %v", int64(fs.Blocks)*fs.Bsize, err)
	}
	dropResource(t)
	if err := os.Mkdir(filepath.Join(a, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	n, err := fill(t, filepath.Join(a, "below", "file"))
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) || n > 4<<20 || n < 3<<20 {
		t.Errorf("%d bytes went in, then: %v", n, err)
	}
	if n, err := fill(t, filepath.Join(b, "file")); n < 7<<20 || n > 8<<20 {
		t.Errorf("%d bytes went into the neighbour, then: %v", n, err)
	}
	if n, err := fill(t, filepath.Join(at, "file")); n != most || err != nil {
		t.Errorf("%d bytes went in beside them, then: %v", n, err)
	}
	if err := errors.Join(os.Rename(b, filepath.Join(at, "moved")), q.Ensure(filepath.Join(at, "moved"), 16<<20)); err != nil {
		t.Fatal(err)
	}
	if n, err := fill(t, filepath.Join(at, "moved", "file")); n < 15<<20 || n > 16<<20 {
		t.Errorf("%d bytes went in under a greater limit, then: %v", n, err)
	}
}

// dropResource takes CAP_SYS_RESOURCE from the thread the test runs on.
func dropResource(t *testing.T) {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	runtime.LockOSThread() // for good: it ends with the test
	err := unix.Capget(&hdr, &caps[0])
	if caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE; err == nil {
		err = unix.Capset(&hdr, &caps[0])
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkLost: a directory that was copied, and so has no project, gets one with
// all that is in it.
func checkLost(t *testing.T, q *FS, at string) {
	dir := filepath.Join(at, "lost")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub", "f"), make([]byte, 2<<20), 0o600),
		os.Symlink("/nowhere", filepath.Join(dir, "sub", "link")), unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if u, err := q.Status(dir); err != nil || u.Project != 0 {
		t.Fatalf("before: %+v, %v", u, err)
	}
	if err := q.Ensure(dir, 3<<20); err != nil {
		t.Fatal(err)
	}
	unix.Sync() // what is not allocated yet is accounted with the directory
	if u, err := q.Status(dir); err != nil || u.Limit != 3<<20 || u.Used < 2<<20 {
		t.Errorf("after: %+v, %v", u, err)
	}
	if n, err := fill(t, filepath.Join(dir, "sub", "g")); n > 1<<20 || err == nil {
		t.Errorf("%d bytes went in, then: %v", n, err)
	}
}

// checkForeign: a directory that was copied into one of somebody else's project
// gets its own, and that one's limit stays.
func checkForeign(t *testing.T, q *FS, at string) {
	const theirs = 7
	above := filepath.Join(at, "theirs")
	if err := os.Mkdir(above, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := openDir(above)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dir := filepath.Join(above, "copied")
	err = errors.Join(setProject(d, theirs, true), setLimit(q.root, theirs, 32<<20), os.Mkdir(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600), q.Ensure(dir, 2<<20))
	if err != nil {
		t.Fatal(err)
	}
	if u, err := q.Status(dir); err != nil || !ours(u.Project) || u.Limit != 2<<20 {
		t.Errorf("the copy: %+v, %v", u, err)
	}
	if id, err := projectOf(above); err != nil || id != theirs {
		t.Errorf("the directory above has project %d, %v", id, err)
	}
	if u, err := q.get(theirs); err != nil || u.hard*blockSize != 32<<20 {
		t.Errorf("their limit: %+v, %v", u, err)
	}
}

// checkStrays: limits without files are found, those with files are not, and
// their projects are not given away before.
func checkStrays(t *testing.T, q *FS, at string) {
	dir := filepath.Join(at, "stray")
	id := claim(t, q, dir, 1<<20)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600), q.Release(dir)); err != nil {
		t.Fatal(err)
	}
	if free, err := q.unused(id); err != nil || free {
		t.Errorf("a project with files is free: %v, %v", free, err)
	}
	if err := errors.Join(q.Ensure(dir, 1<<20), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	list, err := settled(q, id)
	if err != nil || !slices.Equal(list, []uint32{id}) {
		t.Errorf("strays: %v, %v; want %d", list, err, id)
	}
	if err := q.Forget(id); err != nil {
		t.Fatal(err)
	}
	if list, err := q.Strays(); err != nil || len(list) > 0 {
		t.Errorf("strays are left: %v, %v", list, err)
	}
	if free, err := q.unused(id); err != nil || !free {
		t.Errorf("a project without files and limit is not free: %v, %v", free, err)
	}
	if err := q.Forget(1); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("forgetting somebody else's project: %v", err)
	}
}

// settled waits for the kernel, which deletes in the background.
func settled(q *FS, id uint32) ([]uint32, error) {
	for {
		d, err := q.get(id)
		if err != nil {
			return nil, err
		}
		if d.inodes == 0 && d.blocks == 0 {
			return q.Strays()
		}
		if err := unix.Syncfs(int(q.root.Fd())); err != nil {
			return nil, err
		}
	}
}

// TestUnsupported: the error names the file system and the remedy.
func TestUnsupported(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "at")
	if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount("quota-test", at, "tmpfs", 0, "size=1m")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, 0)
	_, err := Open(at)
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "tmpfs") || !strings.Contains(errdefs.Hint(err), "prjquota") {
		t.Errorf("on tmpfs: %v; %s", err, errdefs.Hint(err))
	}
	for kind, want := range map[string]string{"xfs": "with the option prjquota", "ext4": "tune2fs -O project,quota"} {
		t.Run(kind, func(t *testing.T) {
			at := mountNew(t, kind, false)
			_, err := Open(at)
			if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), kind) || !strings.Contains(errdefs.Hint(err), want) ||
				!strings.Contains(errdefs.Hint(err), at) {
				t.Errorf("%v; %s", err, errdefs.Hint(err))
			}
			if left, err := os.ReadDir(at); err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".quota") }) {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
