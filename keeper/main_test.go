package keeper

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/oci"
)

// TestMain makes the test program also the keeper that tests start, as
// "berth-oci keep" would be, and a client that tests kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keep" {
		os.Exit(keepMain(os.Args[2:]))
	}
	if f := clientMains()[os.Getenv("KEEPER_TEST_CLIENT")]; f != nil {
		os.Exit(f(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func keepMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	options, err := ParseArgs(args)
	if err == nil {
		if os.Getenv("KEEPER_TEST_RUNTIME") == "plain" {
			options.Runtime = plainRuntime{}
		}
		err = Serve(ctx, options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// plainRuntime starts processes that are not contained, so that the keeper's
// own work can be tested without privileges. Spec.Process is obeyed as far as
// arguments, environment and terminal go. The "cgroup" does nothing.
type plainRuntime struct{}

func (plainRuntime) Start(l *Launch) (*Launched, error) { return plainLaunch(l.Spec.Process, l.Stdio) }
func (plainRuntime) End(string) (Used, error)           { return Used{}, nil }
func (plainRuntime) Poststop(*Launch) error             { return nil }

func (plainRuntime) PrepareExec(l *Launch) (PreparedExec, error) {
	return &plainExec{l.Process, l.InitPidfd}, nil
}

type plainExec struct {
	process *specs.Process
	pidfd   *os.File
}

func (e *plainExec) Start(l *Launch) (*Launched, error) { return plainLaunch(e.process, l.Stdio) }
func (e *plainExec) Close()                             { e.pidfd.Close() }

func plainLaunch(p *specs.Process, stdio Stdio) (*Launched, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{stdio.In, stdio.Out, stdio.Err}
	launched := &Launched{}
	var pidfd int
	attr := &syscall.SysProcAttr{PidFD: &pidfd, Setsid: true}
	if p.Terminal {
		master, slave, err := openTerminal(p.ConsoleSize)
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		files = []*os.File{slave, slave, slave}
		attr.Setctty = true
		launched.Console = master
	}
	var fds []uintptr
	for _, f := range files {
		if f == nil {
			f = null
		}
		fds = append(fds, f.Fd())
	}
	env := append([]string{"PATH=/usr/bin:/bin"}, p.Env...)
	launched.Pid, err = syscall.ForkExec(p.Args[0], p.Args, &syscall.ProcAttr{Dir: "/", Env: env, Files: fds, Sys: attr})
	if err != nil {
		if launched.Console != nil {
			launched.Console.Close()
		}
		cause := oci.ErrCommandNotExecutable
		if errors.Is(err, fs.ErrNotExist) {
			cause = oci.ErrCommandNotFound
		}
		return nil, fmt.Errorf("exec %s: %w: %w", p.Args[0], cause, err)
	}
	launched.Pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	return launched, nil
}

func openTerminal(size *specs.Box) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	if size != nil {
		w := &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, w); err != nil {
			return nil, nil, err
		}
	}
	slave, err = openSlave(master)
	return master, slave, err
}

// harness is a keeper in a process of its own with a client.
type harness struct {
	t       testing.TB
	root    string
	options ConnectOptions
	cgroups string // above those of the test's containers
	*Client
}

// newHarness starts a keeper of plain processes. At the end of the test it
// ends all processes, and checks that the keeper goes away and leaves nothing.
func newHarness(t testing.TB) *harness {
	t.Helper()
	return newHarnessWith(t, "KEEPER_TEST_RUNTIME=plain")
}

func newHarnessWith(t testing.TB, env ...string) *harness {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	root := t.TempDir()
	h := &harness{t: t, root: root, options: ConnectOptions{
		Root: root, Binary: self, Idle: 50 * time.Millisecond,
		// A program under the race detector would wait a second before it ends.
		Env: append([]string{"PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"), "GORACE=atexit_sleep_ms=0"}, env...),
	}}
	h.connect()
	t.Cleanup(h.tearDown)
	return h
}

func (h *harness) connect() {
	h.t.Helper()
	var err error
	h.Client, err = Connect(h.t.Context(), h.options)
	must(h.t, err)
}

func (h *harness) tearDown() {
	ctx := context.Background()
	statuses, err := h.List(ctx)
	if err != nil {
		h.t.Fatalf("list at the end: %v", err)
	}
	for _, s := range statuses {
		if !s.Exited {
			h.Signal(ctx, s.ContainerID, s.ExecID, syscall.SIGKILL)
		}
	}
	for _, s := range statuses {
		if _, err := h.Wait(ctx, s.ContainerID, s.ExecID); err != nil {
			h.t.Errorf("wait at the end: %v", err)
		}
	}
	for _, s := range statuses {
		if s.ExecID == "" {
			if err := h.Forget(ctx, s.ContainerID, ""); err != nil {
				h.t.Errorf("forget at the end: %v", err)
			}
		}
	}
	h.expectKeeperEnds()
	for _, name := range []string{"keeper.sock", "keeper.lock"} {
		if _, err := os.Lstat(filepath.Join(h.root, name)); !errors.Is(err, fs.ErrNotExist) {
			h.t.Errorf("the keeper left %s: %v", name, err)
		}
	}
	left, err := os.ReadDir(filepath.Join(h.root, "containers"))
	if err != nil || len(left) > 0 {
		h.t.Errorf("the keeper left records %v, %v", left, err)
	}
	if log, err := os.ReadFile(filepath.Join(h.root, "keeper.log")); err == nil && len(log) > 0 {
		h.t.Logf("keeper.log:\n%s", log)
		if bytes.Contains(log, []byte("panic")) {
			h.t.Error("the keeper panicked")
		}
	}
}

// expectKeeperEnds closes the client and waits for the keeper to end itself.
func (h *harness) expectKeeperEnds() {
	h.t.Helper()
	pidfd, err := unix.PidfdOpen(h.Info().Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	must(h.t, err)
	defer unix.Close(pidfd)
	h.session.Close()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 20_000)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 20_000)
	}
	if n != 1 {
		h.t.Errorf("the keeper does not end: %v", err)
	}
	ours := h.reaper != nil
	h.Close()
	if err := syscall.Kill(h.Info().Pid, 0); ours && !errors.Is(err, syscall.ESRCH) {
		h.t.Errorf("the keeper was not reaped: %v", err)
	}
}

// sh is a request for a shell command with a log.
func (h *harness) sh(id, script string) *StartRequest {
	return &StartRequest{
		ID:  id,
		Log: LogConfig{Driver: "json-file", Path: h.logPath(id)},
		Spec: &specs.Spec{
			Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/"},
			Linux:   &specs.Linux{},
		},
	}
}

func (h *harness) logPath(id string) string { return filepath.Join(h.root, id+".log") }

func (h *harness) start(r *StartRequest) Status {
	h.t.Helper()
	s, err := h.Start(h.t.Context(), r)
	must(h.t, err)
	return s
}

func (h *harness) wait(id, execID string) Status {
	h.t.Helper()
	s, err := h.Wait(h.t.Context(), id, execID)
	must(h.t, err)
	return s
}

func (h *harness) attach(id, execID string, o AttachOptions) *Stream {
	h.t.Helper()
	s, err := h.Attach(h.t.Context(), id, execID, o)
	must(h.t, err)
	h.t.Cleanup(func() { s.Close() })
	return s
}

// logEntry is a line of a json-file log.
type logEntry struct {
	Log    string
	Stream string
	Time   time.Time
}

func readLog(t testing.TB, path string) []logEntry {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var entries []logEntry
	for line := range strings.Lines(string(data)) {
		var e logEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("log entry %q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

func logText(entries []logEntry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Log)
	}
	return b.String()
}

// split takes Docker's frames apart.
func split(t testing.TB, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var texts [3]strings.Builder
	for {
		var header [8]byte
		if _, err := io.ReadFull(r, header[:]); err == io.EOF {
			return texts[1].String(), texts[2].String()
		} else if err != nil {
			t.Fatal(err)
		}
		if header[0] != 1 && header[0] != 2 || header[1] != 0 || header[2] != 0 || header[3] != 0 {
			t.Fatalf("frame header %v", header)
		}
		if _, err := io.CopyN(&texts[header[0]], r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			t.Fatal(err)
		}
	}
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	must(t, err)
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rawConn is a connection to a keeper that says nothing by itself.
func (h *harness) rawConn() *net.UnixConn {
	h.t.Helper()
	conn, err := place{h.root}.dial(h.t.Context())
	must(h.t, err)
	h.t.Cleanup(func() { conn.Close() })
	return conn
}
