package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// TestMountDetached runs both ways of mounting over what there is to mount.
func TestMountDetached(t *testing.T) {
	ctx := context.Background()
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 50))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{filepath.Join(t.TempDir(), "s"), filepath.Join(long, "s")} {
		s := openAt(t, root)
		var layers [][]byte
		for i := range 100 {
			layers = append(layers, tarOf(t, reg(fmt.Sprintf("file%d", i), "x"), reg("top", fmt.Sprint(i))))
		}
		many, err := pullLayers(t, s, layers...)
		if err != nil {
			t.Fatal(err)
		}
		none, err := pullLayers(t, s)
		if err != nil {
			t.Fatal(err)
		}
		one := smallImage(t, s, "one")
		ways := []bool{true}
		if !s.snap.(*overlaySnapshotter).mounter.legacy { // a kernel that does not know the new way has only the old
			ways = []bool{false, true}
		}
		for _, legacy := range ways {
			s.snap.(*overlaySnapshotter).mounter.legacy = legacy
			for name, img := range map[string]*Image{"hundred layers": many, "no layer": none, "one layer": one} {
				t.Run(fmt.Sprintf("%s/legacy=%v/path=%d", name, legacy, len(root)), func(t *testing.T) {
					checkMount(t, s, img)
				})
			}
		}
	}
	s := openTest(t)
	if _, err := s.MountDetached(ctx, "nosuch"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("mount of an unknown key: %v", err)
	}
	img := smallImage(t, s, "x")
	for _, key := range []string{"", ".", "..", "a/b", "a:b", ".hidden", strings.Repeat("k", 200)} {
		if err := s.Prepare(ctx, key, img); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("prepare %q: %v", key, err)
		}
	}
}

func checkMount(t *testing.T, s *Store, img *Image) {
	t.Helper()
	ctx := context.Background()
	for i, prepare := range []func(context.Context, string, *Image) error{s.Prepare, s.PrepareVolatile} {
		key := fmt.Sprintf("key%d", i)
		if err := prepare(ctx, key, img); err != nil {
			t.Fatal(err)
		}
		for round := range 2 { // a container is started again
			f, err := s.MountDetached(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			path := procPath(f) + "/mine"
			if round == 1 {
				if got := readFile(t, path); got != "data" {
					t.Errorf("after the second mount the file says %q", got)
				}
			} else if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
				t.Error(err)
			}
			checkRoot(t, s, f, len(img.Layers))
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := s.RemoveSnapshot(ctx, key); err != nil {
			t.Error(err)
		}
	}
	f, err := s.MountImage(ctx, img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(procPath(f)+"/mine", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing into an image: %v", err)
	}
}

func checkRoot(t *testing.T, s *Store, f *os.File, layers int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode != unix.S_IFDIR|0o755 || st.Uid != 0 {
		t.Errorf("the root directory has mode %o, owner %d, %v", st.Mode, st.Uid, err)
	}
	if layers == 100 {
		if got := readFile(t, procPath(f)+"/top"); got != "99" {
			t.Errorf("the top layer is %q", got)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(table, []byte(s.root)) {
		t.Errorf("the mount is in the host's table, %v", err)
	}
}

// TestOnThread: whatever thread its goroutine starts on, the process itself
// keeps its root and its mounts.
func TestOnThread(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		err := onThread(unix.CLONE_NEWNS, func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the first thread")
			}
			return unix.Chroot("/proc")
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	root, rerr := os.Readlink("/proc/self/root")
	after, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || rerr != nil || after != before || root != "/" {
		t.Errorf("the process has root %s and %s, had %s (%v, %v)", root, after, before, err, rerr)
	}
}
