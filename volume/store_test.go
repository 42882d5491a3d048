package volume

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// insideVar marks the process with a mount namespace of its own.
const insideVar = "BERTH_VOLUME_TEST_INSIDE"

// TestMain runs the tests of root in a mount namespace of their own: the
// host's mounts stay as they are.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(insideVar) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		panic(err)
	}
}

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t *testing.T, s *Store, opt CreateOptions) Volume {
	t.Helper()
	v, _, err := s.Create(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVolumesSurviveTheStore(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	v := create(t, s, CreateOptions{Name: "data", Labels: map[string]string{"a": "b"}})
	if err := os.WriteFile(filepath.Join(v.Path, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "old", dataDir), 0o755); err != nil { // from before there were records
		t.Fatal(err)
	}
	for _, left := range []string{".new-1", ".removed-x"} {
		if err := os.MkdirAll(filepath.Join(root, left, dataDir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, root)
	got, err := s.Get("data")
	if err != nil || got.Labels["a"] != "b" || !got.Created.Equal(v.Created) || got.Path != v.Path || got.Anonymous() {
		t.Errorf("after opening again: %+v, %v", got, err)
	}
	if old, err := s.Get("old"); err != nil || !old.Anonymous() {
		t.Errorf("a directory without a record: %+v, %v", old, err)
	}
	s.Close()
	list, _ := os.ReadDir(root)
	if len(list) != 2 {
		t.Errorf("left in the root: %v", list)
	}
	if n, err := s.Usage(t.Context(), "data"); err != nil || n < 1 {
		t.Errorf("usage %d, %v", n, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	bind := map[string]string{"type": "none", "o": "bind", "device": "/srv"}
	create(t, s, CreateOptions{Name: "there", Options: bind})
	for name, test := range map[string]struct {
		opt   CreateOptions
		class error
		text  string
	}{
		"short":         {CreateOptions{Name: "a"}, errdefs.ErrInvalid, "too short"},
		"a path":        {CreateOptions{Name: "../x"}, errdefs.ErrInvalid, "invalid characters"},
		"a dot":         {CreateOptions{Name: ".new-x"}, errdefs.ErrInvalid, "invalid characters"},
		"too long":      {CreateOptions{Name: strings.Repeat("a", 250)}, errdefs.ErrInvalid, "invalid characters"},
		"a driver":      {CreateOptions{Name: "xx", Driver: "ceph"}, errdefs.ErrNotFound, `plugin "ceph" not found`},
		"an option":     {CreateOptions{Name: "xx", Options: map[string]string{"colour": "red"}}, errdefs.ErrInvalid, `invalid option: "colour"`},
		"half of it":    {CreateOptions{Name: "xx", Options: map[string]string{"type": "tmpfs"}}, errdefs.ErrInvalid, `missing required option: "device"`},
		"a port":        {CreateOptions{Name: "xx", Options: map[string]string{"type": "cifs", "device": "//h:445/s"}}, errdefs.ErrInvalid, "//HOST/SHARE"},
		"other options": {CreateOptions{Name: "there", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}, errdefs.ErrConflict, "other options"},
	} {
		_, _, err := s.Create(t.Context(), test.opt)
		if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, made, err := s.Create(t.Context(), CreateOptions{Name: "there"}); err != nil || made {
		t.Errorf("one that exists: made %v, %v", made, err)
	}
	if len(s.List()) != 1 {
		t.Errorf("made in spite of it: %+v", s.List())
	}
}

func TestRemoveWaitsForHolders(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, made, err := s.Hold(t.Context(), CreateOptions{Name: "data"}, "c1"); err != nil || !made {
		t.Fatal(made, err)
	}
	if err := s.Adopt("data", "c2"); err != nil {
		t.Fatal(err)
	}
	err := s.Remove("data")
	var use *InUseError
	if !errors.As(err, &use) || !errors.Is(err, errdefs.ErrConflict) || strings.Join(use.Holders, " ") != "c1 c2" {
		t.Errorf("remove in use: %v", err)
	}
	s.Release("data", "c1")
	s.Release("data", "c2")
	s.Release("data", "c2")
	if err := s.Remove("data"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("data"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("remove twice: %v", err)
	}
	if err := s.Adopt("data", "c1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("adopt what is gone: %v", err)
	}
	if list, _ := os.ReadDir(root); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
}

// TestMountedWhileUsed: a volume with a device is mounted for its first user
// and unmounted after its last, by whichever store.
func TestMountedWhileUsed(t *testing.T) {
	needRoot(t)
	root, device := t.TempDir(), t.TempDir()
	s := open(t, root)
	create(t, s, CreateOptions{Name: "dir", Options: map[string]string{"type": "none", "o": "bind", "device": device}})
	create(t, s, CreateOptions{Name: "mem", Options: map[string]string{"type": "tmpfs", "o": "size=1m,uid=1000", "device": "tmpfs"}})
	t.Cleanup(func() { UnmountAll(root) })
	for _, user := range []string{"c1", "c2"} {
		for _, name := range []string{"dir", "mem"} {
			path, err := s.Mount(name, user)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path, user), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(device, "c1")); err != nil {
		t.Errorf("the device has no file: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "mem", dataDir), &st); err != nil || st.Uid != 1000 {
		t.Errorf("uid %d, %v", st.Uid, err)
	}
	mustBeMounted := func(name string, want bool) {
		t.Helper()
		got, err := isMount(filepath.Join(root, name, dataDir))
		if err != nil || got != want {
			t.Errorf("%s is mounted: %v, %v", name, got, err)
		}
	}
	if used, err := s.Unmount("mem", "c1"); err != nil || !used {
		t.Error(err)
	}
	mustBeMounted("mem", true)
	// The next engine: of the two containers only c2 runs on, and uses one.
	s = open(t, root)
	if err := s.Running(map[string][]string{"mem": {"c2"}}); err != nil {
		t.Error(err)
	}
	mustBeMounted("mem", true)
	mustBeMounted("dir", false)
	if used, err := s.Unmount("mem", "c2"); err != nil || !used {
		t.Error(err)
	}
	mustBeMounted("mem", false)
	if _, err := s.Mount("dir", "c3"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("dir"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(device, "c1")); err != nil {
		t.Errorf("removing the volume removed the device's files: %v", err)
	}
}

func TestMountErrorsSayWhy(t *testing.T) {
	needRoot(t)
	s := open(t, t.TempDir())
	create(t, s, CreateOptions{Name: "gone", Options: map[string]string{"type": "none", "o": "bind", "device": "/nosuch/dir"}})
	create(t, s, CreateOptions{Name: "kind", Options: map[string]string{"type": "nosuchfs", "o": "password=geheim", "device": "x"}})
	if _, err := s.Mount("gone", "c"); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.Hint(err), "/nosuch/dir") {
		t.Errorf("no device: %v", err)
	}
	if _, err := s.Mount("kind", "c"); !errors.Is(err, errdefs.ErrUnsupported) || strings.Contains(err.Error(), "geheim") {
		t.Errorf("no such file system: %v", err)
	}
	if _, err := s.Mount("nosuch", "c"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no such volume: %v", err)
	}
}

func TestServersAreResolved(t *testing.T) {
	resolve := func(string) (string, error) { return "192.0.2.1", nil }
	for _, test := range []struct{ kind, device, o, wantDevice, wantO string }{
		{"nfs", ":/export", "addr=nas,rw", ":/export", "addr=192.0.2.1,rw"},
		{"nfs", ":/export", "addr=10.0.0.1,rw", ":/export", "addr=10.0.0.1,rw"},
		{"cifs", "//nas/share", "username=u", "//192.0.2.1/share", "username=u"},
		{"cifs", "//10.0.0.1/share", "", "//10.0.0.1/share", ""},
		{"tmpfs", "tmpfs", "size=1m", "tmpfs", "size=1m"},
	} {
		device, o, err := source(map[string]string{"type": test.kind, "device": test.device, "o": test.o}, resolve)
		if err != nil || device != test.wantDevice || o != test.wantO {
			t.Errorf("%s %s %s: %s %s, %v", test.kind, test.device, test.o, device, o, err)
		}
	}
}

// TestFill: an empty volume gets the image's files, with their owners; one with
// files, and one whose filling was interrupted, end right too.
func TestFill(t *testing.T) {
	needRoot(t)
	from, root := t.TempDir(), t.TempDir()
	if err := os.Chown(from, 7, 8); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "f"), []byte("image"), 0o640); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := open(t, root)
	v := create(t, s, CreateOptions{Name: "data"})
	if err := os.MkdirAll(filepath.Join(root, "data", ".fill", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), "data", dir); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(v.Path, &st); err != nil || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	if names, _ := os.ReadDir(v.Path); len(names) != 1 {
		t.Errorf("filled with %v", names)
	}
	if err := os.WriteFile(filepath.Join(v.Path, "f"), []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), "data", dir); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(v.Path, "f")); string(b) != "mine" {
		t.Errorf("a file was overwritten: %s", b)
	}
}
