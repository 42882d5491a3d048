package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

var allOutput = AttachOptions{Stdout: true, Stderr: true, BeforeStart: true}

func TestAttachBeforeStartSeesTheFirstByte(t *testing.T) {
	h := newHarness(t)
	first := h.attach("a", "", allOutput)
	onlyErr := h.attach("a", "", AttachOptions{Stderr: true, BeforeStart: true})
	h.start(h.sh("a", "printf x; seq 1000; echo e >&2"))
	out, err := split(t, first)
	if !strings.HasPrefix(out, "x1\n2\n") || !strings.HasSuffix(out, "\n1000\n") || err != "e\n" {
		t.Errorf("stdout %.10q…, stderr %q", out, err)
	}
	if out, err := split(t, onlyErr); out != "" || err != "e\n" {
		t.Errorf("stderr alone: %q, %q", out, err)
	}
	if h.wait("a", ""); logText(readLog(t, h.logPath("a"))) == "" {
		t.Error("nothing in the log")
	}
}

func TestAttachEndsWhenTheStartFails(t *testing.T) {
	h := newHarness(t)
	stream := h.attach("a", "", allOutput)
	r := h.sh("a", "")
	r.Spec.Process.Args = []string{"/no/such/program"}
	if _, err := h.Start(t.Context(), r); err == nil {
		t.Fatal("start of a missing program")
	}
	if out := readAll(t, stream); out != "" {
		t.Errorf("output %q", out)
	}
}

func TestAttachToNothing(t *testing.T) {
	h := newHarness(t)
	if _, err := h.Attach(t.Context(), "a", "", AttachOptions{Stdout: true}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	h.start(h.sh("a", "exit 0"))
	h.wait("a", "")
	if _, err := h.Attach(t.Context(), "a", "", AttachOptions{Stdout: true}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("exited: %v", err)
	}
	// An exited one that will be started again.
	stream := h.attach("a", "", allOutput)
	must(t, h.Forget(t.Context(), "a", ""))
	h.start(h.sh("a", "echo again"))
	if out, _ := split(t, stream); out != "again\n" {
		t.Errorf("output of the second run: %q", out)
	}
}

func TestStdin(t *testing.T) {
	h := newHarness(t)
	r := h.sh("a", "cat; echo end")
	r.OpenStdin, r.StdinOnce = true, true
	stream := h.attach("a", "", AttachOptions{Stdin: true, Stdout: true, BeforeStart: true})
	// Before the start, and more than the pipe and the socket hold.
	input := strings.Repeat("0123456789abcde\n", 64<<10)
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(stream, input)
		written <- errors.Join(err, stream.CloseWrite())
	}()
	h.start(r)
	if out, _ := split(t, stream); out != input+"end\n" {
		t.Errorf("%d bytes came back of %d", len(out), len(input))
	}
	must(t, <-written)
	if s := h.wait("a", ""); s.ExitCode != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestStdinStaysOpenForTheNextClient(t *testing.T) {
	h := newHarness(t)
	r := h.sh("a", `read a; read b; echo "$a $b"`)
	r.OpenStdin = true
	for _, word := range []string{"one\n", "two\n"} {
		stream := h.attach("a", "", AttachOptions{Stdin: true, BeforeStart: true})
		if word == "one\n" {
			h.start(r)
		}
		_, err := io.WriteString(stream, word)
		must(t, err)
		must(t, stream.CloseWrite())
		must(t, stream.Close())
	}
	h.wait("a", "")
	// The two clients are served by goroutines of their own: either order.
	if out := logText(readLog(t, h.logPath("a"))); out != "one two\n" && out != "two one\n" {
		t.Errorf("output %q", out)
	}
}

func TestWithoutStdinThereIsNone(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "readlink /proc/self/fd/0"))
	h.wait("a", "")
	if out := logText(readLog(t, h.logPath("a"))); out != "/dev/null\n" {
		t.Errorf("stdin is %q", out)
	}
}

func TestExecStdinHalfClose(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	stream := h.attach("a", "x", AttachOptions{Stdin: true, Stdout: true, BeforeStart: true})
	_, err := h.Exec(t.Context(), &ExecRequest{
		ContainerID: "a", ExecID: "x", OpenStdin: true,
		Process: &specs.Process{Args: []string{"/bin/sh", "-c", "wc -c"}},
	})
	must(t, err)
	_, err = io.WriteString(stream, "12345")
	must(t, err)
	must(t, stream.CloseWrite())
	if out, _ := split(t, stream); strings.TrimSpace(out) != "5" {
		t.Errorf("output %q", out)
	}
}

func TestTerminal(t *testing.T) {
	h := newHarness(t)
	r := h.sh("a", `stty size; read line; echo "got $line"; stty size; exit 4`)
	r.Spec.Process.Terminal = true
	r.ConsoleSize = [2]uint16{31, 97}
	stream := h.attach("a", "", AttachOptions{Stdin: true, Stdout: true, BeforeStart: true})
	h.start(r)
	readUntil(t, stream, "31 97\r\n")
	must(t, h.Resize(t.Context(), "a", "", 40, 132))
	_, err := io.WriteString(stream, "hi\r")
	must(t, err)
	if out := readAll(t, stream); out != "hi\r\ngot hi\r\n40 132\r\n" {
		t.Errorf("output %q", out)
	}
	if s := h.wait("a", ""); s.ExitCode != 4 {
		t.Errorf("status %+v", s)
	}
	if out := logText(readLog(t, h.logPath("a"))); out != "31 97\r\nhi\r\ngot hi\r\n40 132\r\n" {
		t.Errorf("log %q", out)
	}
	if err := h.Resize(t.Context(), "a", "", 1, 1); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("resize after exit: %v", err)
	}
}

// A program may close its terminal and open it again, as systemd does with the
// console.
func TestTerminalClosedAndReopened(t *testing.T) {
	h := newHarness(t)
	r := h.sh("a", `tty=$(tty); trap '' HUP; exec <&- >&- 2>&-; read ignored < `+fifo(t, h)+`; echo again > $tty`)
	r.Spec.Process.Terminal = true
	stream := h.attach("a", "", AttachOptions{Stdout: true, BeforeStart: true})
	h.start(r)
	must(t, os.WriteFile(filepath.Join(h.root, "fifo"), []byte("go\n"), 0))
	if out := readAll(t, stream); out != "again\r\n" {
		t.Errorf("output %q", out)
	}
}

func fifo(t *testing.T, h *harness) string {
	t.Helper()
	path := filepath.Join(h.root, "fifo")
	must(t, syscall.Mkfifo(path, 0o600))
	return path
}

func readUntil(t *testing.T, r io.Reader, want string) {
	t.Helper()
	var got strings.Builder
	for !strings.HasSuffix(got.String(), want) {
		var b [1]byte
		if _, err := r.Read(b[:]); err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(b[:])
	}
}

func TestResizeWithoutTerminal(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	if err := h.Resize(t.Context(), "a", "", 1, 1); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("resize: %v", err)
	}
}

// A slow client slows the container down; a closed one sets it free; neither
// keeps its exit from being announced or its output from the log.
func TestSlowAndDeadClients(t *testing.T) {
	const lines = 100_000 // about 600 KB: more than a pipe and a socket hold
	h := newHarness(t)
	slow := h.attach("a", "", allOutput)
	h.start(h.sh("a", fmt.Sprintf("seq %d; echo done >&2", lines)))
	for _, o := range []AttachOptions{allOutput, {Stdin: true, Stdout: true}} {
		dead := h.attach("a", "", o)
		must(t, dead.Close())
	}
	if _, err := io.CopyN(io.Discard, slow, 1000); err != nil {
		t.Fatal(err)
	}
	if s, err := h.Status(t.Context(), "a", ""); err != nil || s.Exited {
		t.Errorf("container ran on although a client reads nothing: %+v, %v", s, err)
	}
	must(t, slow.Close())
	h.wait("a", "")
	checkNumbers(t, readLog(t, h.logPath("a")), lines)
}

func TestExitDoesNotWaitForClients(t *testing.T) {
	h := newHarness(t)
	slow := h.attach("a", "", AttachOptions{Stdout: true, BeforeStart: true})
	// It fills the client's socket and the pipe, and is killed while it waits.
	r := h.sh("a", "")
	r.Spec.Process.Args = []string{"/usr/bin/yes", "0123456789abcde"}
	h.start(r)
	received := int64(300 << 10)
	if _, err := io.CopyN(io.Discard, slow, received); err != nil {
		t.Fatal(err)
	}
	h.until("the log stands still", func() bool {
		before, err := os.Stat(r.Log.Path)
		must(t, err)
		time.Sleep(50 * time.Millisecond)
		after, err := os.Stat(r.Log.Path)
		must(t, err)
		return before.Size() == after.Size()
	})
	must(t, h.Signal(t.Context(), "a", "", syscall.SIGKILL))
	h.wait("a", "")
	// The client gets the rest at its leisure, all of what is in the log.
	if _, err := io.CopyN(io.Discard, slow, frameHeaderSize+1); err != nil {
		t.Fatal(err)
	}
	rest := readAll(t, slow)
	if !strings.HasSuffix(rest, "\n") && !strings.Contains(rest, "0123456789abcde") {
		t.Errorf("rest of %d bytes", len(rest))
	}
}

func TestAttachAndDetachLeaveNothing(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	settle := func() int {
		// A request after the closes is no barrier for them; the count is.
		for before := -1; ; {
			if n := h.keeperFiles(); n == before {
				return n
			} else {
				before = n
			}
			h.List(t.Context())
		}
	}
	before := settle()
	for range 20 {
		for _, k := range []key{{"a", ""}, {"b", ""}, {"a", "x"}} {
			s, err := h.Attach(t.Context(), k.container, k.exec, allOutput)
			must(t, err)
			must(t, s.Close())
		}
	}
	h.until("descriptors of closed clients are released", func() bool { return settle() <= before })
}

// keeperFiles counts the descriptors of the keeper.
func (h *harness) keeperFiles() int {
	h.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.Info().Pid))
	must(h.t, err)
	return len(names)
}

// until polls for something that has no event to wait for.
func (h *harness) until(what string, f func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			h.t.Fatalf("%s: not within 20 s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
