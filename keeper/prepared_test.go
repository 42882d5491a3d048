package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

type fakeExec struct{ closed int }

func (e *fakeExec) Start(*Launch) (*Launched, error) { return nil, errors.ErrUnsupported }
func (e *fakeExec) Close()                           { e.closed++ }

func TestPreparedExecs(t *testing.T) {
	var p preparedExecs
	a, x, y := &process{}, &fakeExec{}, &fakeExec{}
	if p.take(a, "x") != nil {
		t.Error("something is kept from the beginning")
	}
	p.keep(a, "x", x)
	if got := p.take(a, "x"); got != x || p.take(a, "x") != nil || x.closed != 0 {
		t.Errorf("took %v, which is closed %d times, or took it twice", got, x.closed)
	}
	p.keep(a, "x", x)
	if p.take(a, "y") != nil || x.closed != 1 {
		t.Error("another command's is taken, or not closed")
	}
	p.keep(a, "x", x)
	p.keep(a, "y", y) // of two at a time the last one stays
	if x.closed != 2 || p.take(a, "y") != y {
		t.Error("the former one is not closed, or the last one not kept")
	}
	p.keep(a, "y", y)
	p.drop(a)
	if y.closed != 1 || p.take(a, "y") != nil {
		t.Error("an ended container's is kept, or not closed")
	}
	for range maxPrepared + 3 {
		p.keep(&process{}, "x", &fakeExec{})
	}
	if len(p.kept) != maxPrepared {
		t.Errorf("%d are kept", len(p.kept))
	}
}

// TestPreparedExecOfAContainer: the same command again is not compiled again, for
// which the specification would be read.
func TestPreparedExecOfAContainer(t *testing.T) {
	h := newContainerHarness(t)
	spec := filepath.Join(h.root, "containers", "a", "spec.json")
	ask := func(id, command string, env ...string) (Status, error) {
		r := execIn("a", id, command)
		r.Process.Env = append(r.Process.Env, env...)
		r.Capture = 100
		run, err := h.ExecCaptured(t.Context(), r)
		if err != nil {
			return Status{}, err
		}
		defer run.Close()
		return run.Wait(t.Context())
	}
	expect := func(id, command, output string, code int) {
		t.Helper()
		st, err := ask(id, command, "HOME=/")
		if err != nil || st.Output != output || st.ExitCode != code {
			t.Errorf("%s: %+v, %v", command, st, err)
		}
	}
	for _, run := range []string{"first", "second"} { // nothing of the first is used for the second
		h.start(h.container("a", "exec sleep 1000"))
		expect("1", "echo $PPID; exit 3", "0\n", 3)
		must(t, os.Rename(spec, spec+"-away"))
		for _, id := range []string{"2", "3"} {
			expect(id, "echo $PPID; exit 3", "0\n", 3)
		}
		if _, err := ask("4", "echo other", "HOME=/"); err == nil {
			t.Errorf("%s: another command is not compiled", run)
		}
		must(t, os.Rename(spec+"-away", spec))
		expect("5", "echo other", "other\n", 0)
		if _, err := ask("6", "echo $HOME"); err != nil {
			t.Error(err)
		}
		must(t, h.Signal(t.Context(), "a", "", 9))
		h.wait("a", "")
		if _, err := ask("7", "echo other", "HOME=/"); err == nil {
			t.Error("executed in a container that has ended")
		}
		must(t, h.Forget(t.Context(), "a", ""))
	}
}
