package keeper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/oci"
)

// newContainerHarness is a keeper of real containers: busybox in a root of its
// own. It checks at the end that no cgroup is left.
func newContainerHarness(t testing.TB) *harness {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs busybox-static")
	}
	parent := "/berth-keeper-test-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(t.Name())
	t.Cleanup(func() { // after the harness
		if err := cgroup.RemoveEmpty(parent); err != nil {
			t.Errorf("cgroups are left: %v", err)
		}
	})
	h := newHarnessWith(t)
	h.cgroups = parent
	makeRootfs(t, filepath.Join(h.root, "rootfs"))
	return h
}

func makeRootfs(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "bin", "busybox"), busybox, 0o755))
	for _, name := range []string{"sh", "cat", "sleep", "seq", "tty", "stty", "true", "yes", "head", "dd", "ps", "readlink", "ls"} {
		must(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
}

// container is a request for a shell command in a container.
func (h *harness) container(id, script string) *StartRequest {
	spec := oci.DefaultSpec()
	spec.Process.Terminal = false
	spec.Process.Args = []string{"/bin/sh", "-c", script}
	spec.Root.Path = filepath.Join(h.root, "rootfs")
	spec.Linux.CgroupsPath = h.cgroups + "/" + id
	return &StartRequest{ID: id, Bundle: h.root, Spec: spec, Log: LogConfig{Driver: "json-file", Path: h.logPath(id)}}
}

func execIn(id, execID, script string) *ExecRequest {
	p := *oci.DefaultSpec().Process
	p.Terminal = false
	p.Args = []string{"/bin/sh", "-c", script}
	return &ExecRequest{ContainerID: id, ExecID: execID, Process: &p}
}

func TestContainer(t *testing.T) {
	h := newContainerHarness(t)
	stream := h.attach("a", "", allOutput)
	h.start(h.container("a", "echo $$; echo err >&2; readlink /proc/self/exe; exit 42"))
	out, stderr := split(t, stream)
	if out != "1\n/bin/busybox\n" || stderr != "err\n" {
		t.Errorf("output %q, %q", out, stderr)
	}
	if s := h.wait("a", ""); s.ExitCode != 42 || s.OOMKilled || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	if _, err := cgroup.Load(h.cgroups + "/a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("cgroup of an exited container: %v", err)
	}
}

// A container gets nothing of the keeper's.
func TestContainerInheritsNothing(t *testing.T) {
	h := newContainerHarness(t)
	for i := range 3 { // beside others
		h.start(h.container(fmt.Sprint("c", i), "exec sleep 1000"))
	}
	output := func(id string, args ...string) string {
		r := h.container(id, "")
		r.Spec.Process.Args = args
		h.start(r)
		h.wait(id, "")
		return logText(readLog(t, h.logPath(id)))
	}
	if fds := output("a", "/bin/ls", "/proc/self/fd"); fds != "0\n1\n2\n3\n" { // 3 is the directory
		t.Errorf("descriptors: %q", fds)
	}
	out := output("b", "/bin/cat", "/proc/self/status")
	for _, want := range []string{"SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

func TestContainerStartErrors(t *testing.T) {
	h := newContainerHarness(t)
	files := h.keeperFiles()
	missing := h.container("a", "")
	missing.Spec.Process.Args = []string{"/bin/none"}
	_, err := h.Start(t.Context(), missing)
	var e *Error
	if !errors.Is(err, oci.ErrCommandNotFound) || !errors.As(err, &e) || e.Step == "" || errdefs.Hint(err) == "" {
		t.Errorf("missing command: %v (%q)", err, errdefs.Hint(err))
	}
	notExecutable := h.container("a", "")
	notExecutable.Spec.Process.Args = []string{"/dev/null"}
	if _, err := h.Start(t.Context(), notExecutable); !errors.Is(err, oci.ErrCommandNotExecutable) {
		t.Errorf("not executable: %v", err)
	}
	noRoot := h.container("a", "")
	noRoot.Spec.Root.Path = filepath.Join(h.root, "none")
	if _, err := h.Start(t.Context(), noRoot); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no root: %v", err)
	}
	if _, err := cgroup.Load(h.cgroups + "/a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("cgroup of a container that did not start: %v", err)
	}
	if list, err := h.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list %v, %v", list, err)
	}
	h.until("all descriptors are released", func() bool { return h.keeperFiles() <= files })
}

func TestContainerExec(t *testing.T) {
	h := newContainerHarness(t)
	h.start(h.container("a", "exec sleep 1000"))
	stream := h.attach("a", "x", AttachOptions{Stdin: true, Stdout: true, Stderr: true, BeforeStart: true})
	r := execIn("a", "x", "cat; ps | grep -c 'sleep 1000'; echo e >&2; exit 9")
	r.OpenStdin = true
	_, err := h.Exec(t.Context(), r)
	must(t, err)
	_, err = io.WriteString(stream, "in\n")
	must(t, err)
	must(t, stream.CloseWrite())
	if out, stderr := split(t, stream); !strings.HasPrefix(out, "in\n") || stderr != "e\n" {
		t.Errorf("output %q, %q", out, stderr)
	}
	if s := h.wait("a", "x"); s.ExitCode != 9 {
		t.Errorf("status %+v", s)
	}
	missing := execIn("a", "y", "")
	missing.Process.Args = []string{"none"}
	if _, err := h.Exec(t.Context(), missing); !errors.Is(err, oci.ErrCommandNotFound) {
		t.Errorf("missing command: %v", err)
	}
	// What runs in the container ends with it, and its exit is seen.
	_, err = h.Exec(t.Context(), execIn("a", "z", "exec sleep 1000"))
	must(t, err)
	must(t, h.Signal(t.Context(), "a", "", syscall.SIGKILL))
	for _, execID := range []string{"", "z"} {
		if s := h.wait("a", execID); s.ExitCode != 137 || s.OOMKilled {
			t.Errorf("status %+v", s)
		}
	}
}

func TestContainerTerminal(t *testing.T) {
	h := newContainerHarness(t)
	r := h.container("a", "stty size; tty; read x; echo got $x; stty size; exit 4")
	r.Spec.Process.Terminal = true
	r.ConsoleSize = [2]uint16{31, 97}
	stream := h.attach("a", "", AttachOptions{Stdin: true, Stdout: true, BeforeStart: true})
	h.start(r)
	readUntil(t, stream, "31 97\r\n")
	readUntil(t, stream, "\r\n") // the terminal's name
	must(t, h.Resize(t.Context(), "a", "", 40, 132))
	_, err := io.WriteString(stream, "hi\r")
	must(t, err)
	if out := readAll(t, stream); out != "hi\r\ngot hi\r\n40 132\r\n" {
		t.Errorf("output %q", out)
	}
	if s := h.wait("a", ""); s.ExitCode != 4 {
		t.Errorf("status %+v", s)
	}
}

func TestContainerExecTerminal(t *testing.T) {
	h := newContainerHarness(t)
	h.start(h.container("a", "exec sleep 1000"))
	for i := range 5 {
		id := fmt.Sprint("x", i)
		stream := h.attach("a", id, AttachOptions{Stdin: true, Stdout: true, BeforeStart: true})
		r := execIn("a", id, "stty size; read x; echo got $x")
		r.Process.Terminal = true
		r.ConsoleSize = [2]uint16{20, 50}
		_, err := h.Exec(t.Context(), r)
		must(t, err)
		_, err = io.WriteString(stream, "hi\r")
		must(t, err)
		out := strings.Replace(readAll(t, stream), "hi\r\n", "", 1) // its echo comes at any moment
		if out != "20 50\r\ngot hi\r\n" {
			t.Errorf("output %q", out)
		}
	}
}

func TestContainerOutOfMemory(t *testing.T) {
	h := newContainerHarness(t)
	r := h.container("a", "x=$(yes | head -c 200000000); echo not reached")
	limit := int64(16 << 20)
	r.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	h.start(r)
	if s := h.wait("a", ""); !s.OOMKilled || s.ExitCode == 0 {
		t.Errorf("status %+v", s)
	}
}

// Without a pid namespace of its own a container's children outlive its init;
// they are killed, and the pipes that they hold delay nothing.
func TestContainerInHostPidNamespace(t *testing.T) {
	h := newContainerHarness(t)
	r := h.container("a", "sleep 987654 & sleep 987654 & echo started; exit 3")
	var namespaces []specs.LinuxNamespace
	for _, n := range r.Spec.Linux.Namespaces {
		if n.Type != specs.PIDNamespace {
			namespaces = append(namespaces, n)
		}
	}
	r.Spec.Linux.Namespaces = namespaces
	stream := h.attach("a", "", allOutput)
	h.start(r)
	if out, _ := split(t, stream); out != "started\n" {
		t.Errorf("output %q", out)
	}
	if s := h.wait("a", ""); s.ExitCode != 3 || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	if _, err := cgroup.Load(h.cgroups + "/a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("cgroup of an exited container: %v", err)
	}
}

// A root may be handed over as a detached mount.
func TestContainerRootfsDescriptor(t *testing.T) {
	h := newContainerHarness(t)
	fd, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(h.root, "rootfs"), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	tree := os.NewFile(uintptr(fd), "rootfs")
	defer tree.Close()
	// A mount made for a container has no peers on the host; a copy has those of
	// its original.
	must(t, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE}))
	r := h.container("a", "ls /bin/busybox; exit 5")
	r.Spec.Root.Path = "/does/not/exist"
	r.Rootfs = tree
	files := h.keeperFiles()
	h.start(r)
	if s := h.wait("a", ""); s.ExitCode != 5 {
		t.Errorf("status %+v", s)
	}
	if out := logText(readLog(t, h.logPath("a"))); out != "/bin/busybox\n" {
		t.Errorf("output %q", out)
	}
	h.until("the mount is released", func() bool { return h.keeperFiles() <= files })
}

// A keeper that is killed takes no container's exit with it: the next one ends
// what is left and says so.
func TestContainersOfAKilledKeeperAreEnded(t *testing.T) {
	h := newContainerHarness(t)
	pid := h.start(h.container("a", "exec sleep 1000")).Pid
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGKILL))
	<-h.Done()
	h.Close()
	h.connect()
	if s := h.wait("a", ""); s.ExitCode != ExitCodeLost || s.Error == "" {
		t.Errorf("status %+v", s)
	}
	h.until("the process is gone", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	if _, err := cgroup.Load(h.cgroups + "/a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("cgroup: %v", err)
	}
}

func TestManyContainersAtOnce(t *testing.T) {
	h := newContainerHarness(t)
	const n = 40
	before := h.keeperFiles()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			id := fmt.Sprint("c", i)
			if _, err := h.Start(t.Context(), h.container(id, fmt.Sprintf("seq 100; exit %d", i))); err != nil {
				t.Error(err)
				return
			}
			if s, err := h.Wait(t.Context(), id, ""); err != nil || s.ExitCode != i || s.Error != "" {
				t.Errorf("status %+v, %v", s, err)
			}
		})
	}
	all.Wait()
	for i := range n {
		checkNumbers(t, readLog(t, h.logPath(fmt.Sprint("c", i))), 100)
	}
	h.until("all descriptors are released", func() bool { return h.keeperFiles() <= before })
}
