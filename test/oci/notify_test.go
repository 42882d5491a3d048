package oci

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// manager is a service manager's notify socket, for the commands of a bundle.
type manager struct {
	*bundle
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	b := newBundle(t, `.process.terminal=false | .process.args=["sh","-c","test -S $NOTIFY_SOCKET && echo up; exec sleep 1000"]`)
	m := &manager{bundle: b, path: filepath.Join(b.dir, "host.sock")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// notifying is a command that the manager waits for. Its container's output can be
// read.
func (m *manager) notifying(args ...string) (*exec.Cmd, *bufio.Reader) {
	m.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { r.Close() })
	cmd := m.command(args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	w.Close()
	return cmd, bufio.NewReader(r)
}

func (m *manager) pid(id string) int {
	m.t.Helper()
	out, err := m.command("state", id).Output()
	var state struct{ Pid int }
	if err == nil {
		err = json.Unmarshal(out, &state)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return state.Pid
}

// say sends a message to the socket that the container sees.
func (m *manager) say(id string, messages ...string) {
	m.t.Helper()
	path := fmt.Sprintf("/proc/%d/root/run/notify/notify.sock", m.pid(id))
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	for _, msg := range messages {
		if _, err := conn.Write([]byte(msg)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *manager) hears(want string) {
	m.t.Helper()
	b := make([]byte, 4096)
	if err := m.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	n, err := m.conn.Read(b)
	if err != nil || string(b[:n]) != want {
		m.t.Errorf("the service manager is told %q, %v; want %q", b[:n], err, want)
	}
}

func (m *manager) comesUp(out *bufio.Reader) {
	m.t.Helper()
	if line, err := out.ReadString('\n'); line != "up\n" {
		m.t.Fatalf("the container says %q, %v", line, err)
	}
}

// TestNotifyRun: a container in the foreground says that it is ready; its other
// messages, which name processes by its own ids, go no further.
func TestNotifyRun(t *testing.T) {
	m := newManager(t)
	run, out := m.notifying("run", "n")
	m.comesUp(out)
	m.say("n", "STATUS=starting", "MAINPID=1\nREADY=1\n")
	m.hears("READY=1")
	m.mustRun("kill", "n", "KILL")
	if err := run.Wait(); run.ProcessState.ExitCode() != 137 {
		t.Errorf("run: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(m.dir, "state")); err != nil || len(left) != 0 {
		t.Errorf("state of the container is left: %v, %v", left, err)
	}
}

// TestNotifyDetached: run --detach and start end when the container is ready, and
// tell the manager whom to watch from then on.
func TestNotifyDetached(t *testing.T) {
	m := newManager(t)
	run, out := m.notifying("run", "--detach", "n")
	m.comesUp(out)
	pid := m.pid("n")
	m.say("n", "READY=1")
	m.hears(fmt.Sprintf("READY=1\nMAINPID=%d", pid))
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	m.mustRun("delete", "--force", "n")

	create, out := m.notifying("create", "c")
	if err := create.Wait(); err != nil {
		t.Fatal(err)
	}
	start, _ := m.notifying("start", "c")
	m.comesUp(out)
	m.mustRun("exec", "c", "true") // who waits keeps nobody else waiting
	m.say("c", "READY=1")
	m.hears(fmt.Sprintf("READY=1\nMAINPID=%d", m.pid("c")))
	if err := start.Wait(); err != nil {
		t.Error(err)
	}
	m.mustRun("delete", "--force", "c")
}

// TestNotifyNever: a container that ends without a word keeps nobody waiting, and
// one that was created for nobody is started as ever.
func TestNotifyNever(t *testing.T) {
	m := newManager(t)
	m.mustRun("create", "c")
	start, _ := m.notifying("start", "c")
	if err := start.Wait(); err != nil {
		t.Error(err)
	}
	m.mustRun("delete", "--force", "c")
	run, out := m.notifying("run", "--detach", "n")
	m.comesUp(out)
	m.mustRun("kill", "n", "KILL")
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	m.mustRun("delete", "n")
	bad := m.command("run", "n")
	bad.Env = append(os.Environ(), "NOTIFY_SOCKET=relative")
	if text, err := bad.CombinedOutput(); err == nil || string(text) != "berth-oci: NOTIFY_SOCKET=relative: neither a path nor an abstract name\n" {
		t.Errorf("%v: %s", err, text)
	}
}
