package filetree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// gone fails the test when path is there.
func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there (%v)", path, err)
	}
}

func TestRemoveKinds(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "file")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"a/b/c", "closed"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1200 { // more than one batch
		if err := os.WriteFile(filepath.Join(root, "a", fmt.Sprint(i)), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"dir": outside, "file": precious, "dangling": "/nowhere", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(root, "a/b", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	gone(t, root)
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	for _, again := range []string{root, filepath.Join(root, "below"), filepath.Join(root, "below", "that")} {
		if err := Remove(t.Context(), again); err != nil {
			t.Errorf("what is not there: %v", err)
		}
	}
	if err := Remove(t.Context(), precious); err != nil {
		t.Errorf("a file: %v", err)
	}
	gone(t, precious)
}

// makeDeep makes a chain of n directories, with a file in each hundredth.
func makeDeep(t *testing.T, root string, n int) {
	t.Helper()
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; i < n && err == nil; i++ {
		if i%100 == 0 {
			if err := unix.Mknodat(fd, "f", unix.S_IFREG|0o600, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkdirat(fd, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, oerr := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd, err = next, oerr
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// TestRemoveDeep: a tree of 1,500 levels, with fewer descriptors than that.
func TestRemoveDeep(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	makeDeep(t, root, 1500)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err := Remove(t.Context(), root)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	gone(t, root)
}

func TestRemoveEndsWithContext(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	makeDeep(t, root, 100)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("told to end")
	cancel(why)
	if err := Remove(ctx, root); !errors.Is(err, why) {
		t.Errorf("error is %v, want %v", err, why)
	}
	if _, err := os.Stat(root); err != nil {
		t.Error(err)
	}
}

// TestRemoveMounts: what is mounted in the tree, on directories and files and
// over one another, is detached and stays whole.
func TestRemoveMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts are made")
	}
	base := t.TempDir()
	precious := filepath.Join(base, "precious")
	root := filepath.Join(base, "root")
	for _, dir := range []string{precious, filepath.Join(root, "upper/there")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{filepath.Join(precious, "data"), filepath.Join(root, "file"), filepath.Join(root, "upper/mine")} {
		if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and its mounts with it
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			for _, m := range [][2]string{
				{precious, "upper/there"}, {precious, "upper"}, {filepath.Join(precious, "data"), "file"}, {precious, "."},
			} {
				if err := unix.Mount(m[0], filepath.Join(root, m[1]), "", unix.MS_BIND, ""); err != nil {
					return err
				}
			}
			if err := Move(root, root+".moved"); err != nil {
				return err
			}
			return Remove(context.Background(), root+".moved")
		}()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	gone(t, root)
	gone(t, root+".moved")
	if got, err := os.ReadFile(filepath.Join(precious, "data")); err != nil || string(got) != "data" {
		t.Errorf("the mounted file is now %q, %v", got, err)
	}
}

// TestRemoveMarked: files a container with CAP_LINUX_IMMUTABLE has marked.
func TestRemoveMarked(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "dir/file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(root, "dir")} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|0x10)
		}
		f.Close()
		if err != nil {
			t.Skipf("cannot mark a file immutable here: %v", err)
		}
	}
	if err := os.Remove(file); err == nil {
		t.Fatal("an immutable file could be removed")
	}
	if err := Remove(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	gone(t, root)
}

// TestRemoveNames what stays: procfs lets nobody remove its entries.
func TestRemoveNames(t *testing.T) {
	err := Remove(t.Context(), "/proc/self/task")
	if err == nil || !strings.Contains(err.Error(), "/task") {
		t.Errorf("error %v does not name the entry", err)
	}
}
