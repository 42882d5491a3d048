package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// upgrade makes the keeper the same program anew, and connects to it.
func (h *harness) upgrade() {
	h.t.Helper()
	old := h.Client
	must(h.t, old.Upgrade(h.t.Context(), h.options.Binary))
	h.connect()
	if now := h.Info(); now.Pid != old.Info().Pid || !now.Begun.After(old.Info().Begun) {
		h.t.Fatalf("keeper %+v, before %+v", now, old.Info())
	}
	h.Succeed(old)
	old.Close()
}

// counts is what a container prints that counts to n.
func counts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i+1)
	}
	return b.String()
}

// TestUpgrade makes the keeper another program again and again while processes print,
// are typed to, are executed and end: nothing of it is lost, doubled or out of order.
func TestUpgrade(t *testing.T) {
	h := newHarness(t)
	const lines = 30000
	counting := h.attach("count", "", allOutput)
	slow := h.attach("count", "", allOutput)
	h.start(h.sh("count", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; exit 4", lines)))
	counted := make(chan string, 1)
	go func() { counted <- readAll(t, frames(t, counting)) }()

	cat := h.sh("cat", "exec cat")
	cat.OpenStdin = true
	h.start(cat)
	typing := h.attach("cat", "", AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	tty := h.sh("tty", "stty raw -echo; echo ready; exec cat")
	tty.Spec.Process.Terminal, tty.OpenStdin = true, true
	screen := h.attach("tty", "", AttachOptions{Stdin: true, Stdout: true, BeforeStart: true})
	h.start(tty)
	expectText(t, screen, "ready\n")
	execd := h.attach("cat", "x", AttachOptions{Stdin: true, Stdout: true, Stderr: true, BeforeStart: true})
	h.exec(t, "cat", "x", "echo begin; read line; echo end; sleep 0.01 & exit 5")
	h.start(h.sh("ended", "printf half; exit 3"))
	h.wait("ended", "")
	queued := h.sh("queued", "printf half; exit 3") // its log's writer has ended too
	queued.Log.MaxBuffer = 1 << 20
	h.start(queued)
	h.wait("queued", "")
	waiting := h.attach("later", "", allOutput)

	typed := make(chan error, 1)
	go func() {
		_, err := io.WriteString(typing, counts(lines))
		typed <- errors.Join(err, typing.CloseWrite())
	}()
	echoed := make(chan string, 1)
	go func() { echoed <- readAll(t, io.LimitReader(frames(t, typing), int64(len(counts(lines))))) }()
	for range 8 {
		h.upgrade()
		_, err := screen.Write([]byte("typed\n"))
		must(t, err)
		expectText(t, screen, "typed\n")
	}
	if out, _ := split(t, slow); out != counts(lines) {
		t.Error("a client that read nothing meanwhile has lost output")
	}
	if got := <-counted; got != counts(lines) {
		t.Errorf("attached client got %d bytes of %d", len(got), len(counts(lines)))
	}
	if st := h.wait("count", ""); st.ExitCode != 4 {
		t.Errorf("counting ended with %+v", st)
	}
	if logText(readLog(t, h.logPath("count"))) != counts(lines) {
		t.Error("the log is not what was printed")
	}
	must(t, <-typed)
	if got := <-echoed; got != counts(lines) {
		t.Errorf("of what was typed %d bytes of %d came back", len(got), len(counts(lines)))
	}
	for _, id := range []string{"ended", "queued"} {
		if st, err := h.Status(t.Context(), id, ""); err != nil || st.ExitCode != 3 || logText(readLog(t, h.logPath(id))) != "half" {
			t.Errorf("what %s before: %+v, %v", id, st, err)
		}
	}
	h.start(h.sh("later", "echo here"))
	if out, _ := split(t, waiting); out != "here\n" {
		t.Errorf("a client that waited for the start got %q", out)
	}
	_, err := execd.Write([]byte("go on\n"))
	must(t, err)
	if out, _ := split(t, execd); out != "begin\nend\n" {
		t.Errorf("executed command printed %q", out)
	}
	if st := h.wait("cat", "x"); st.ExitCode != 5 {
		t.Errorf("executed command ended with %+v", st)
	}
	must(t, h.Signal(t.Context(), "tty", "", syscall.SIGKILL))
	if st := h.wait("tty", ""); st.ExitCode != 137 {
		t.Errorf("killed: %+v", st)
	}
}

// TestUpgradeSendsRest upgrades while a client's socket is full: the client gets the
// frame that was cut, though the process prints nothing more.
func TestUpgradeSendsRest(t *testing.T) {
	h := newHarness(t)
	cat := h.sh("cat", "exec cat")
	cat.OpenStdin = true
	typing := h.attach("cat", "", AttachOptions{Stdin: true, BeforeStart: true})
	slow := h.attach("cat", "", allOutput)
	h.start(cat)
	// A line goes through the pipe in one piece (PIPE_BUF in pipe(7)), so it is one
	// frame. That it is in the log tells that it is on its way to the client.
	line := strings.Repeat("x", 4095) + "\n"
	lines := 0
	for full := false; !full; {
		_, err := io.WriteString(typing, line)
		must(t, err)
		for lines++; ; runtime.Gosched() {
			log, err := os.ReadFile(h.logPath("cat"))
			must(t, err)
			if bytes.Count(log, []byte{'\n'}) == lines {
				break
			}
		}
		sent := lines * (frameHeaderSize + len(line))
		if unread(t, slow) < sent { // full, or not there yet
			h.upgrade()
			full = unread(t, slow) < sent
		}
	}
	must(t, slow.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	if n, err := io.CopyN(io.Discard, frames(t, slow), int64(lines*len(line))); err != nil {
		t.Errorf("%d bytes of %d arrived: %v", n, lines*len(line), err)
	}
}

// unread is how much a client could read without waiting.
func unread(t *testing.T, s *Stream) (n int) {
	t.Helper()
	raw, err := s.conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }))
	must(t, err)
	return n
}

// exec executes a shell command with a stdin.
func (h *harness) exec(t *testing.T, id, execID, script string) {
	t.Helper()
	r := &ExecRequest{ContainerID: id, ExecID: execID, Process: h.sh("", script).Spec.Process, OpenStdin: true}
	_, err := h.Client.Exec(t.Context(), r)
	must(t, err)
}

// frames is the payload of Docker's frames.
func frames(t *testing.T, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		for {
			var header [8]byte
			if _, err := io.ReadFull(r, header[:]); err != nil {
				pw.CloseWithError(io.EOF)
				return
			}
			n := int64(header[4])<<24 | int64(header[5])<<16 | int64(header[6])<<8 | int64(header[7])
			if _, err := io.CopyN(pw, r, n); err != nil {
				pw.CloseWithError(err)
				return
			}
		}
	}()
	return pr
}

func expectText(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// TestUpgradeRefused: a program that cannot go on changes nothing.
func TestUpgradeRefused(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "sleep 1000"))
	notProgram := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(notProgram, []byte("no program"), 0o755))
	falseProgram, err := exec.LookPath("false")
	must(t, err)
	for _, binary := range []string{"/no/such/program", notProgram, falseProgram} {
		if err := h.Upgrade(t.Context(), binary); !errors.Is(err, errdefs.ErrUnsupported) || errdefs.Hint(err) == "" {
			t.Errorf("%s: %v", binary, err)
		}
	}
	if st, err := h.Status(t.Context(), "a", ""); err != nil || st.Exited {
		t.Errorf("after refusals: %+v, %v", st, err)
	}
	select {
	case <-h.Done():
		t.Error("the connection has ended")
	default:
	}
}

// TestUpgradeThatFails: a program that was fine when it was tried and cannot be
// executed leaves everything as it was.
func TestUpgradeThatFails(t *testing.T) {
	h := newHarness(t)
	self, err := os.ReadFile(h.options.Binary)
	must(t, err)
	// A script that tries well the first two times and is gone then.
	dir := t.TempDir()
	copied, script := filepath.Join(dir, "berth-oci"), filepath.Join(dir, "script")
	must(t, os.WriteFile(copied, self, 0o755))
	must(t, os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\n%s \"$@\" || exit\n[ -e %s/second ] && rm %s\n: >%s/second\n", copied, dir, script, dir), 0o755))
	cat := h.sh("cat", "exec cat")
	cat.OpenStdin = true
	h.start(cat)
	typing := h.attach("cat", "", AttachOptions{Stdin: true, Stdout: true})
	if err := h.Upgrade(t.Context(), script); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("upgrade: %v", err)
	}
	_, err = typing.Write([]byte("still here\n"))
	must(t, err)
	expectText(t, frames(t, typing), "still here\n")
	must(t, h.Signal(t.Context(), "cat", "", syscall.SIGTERM))
	if st := h.wait("cat", ""); st.ExitCode != 143 || time.Since(st.ExitedAt) > time.Hour {
		t.Errorf("ended with %+v", st)
	}
}
