//go:build peers

package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// caller calls berth-oci as conmon and containerd's shim do: it is the parent
// of what berth-oci leaves behind, holds the other ends of its streams and
// reads its log.
type caller struct {
	t      *testing.T
	root   string
	log    string
	bundle string
}

// newCaller makes a bundle whose command is a shell script.
func newCaller(t *testing.T, change func(*specs.Spec)) *caller {
	t.Helper()
	need(t, "tar")
	// What berth-oci starts becomes our child when it exits.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &caller{t: t, root: filepath.Join(dir, "root"), log: filepath.Join(dir, "log.json"), bundle: filepath.Join(dir, "bundle")}
	rootfs := filepath.Join(c.bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", thePlace().rootfs, "-C", rootfs).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.must("spec", "--bundle", c.bundle)
	config := filepath.Join(c.bundle, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(text, spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Terminal = false
	spec.Root.Readonly = false
	spec.Linux.CgroupsPath = thePlace().cgroup + "/callers/" + filepath.Base(dir)
	change(spec)
	c.write(config, spec)
	return c
}

func (c *caller) write(path string, v any) {
	c.t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// command is a call with the options the shim gives to each.
func (c *caller) command(args ...string) *exec.Cmd {
	argv := append([]string{"--root", c.root, "--log", c.log, "--log-format", "json"}, args...)
	return exec.Command(thePlace().runtime, argv...)
}

func (c *caller) must(args ...string) string {
	c.t.Helper()
	out, err := c.command(args...).Output()
	if err != nil {
		c.t.Fatalf("%q: %v: %s", args, err, c.lastError())
	}
	return string(out)
}

// fails makes a call that is to fail, and returns the error as the shim reads it.
func (c *caller) fails(args ...string) string {
	c.t.Helper()
	if err := os.Remove(c.log); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.command(args...).Run(); !errors.As(err, &exit) {
		c.t.Fatalf("%q succeeds or does not run: %v", args, err)
	}
	return c.lastError()
}

// lastError is the message of the log's last error.
func (c *caller) lastError() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	last := ""
	for line := range bytes.Lines(text) {
		var entry struct {
			Level, Msg string
			Time       time.Time
		}
		if err := json.Unmarshal(line, &entry); err != nil || entry.Time.IsZero() {
			c.t.Errorf("the log has the line %q: %v", line, err)
		}
		if entry.Level == "error" {
			last = entry.Msg
		}
	}
	return last
}

// streams calls with pipes as standard streams, which stay open when the call
// returns; what the container writes comes out of the returned one.
func (c *caller) streams(stdin string, args ...string) *os.File {
	c.t.Helper()
	var ends [2][2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			c.t.Fatal(err)
		}
		ends[i] = [2]*os.File{r, w}
		c.t.Cleanup(func() { r.Close() })
	}
	in, out := ends[0], ends[1]
	cmd := c.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in[0], out[1], out[1]
	err := cmd.Run()
	out[1].Close()
	if _, werr := in[1].WriteString(stdin); err == nil {
		err = errors.Join(werr, in[1].Close())
	}
	if err != nil {
		c.t.Fatalf("%q: %v: %s", args, err, c.lastError())
	}
	return out[0]
}

// pid reads a pid file.
func (c *caller) pid(path string) int {
	c.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		c.t.Fatalf("the pid file holds %q", text)
	}
	return pid
}

// reap waits for a process and returns its status, as a shell would.
func (c *caller) reap(pid int) int {
	c.t.Helper()
	awaitExit(c.t, pid)
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		c.t.Fatalf("wait for %d: %v: it did not become our child", pid, err)
	}
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func (c *caller) state(id string) specs.State {
	c.t.Helper()
	var s specs.State
	if err := json.Unmarshal([]byte(c.must("state", id)), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

func script(text string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", text} }
}

// TestCaller is a container's life, with streams that are pipes.
func TestCaller(t *testing.T) {
	c := newCaller(t, script("cat; exit 7"))
	pidFile := filepath.Join(t.TempDir(), "pid")
	out := c.streams("ahoy", "create", "--bundle", c.bundle, "--pid-file", pidFile, "life")
	pid := c.pid(pidFile)
	if s := c.state("life"); s.Status != specs.StateCreated || s.Pid != pid || s.Bundle != c.bundle || s.ID != "life" {
		t.Errorf("after create its state is %+v, the process %d", s, pid)
	}
	if msg := c.fails("create", "--bundle", c.bundle, "life"); !strings.Contains(msg, "exists") {
		t.Errorf("the same id again: %s", msg)
	}
	if msg := c.fails("delete", "life"); !strings.Contains(msg, "created") {
		t.Errorf("deleting a created container: %s", msg)
	}
	c.must("start", "life")
	if got, err := io.ReadAll(out); err != nil || string(got) != "ahoy" {
		t.Errorf("it wrote %q, %v", got, err)
	}
	if code := c.reap(pid); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if s := c.state("life"); s.Status != specs.StateStopped {
		t.Errorf("after its end its state is %+v", s)
	}
	if msg := c.fails("kill", "life", "9"); !strings.Contains(msg, "container not running") {
		t.Errorf("killing what has ended: %s", msg)
	}
	c.must("delete", "life")
	for _, args := range [][]string{{"state", "life"}, {"delete", "life"}, {"kill", "life", "9"}, {"start", "life"}} {
		if msg := c.fails(args...); !strings.Contains(msg, "does not exist") {
			t.Errorf("%q: %s", args, msg)
		}
	}
	c.must("delete", "--force", "life")
}

// TestCallerSignals: the forms in which callers write signals.
func TestCallerSignals(t *testing.T) {
	for _, signal := range [][]string{{"KILL"}, {"SIGKILL"}, {"9"}, {"--all", "9"}} {
		c := newCaller(t, script("sleep 1000"))
		pidFile := filepath.Join(t.TempDir(), "pid")
		c.streams("", "create", "--bundle", c.bundle, "--pid-file", pidFile, "signals")
		c.must("start", "signals")
		args := []string{"kill"}
		if len(signal) == 2 {
			args, signal = append(args, signal[0]), signal[1:]
		}
		c.must(append(args, "signals", signal[0])...)
		if code := c.reap(c.pid(pidFile)); code != 137 {
			t.Errorf("%q: exit code %d, want 137", args, code)
		}
		c.must("delete", "signals")
	}
}

// TestCallerErrors: what is wrong is in the log, and nothing is left.
func TestCallerErrors(t *testing.T) {
	for _, test := range []struct {
		change func(*specs.Spec)
		says   string
	}{
		{func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} }, "nosuch"},
		{func(s *specs.Spec) { s.Root.Path = "missing" }, "missing"},
		{func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/nowhere", Options: []string{"bind"}})
		}, "/nowhere"},
		{func(s *specs.Spec) { s.Process.Cwd = "relative" }, "process.cwd"},
	} {
		c := newCaller(t, test.change)
		pidFile := filepath.Join(t.TempDir(), "pid")
		if msg := c.fails("create", "--bundle", c.bundle, "--pid-file", pidFile, "errors"); !strings.Contains(msg, test.says) {
			t.Errorf("the log says %q, not %q", msg, test.says)
		}
		if _, err := os.Stat(pidFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a pid file is left: %v", test.says, err)
		}
		if got := c.must("list", "-q"); got != "" {
			t.Errorf("%s: containers are left: %s", test.says, got)
		}
	}
}

// TestCallerTerminal: the terminal's master comes through a socket.
func TestCallerTerminal(t *testing.T) {
	c := newCaller(t, func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 31, Width: 91}
		s.Process.Args = []string{"sh", "-c", "tty; stty size; read line; echo read $line; exit 5"}
	})
	socket := listen(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	c.must("create", "--bundle", c.bundle, "--pid-file", pidFile, "--console-socket", socket.Addr().String(), "terminal")
	master := receive(t, socket)
	c.must("start", "terminal")
	master.sees("/dev/pts/0")
	master.sees("31 91")
	master.types("ahoy\n")
	master.sees("read ahoy")
	if code := c.reap(c.pid(pidFile)); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	c.must("delete", "terminal")
	if msg := c.fails("create", "--bundle", c.bundle, "terminal"); !strings.Contains(msg, "--console-socket") {
		t.Errorf("a terminal without a socket: %s", msg)
	}
}

// TestCallerExec: processes beside the first, described by a file, detached,
// with streams or a terminal.
func TestCallerExec(t *testing.T) {
	c := newCaller(t, script("sleep 1000"))
	dir := t.TempDir()
	pidFile, description, execPid := filepath.Join(dir, "pid"), filepath.Join(dir, "process.json"), filepath.Join(dir, "exec.pid")
	c.streams("", "create", "--bundle", c.bundle, "--pid-file", pidFile, "exec")
	c.must("start", "exec")
	process := specs.Process{
		Args: []string{"sh", "-c", "cat; id -u; pwd; exit 4"}, Cwd: "/tmp", Env: []string{"PATH=/bin"},
		User: specs.User{UID: 1000, GID: 1000}, Capabilities: &specs.LinuxCapabilities{},
	}
	c.write(description, process)
	out := c.streams("ahoy\n", "exec", "--process", description, "--detach", "--pid-file", execPid, "exec")
	if got, err := io.ReadAll(out); err != nil || string(got) != "ahoy\n1000\n/tmp\n" {
		t.Errorf("it wrote %q, %v", got, err)
	}
	if code := c.reap(c.pid(execPid)); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}

	process.Terminal, process.ConsoleSize = true, &specs.Box{Height: 32, Width: 92}
	process.Args = []string{"sh", "-c", "test -t 0 && stty size; read line; exit $line"}
	c.write(description, process)
	socket := listen(t)
	c.must("exec", "--process", description, "--console-socket", socket.Addr().String(), "--detach", "--pid-file", execPid, "exec")
	master := receive(t, socket)
	master.sees("32 92")
	master.types("6\n")
	if code := c.reap(c.pid(execPid)); code != 6 {
		t.Errorf("exit code %d of the terminal's process, want 6", code)
	}

	process.Terminal, process.ConsoleSize, process.Args = false, nil, []string{"nosuch"}
	c.write(description, process)
	if err := os.Remove(execPid); err != nil {
		t.Fatal(err)
	}
	if msg := c.fails("exec", "--process", description, "--detach", "--pid-file", execPid, "exec"); !strings.Contains(msg, "nosuch: no such file or directory") {
		t.Errorf("a command that is not there: %s", msg)
	}
	if _, err := os.Stat(execPid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a pid file is left: %v", err)
	}
	c.must("delete", "--force", "exec")
	if code := c.reap(c.pid(pidFile)); code != 137 {
		t.Errorf("exit code %d after a forced deletion, want 137", code)
	}
}

// listen makes a console socket.
func listen(t *testing.T) *net.UnixListener {
	t.Helper()
	// Short: a socket's path has 107 characters at most.
	dir, err := os.MkdirTemp("/run", "console")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		os.RemoveAll(dir)
	})
	return l
}

// screen is the master of a terminal, and all it has shown.
type screen struct {
	t      *testing.T
	master *os.File
	seen   string
}

// receive takes the terminal's master that berth-oci sends: one message with
// the descriptor and a name.
func receive(t *testing.T, l *net.UnixListener) *screen {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil || n == 0 {
		t.Fatalf("no message with a name: %v", err)
	}
	fds, err := rights(oob[:oobn])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, master: os.NewFile(uintptr(fds[0]), string(name[:n]))}
	t.Cleanup(func() { s.master.Close() })
	return s
}

func rights(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages: %w", len(messages), err)
	}
	return unix.ParseUnixRights(&messages[0])
}

func (s *screen) types(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) sees(text string) {
	s.t.Helper()
	if err := s.master.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for !strings.Contains(s.seen, text) {
		n, err := s.master.Read(buf)
		s.seen += string(buf[:n])
		if err != nil {
			s.t.Fatalf("the terminal never showed %q: %v: %q", text, err, s.seen)
		}
	}
}
