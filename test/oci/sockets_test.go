package oci

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// received is the descriptor that comes over a socket while the command runs,
// and the name it comes with.
func received(t *testing.T, socket string, cmd *exec.Cmd) (fd int, name string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := cmd.Start(); err != nil { // with a pipe the container would keep Wait waiting
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, oob := make([]byte, 64), make([]byte, 64)
	n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return fds[0], string(b[:n])
}

// TestSockets: engines are given the terminal and the process as descriptors.
func TestSockets(t *testing.T) {
	b := newBundle(t, `.process.args=["sh","-c","tty; sleep 1000"]`)
	defer b.mustRun("delete", "--force", "s")
	socket := filepath.Join(b.dir, "socket")
	master, name := received(t, socket, b.command("run", "--detach", "--console-socket", socket, "s"))
	defer unix.Close(master)
	if name != "/dev/ptmx" {
		t.Errorf("the terminal came as %q", name)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(master), Events: unix.POLLIN}}, -1); err != nil {
		t.Error(err)
	}
	out := make([]byte, 64)
	if n, err := unix.Read(master, out); err != nil || !strings.HasPrefix(string(out[:max(n, 0)]), "/dev/pts/0") {
		t.Errorf("%q, %v", out, err)
	}
	socket = filepath.Join(b.dir, "pidfd")
	pidfd, name := received(t, socket, b.command("exec", "--detach", "--pidfd-socket", socket, "s", "sleep", "1000"))
	defer unix.Close(pidfd)
	if name != "pidfd" {
		t.Errorf("the process came as %q", name)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Error(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1); err != nil {
		t.Error(err)
	}
}

// TestNoPivot: the root is the container's without pivot_root too, also for execs.
func TestNoPivot(t *testing.T) {
	b := newBundle(t, `.process.terminal=false | .process.args=["sleep","1000"] | .root.readonly=false`)
	defer b.mustRun("delete", "--force", "s")
	b.mustRun("run", "--detach", "--no-pivot", "s")
	for _, script := range []string{"ls -d /rootfs-mark /proc/1/root/rootfs-mark", "cd /..; ls -d rootfs-mark", "test ! -e /usr/bin/dpkg"} {
		b.mustRun("exec", "s", "sh", "-c", script)
	}
}
