package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// needCRIU skips where CRIU says itself that it does not work.
func needCRIU(t *testing.T) {
	t.Helper()
	needRoot(t)
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("criu check: %v: %s", err, lines[len(lines)-1])
	}
}

// newContainer is a container of the specification that is still to be launched.
func newContainer(t *testing.T, store *Store, id string, spec *specs.Spec) *Container {
	t.Helper()
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	c, err := store.New(id, t.TempDir(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// counter starts a container that writes ever higher numbers to a pipe.
func counter(t *testing.T, store *Store, spec *specs.Spec) (*Container, *Process, *os.File) {
	t.Helper()
	c := newContainer(t, store, "counter", spec)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	pr, err := c.Launch(runner(t), spec, LaunchOptions{Stdio: Stdio{Out: w}})
	if err != nil {
		t.Fatal(err)
	}
	return c, pr, r
}

// read reads one more line.
func readLine(t *testing.T, f *os.File) string {
	t.Helper()
	var line []byte
	b := make([]byte, 1)
	for {
		if n, err := f.Read(b); n == 0 || err != nil {
			t.Fatalf("%q and then %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func TestCheckpointAndRestore(t *testing.T) {
	needCRIU(t)
	root := rootfs(t)
	data := t.TempDir()
	spec := specFor(root, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Source: data, Options: []string{"bind"}})
	spec.Root.Readonly = false
	store := &Store{Root: t.TempDir()}
	images, before := filepath.Join(t.TempDir(), "images"), hostMounts(t)
	c, pr, out := counter(t, store, spec)
	defer out.Close()
	for readLine(t, out) != "3" {
	}
	o := &CheckpointOptions{Images: images, LeaveRunning: true}
	if err := c.Checkpoint(spec, o); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); st != specs.StateRunning {
		t.Errorf("left running it is %s", st)
	}
	o.LeaveRunning = false
	if err := c.Checkpoint(spec, o); err != nil {
		t.Fatal(err)
	}
	if _, err := pr.Wait(); err != nil {
		t.Error(err)
	}
	pr.Close()
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}

	c = newContainer(t, store, "counter", spec)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pr, err = c.Restore(spec, Stdio{In: os.Stdin, Out: w, Err: os.Stderr}, &CheckpointOptions{Images: images})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if line := readLine(t, r); len(line) == 0 || line == "1" || line == "2" {
		t.Errorf("it counts from %q again", line)
	}
	if st := c.Status(); st != specs.StateRunning {
		t.Errorf("restored it is %s", st)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pr.Pid)); err != nil || !strings.Contains(string(b), spec.Linux.CgroupsPath) {
		t.Errorf("its cgroup: %s %v", b, err)
	}
	if err := pr.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if ws, err := pr.Wait(); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("%v, %v", ws, err)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
	if left := newMounts(before, hostMounts(t)); len(left) > 0 {
		t.Errorf("mounts are left: %q", left)
	}
}

// TestRestoreLazily: a container goes on elsewhere while its memory is still where
// it was.
func TestRestoreLazily(t *testing.T) {
	needCRIU(t)
	if out, err := exec.Command("criu", "check", "--feature", "uffd-noncoop").CombinedOutput(); err != nil {
		t.Skipf("the kernel has no userfaultfd that CRIU can use: %s", out)
	}
	root := rootfs(t)
	spec := func(name string) *specs.Spec {
		s := specFor(root, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
		s.Root.Readonly = false
		s.Linux.CgroupsPath += name
		return s
	}
	store := &Store{Root: t.TempDir()}
	images, work := filepath.Join(t.TempDir(), "images"), t.TempDir()
	c, pr, out := counter(t, store, spec("-from"))
	defer out.Close()
	defer pr.Close()
	for readLine(t, out) != "3" {
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	ready, status, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	saved := make(chan error, 1)
	go func() {
		saved <- c.Checkpoint(spec("-from"), &CheckpointOptions{Images: images, LazyPages: true, PageServer: "127.0.0.1", PagePort: port, Status: status})
		status.Close()
	}()
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("not ready: %v, %v", err, <-saved)
	}
	lazyPages(t, images, work, port)

	restored := newContainer(t, store, "restored", spec("-to"))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next, err := restored.Restore(spec("-to"), Stdio{In: os.Stdin, Out: w, Err: os.Stderr}, &CheckpointOptions{Images: images, Work: work, LazyPages: true})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if line := readLine(t, r); len(line) == 0 || line == "1" || line == "2" {
		t.Errorf("it counts from %q again", line)
	}
	if err := <-saved; err != nil {
		t.Error(err)
	}
	next.abandon()
	if _, err := pr.Wait(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.Delete(true), restored.Delete(true)); err != nil {
		t.Error(err)
	}
}

// lazyPages has CRIU fetch memory from the page server as it is used.
func lazyPages(t *testing.T, images, work string, port int) {
	t.Helper()
	ready, status, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command("criu", "lazy-pages", "--images-dir", images, "--work-dir", work, "--page-server", "--address", "127.0.0.1", "--port", fmt.Sprint(port), "--status-fd", "3")
	cmd.ExtraFiles = []*os.File{status}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	status.Close()
	t.Cleanup(func() {
		if err := cmd.Wait(); err != nil { // it ends when all is fetched
			t.Errorf("criu lazy-pages: %v: %s", err, out.String())
		}
	})
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("criu lazy-pages is not ready: %v: %s", err, out.String())
	}
}

// newMounts are the lines of a mount table whose mount was not there before.
// (CRIU looks into tracefs and binfmt_misc, which the kernel mounts and unmounts
// by itself.)
func newMounts(before, after string) []string {
	mount := func(line string) string {
		fields := strings.Fields(line) // proc_pid_mountinfo(5): the id, and the place
		return fields[0] + " " + fields[4]
	}
	had := map[string]bool{}
	for _, line := range strings.Split(before, "\n") {
		had[mount(line)] = true
	}
	var list []string
	for _, line := range strings.Split(after, "\n") {
		at := strings.Fields(line)[4]
		byKernel := at == "/sys/kernel/debug/tracing" || at == "/proc/sys/fs/binfmt_misc"
		if !had[mount(line)] && !byKernel {
			list = append(list, line)
		}
	}
	return list
}

// CRIU does not know Landlock: who restores a container that would have a layer is
// told so.
func TestRestoreWarnsOfLandlock(t *testing.T) {
	needLandlock(t)
	for _, unprivileged := range []bool{true, false} {
		var warnings []string
		store := &Store{Root: t.TempDir(), Warn: func(s string) { warnings = append(warnings, s) }}
		c, err := store.New("r", t.TempDir(), []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		s := specFor(rootfs(t), "true")
		if unprivileged {
			s.Linux.Seccomp = noMounts()
		}
		if _, err := c.Restore(s, Stdio{}, &CheckpointOptions{Images: t.TempDir() + "/none"}); !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v", err)
		}
		if told := len(warnings) == 1 && strings.Contains(warnings[0], "Landlock"); told != unprivileged {
			t.Errorf("unprivileged %t: warnings %q", unprivileged, warnings)
		}
	}
}

// A failed restore leaves nothing, and says what CRIU says.
func TestRestoreErrors(t *testing.T) {
	needRoot(t)
	spec := specFor(rootfs(t), "true")
	before := hostMounts(t)
	for name, c := range map[string]struct {
		o     CheckpointOptions
		set   func(*specs.Spec)
		class error
		want  string
	}{
		"no criu":   {CheckpointOptions{Program: "/nonexistent/criu", Images: t.TempDir()}, nil, errdefs.ErrUnsupported, "needs criu"},
		"no images": {CheckpointOptions{Images: "/nonexistent/images"}, nil, unix.ENOENT, "/nonexistent/images"},
		"bad mode":  {CheckpointOptions{Images: t.TempDir(), CgroupMode: "x"}, nil, errdefs.ErrInvalid, "--manage-cgroups-mode"},
		"pre-dump":  {CheckpointOptions{Images: t.TempDir() + "/.."}, nil, unix.ENOENT, "descriptors.json"},
		"hooks": {CheckpointOptions{Images: t.TempDir()}, func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
			errdefs.ErrUnsupported, "hooks"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.o.Program != "" {
				if err := os.WriteFile(filepath.Join(c.o.Images, descriptorsFile), []byte(`["","",""]`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			store := &Store{Root: t.TempDir()}
			made, err := store.New("r", t.TempDir(), []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			s := *spec
			if c.set != nil {
				c.set(&s)
			}
			_, err = made.Restore(&s, Stdio{}, &c.o)
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if left, err := os.ReadDir(store.Root); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
	if left := newMounts(before, hostMounts(t)); len(left) > 0 {
		t.Errorf("mounts are left: %q", left)
	}
}
