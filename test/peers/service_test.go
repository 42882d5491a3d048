//go:build peers

package peers

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serve runs a daemon until the test ends, and returns when it has said that it
// is ready (sd_notify(3)).
func serve(t *testing.T, argv ...string) {
	t.Helper()
	name := filepath.Base(argv[0])
	log := filepath.Join(thePlace().work, name+".log")
	socket := filepath.Join("/run", name+".notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(socket)
	defer ready.Close()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // it may have failed to start
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, lastLines(log))
		}
	})
	if err := awaitReady(ready); err != nil {
		t.Fatalf("%s does not become ready: %v", name, err)
	}
}

func awaitReady(ready *net.UnixConn) error {
	if err := ready.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	message := make([]byte, 4096)
	for {
		n, err := ready.Read(message)
		if err != nil || strings.Contains("\n"+string(message[:n])+"\n", "\nREADY=1\n") {
			return err
		}
	}
}

// lastLines is the end of a log.
func lastLines(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// awaitExit waits until a process that need not be ours has ended.
func awaitExit(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for deadline := time.Now().Add(patience); ; {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil || n == 0:
			t.Fatalf("process %d does not end: %v", pid, err)
		default:
			return
		}
	}
}
