// Package crash_test kills the engine, the keeper or both at every point where an
// operation has left something, and looks at what the next ones make of it. It
// runs the real binaries and needs root and a static busybox.
package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-containers/berth/test/busybox"
	"golang.org/x/sys/unix"
)

// patience bounds what must happen; it is never waited out when all is well.
const patience = time.Minute

// The engine's own bridge and cgroup; a Berth on this host keeps its.
const (
	bridge = "berthtest2"
	subnet = "10.216.0.0/24"
	cgroup = "/berth-test-crash"
	port   = "18216"
)

// rig is an engine to be killed.
type rig struct {
	dir     string
	bin     string // directory of berthd and berth-oci
	cmd     *exec.Cmd
	gone    chan struct{}
	keeper  int
	serial  int
	rootfs  []byte
	archive []byte
	reg     *registry
	// watched is the path of a file in containers that belongs to the state; "": none.
	watched string
	http    *http.Client
	// activated, when not nil, is the API's socket, which the engine is started with as
	// systemd would.
	activated *os.File
	// notify gets berthd's READY=1.
	notify *net.UnixConn
	log    *os.File
}

// newRig builds the binaries and starts an engine with the image box. All it makes
// is removed with the test, which fails when anything is left.
func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made")
	}
	dir, err := os.MkdirTemp("", "berth-crash-") // short: socket paths have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dir: dir, bin: filepath.Join(dir, "bin")}
	r.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", r.path("run/berth.sock"))
		}}}
	t.Cleanup(func() { r.checkLeftovers(t) })
	build := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+r.bin, "BINARIES=berthd berth-oci")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if r.rootfs, err = busybox.Rootfs(); err != nil {
		t.Skipf("needs a static busybox: %v", err)
	}
	if r.archive, err = busybox.Archive("boxed:latest", tarOf("boxed")); err != nil {
		t.Fatal(err)
	}
	if r.reg, err = newRegistry(t, tarOf("pulled")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.path("fault"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path("notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.notify.Close() })
	if r.log, err = os.Create(r.path("log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.showLog(t); r.log.Close() })
	t.Cleanup(func() { r.purge(t) })
	r.begin(t)
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) flags(more ...string) []string {
	return append([]string{
		"--config", r.path("none.toml"), "--run-root", r.path("run"), "--state-root", r.path("state"),
		"--bridge", bridge, "--bridge-subnet", subnet, "--cgroup-parent", cgroup, "--log-level", "warn",
	}, more...)
}

// begin makes an engine from nothing.
func (r *rig) begin(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(r.path("none.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	if err := r.do("POST", "/images/create?fromSrc=-&repo=box&changes=CMD%20sh", bytes.NewReader(r.rootfs), nil); err != nil {
		t.Fatalf("import: %v", err)
	}
}

// start starts berthd and returns when it is ready.
func (r *rig) start(t *testing.T) {
	t.Helper()
	r.cmd = r.command()
	r.cmd.Stderr = r.log
	r.cmd.Env = append(r.cmd.Environ(), "NOTIFY_SOCKET="+r.path("notify"), "BERTH_FAULT="+r.path("fault"))
	if err := r.notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, gone := r.cmd, make(chan struct{})
	r.gone = gone
	ended := func() { _ = r.notify.SetReadDeadline(time.Now()) }     // who waits for its news waits in vain
	go func() { defer close(gone); defer ended(); _ = cmd.Wait() }() // how it ends is the test's affair
	if err := r.awaitEngine(); err != nil {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // its log then says what it waits for
		<-gone
		t.Fatalf("start berthd: %v (%v)", err, cmd.ProcessState)
	}
	var err error
	if r.keeper, err = peer(r.path("run/keeper.sock")); err != nil {
		t.Fatalf("find the keeper: %v", err)
	}
}

// command is berthd's, with its socket where somebody else has opened that.
func (r *rig) command() *exec.Cmd {
	berthd := filepath.Join(r.bin, "berthd")
	if r.activated == nil {
		return exec.Command(berthd, r.flags()...)
	}
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, berthd}, r.flags()...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{r.activated} // descriptor 3
	return cmd
}

// awaitEngine reads the news of this start; those of one that was killed may precede it.
func (r *rig) awaitEngine() error {
	buf := make([]byte, 256)
	for {
		n, err := r.notify.Read(buf)
		if err != nil {
			return err
		}
		if !strings.Contains(string(buf[:n]), "READY=1") {
			continue
		}
		pid, err := peer(r.path("run/berth.sock"))
		if err != nil {
			fmt.Fprintln(r.log, "READY, but:", err)
		}
		if err == nil && (pid == r.cmd.Process.Pid || r.activated != nil) {
			return nil
		}
	}
}

// peer is the process that listens on a socket.
func peer(path string) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, inner); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// await returns when the process is gone, false when it lives on.
func await(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(patience)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n == 1
	}
}

// end takes everything down, so that the next case begins from nothing.
func (r *rig) purge(t *testing.T) {
	t.Helper()
	_ = os.Remove(r.path("fault/arm"))
	if r.cmd != nil && r.cmd.Process != nil {
		_ = r.cmd.Process.Signal(unix.SIGTERM) // it may have been killed
		select {
		case <-r.gone:
		case <-time.After(patience):
			_ = r.cmd.Process.Kill()
			<-r.gone
		}
	}
	out, err := exec.Command(filepath.Join(r.bin, "berthd"), r.flags("--purge")...).CombinedOutput()
	if err != nil {
		t.Errorf("purge: %v\n%s", err, out)
	}
}

// apiError is an answer of the engine that is not a success.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.status, e.message) }

// do asks the engine. in is a reader or a value to be sent as JSON; out, unless
// nil, is what the answer's JSON goes into.
func (r *rig) do(method, path string, in, out any) error {
	body, ok := in.(io.Reader)
	if in != nil && !ok {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	text, err := r.ask(method, path, body)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// get is what the engine answers to a GET.
func (r *rig) get(path string) ([]byte, error) { return r.ask("GET", path, nil) }

func (r *rig) ask(method, path string, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode >= 300 || bytes.Contains(text, []byte(`"errorDetail"`))) {
		err = &apiError{resp.StatusCode, strings.TrimSpace(string(text))}
	}
	return text, err
}

// status is the HTTP status of an error; 0 for one of the connection.
func status(err error) int {
	var answer *apiError
	if errors.As(err, &answer) {
		return answer.status
	}
	return 0
}

// showLog shows what berthd had to say, when the test failed.
func (r *rig) showLog(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, name := range []string{"log", "run/keeper.log"} {
		if text, err := os.ReadFile(r.path(name)); err == nil {
			t.Logf("%s:\n%s", name, text[max(0, len(text)-40000):])
		}
	}
}

// checkLeftovers fails the test for whatever the engine left on the host.
func (r *rig) checkLeftovers(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), r.dir) {
		t.Errorf("mounts are left below %s", r.dir)
	}
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Errorf("the link %s is left", bridge)
	}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, r.dir) {
			t.Errorf("process %s is left: %s", link, exe)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/*" + cgroup} {
		if left, _ := filepath.Glob(pattern); left != nil {
			t.Errorf("cgroups are left: %s", left)
		}
	}
	if err := os.RemoveAll(r.dir); err != nil {
		t.Error(err)
	}
}
