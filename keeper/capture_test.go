package keeper

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func (h *harness) capture(execID, script string, bytes int) *Captured {
	h.t.Helper()
	r := execIn("a", execID, script)
	r.Capture = bytes
	run, err := h.ExecCaptured(h.t.Context(), r)
	must(h.t, err)
	h.t.Cleanup(func() { run.Close() })
	return run
}

// expectForgotten makes sure that nothing is known of an exec.
func (h *harness) expectForgotten(execID string) {
	h.t.Helper()
	if _, err := h.Status(h.t.Context(), "a", execID); !errors.Is(err, errdefs.ErrNotFound) {
		h.t.Errorf("exec %s is known: %v", execID, err)
	}
	if _, err := os.Stat(filepath.Join(h.root, "containers", "a", "exec")); !errors.Is(err, fs.ErrNotExist) {
		h.t.Errorf("there are records of execs: %v", err)
	}
}

func TestCapture(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	run := h.capture("x", "echo out; echo err >&2; echo out again; exit 3", 11)
	if run.Status.Pid == 0 || run.Status.Exited {
		t.Errorf("status at the start: %+v", run.Status)
	}
	st, err := run.Wait(t.Context())
	if err != nil || st.ExitCode != 3 || st.Output != "out\nerr\nout" {
		t.Errorf("status %+v with output %q, %v", st, st.Output, err)
	}
	h.expectForgotten("x")
}

// TestCaptureAbandoned: who has asked is gone, the process ends and is forgotten.
func TestCaptureAbandoned(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	run := h.capture("x", "exec sleep 1000", 100)
	other, err := h.Attach(t.Context(), "a", "x", allOutput)
	must(t, err)
	run.Close()
	must(t, h.Signal(t.Context(), "a", "x", 9))
	split(t, other)
	for {
		if _, err := h.Wait(t.Context(), "a", "x"); errors.Is(err, errdefs.ErrNotFound) {
			break
		}
	}
	h.expectForgotten("x")
}

func TestCaptureRefused(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	for _, n := range []int{-1, maxCapture + 1} {
		r := execIn("a", "x", "")
		r.Capture = n
		if _, err := h.ExecCaptured(t.Context(), r); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("capture of %d bytes: %v", n, err)
		}
	}
	r := execIn("a", "x", "")
	r.Capture, r.Process.Terminal = 1, true
	if _, err := h.ExecCaptured(t.Context(), r); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("capture of a terminal: %v", err)
	}
}

// TestCaptureOverUpgrade: what was captured is not lost, and comes with the event.
func TestCaptureOverUpgrade(t *testing.T) {
	h := newHarness(t)
	h.start(h.sh("a", "exec sleep 1000"))
	fifo := filepath.Join(h.root, "fifo")
	watch := h.attach("a", "x", AttachOptions{Stdout: true, BeforeStart: true})
	run := h.capture("x", "mkfifo "+fifo+"; echo before; read line <"+fifo+"; echo after; exit 4", 100)
	expectText(t, watch, "\x01\x00\x00\x00\x00\x00\x00\x07before\n")
	h.upgrade()
	if _, err := run.Wait(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("the old connection: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits, err := h.Events(ctx)
	must(t, err)
	must(t, os.WriteFile(fifo, []byte("go\n"), 0))
	if st := <-exits; st.ExecID != "x" || st.ExitCode != 4 || st.Output != "before\nafter\n" {
		t.Errorf("exit %+v with output %q", st, st.Output)
	}
	must(t, h.Forget(t.Context(), "a", "x"))
}
