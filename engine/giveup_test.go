package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// newStuck is an engine with a container whose start hangs in a hook, which says
// so on a named pipe.
func newStuck(t *testing.T) (te *testEngine, id, pipe string) {
	te, log := newBuoys(t)
	pipe = filepath.Join(log, "stuck")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	req := request("sleep", "1000")
	req.HostConfig.DeviceRequests = cdiRequest("vendor.example/buoy=stuck")
	return te, te.create("stuck", req), pipe
}

// startStuck begins to start the container, and returns when it hangs.
func (te *testEngine) startStuck(ctx context.Context, id, pipe string) <-chan error {
	te.t.Helper()
	done := make(chan error, 1)
	go func() { done <- te.ContainerStart(ctx, id) }()
	if _, err := os.ReadFile(pipe); err != nil {
		te.t.Fatal(err)
	}
	return done
}

// A start that hangs ends with its client, and is undone: the container is as it
// was, and says why.
func TestStartEndsWithItsClient(t *testing.T) {
	te, id, pipe := newStuck(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := te.startStuck(ctx, id, pipe)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("start whose client has gone: %v", err)
	}
	st := te.inspect(id).State
	if st.Status != stateCreated || st.Pid != 0 || !strings.Contains(st.Error, "createRuntime hook 0 (/bin/sh)") {
		t.Errorf("state %+v", st)
	}
	if list, err := te.keeper.list(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the keeper knows %v, %v", list, err)
	}
}

// The operation says what it waits for, and can be cancelled by its name.
func TestStartIsCancelled(t *testing.T) {
	te, id, pipe := newStuck(t)
	var table OperationTable
	ctx, _, end := table.Begin(t.Context(), "container start", "stuck")
	defer end()
	done := te.startStuck(ctx, id, pipe)
	list := table.List()
	if len(list) != 1 || list[0].WaitingFor != "the container's process to be made" {
		t.Fatalf("under way: %+v", list)
	}
	if err := table.Cancel(list[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "cancelled as operation 1") {
		t.Errorf("start that was cancelled: %v", err)
	}
}

// A start that hangs does not keep its container from being removed, nor anybody
// else from anything.
func TestRemovalGivesStartUp(t *testing.T) {
	te, id, pipe := newStuck(t)
	done := te.startStuck(t.Context(), id, pipe)
	if out, code := te.output(request("echo", "ahoy")); out != "ahoy\n" || code != 0 {
		t.Errorf("another container: %q, %d", out, code)
	}
	if err := te.ContainerRemove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, errRemovedMeanwhile) {
		t.Errorf("start of a removed container: %v", err)
	}
	if _, err := te.ContainerInspect(t.Context(), id, false); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

// Nor does it keep the engine from closing, which waits for a start by the restart
// policy.
func TestCloseGivesStartUp(t *testing.T) {
	te, id, pipe := newStuck(t)
	te.closeGrace = 0
	c, err := te.containers.get(id)
	if err != nil {
		t.Fatal(err)
	}
	var started error
	te.wg.Go(func() { started = te.lockAndStart(context.WithoutCancel(te.ctx), c) })
	if _, err := os.ReadFile(pipe); err != nil {
		t.Fatal(err)
	}
	if err := te.Close(); err != nil {
		t.Error(err)
	}
	if !errors.Is(started, errEngineCloses) {
		t.Errorf("start when the engine closed: %v", started)
	}
	te.open()
	if st := te.inspect(id).State; st.Status != stateCreated {
		t.Errorf("state %+v", st)
	}
}

// Nor is one waited for that begins while the removal waits for its turn.
func TestRemovalLetsNoStartBegin(t *testing.T) {
	te := newTestEngine(t)
	id := te.create("late", request("sleep", "1000"))
	c, err := te.containers.get(id)
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.giveUpStarts(), c.giveUpStarts()
	for _, done := range []func(){first, second} {
		if err := te.ContainerStart(t.Context(), id); !errors.Is(err, errRemovedMeanwhile) {
			t.Errorf("start during a removal: %v", err)
		}
		done()
	}
	if st := te.inspect(id).State; st.Status != stateCreated {
		t.Errorf("state %+v", st)
	}
	if err := te.ContainerStart(t.Context(), id); err != nil {
		t.Errorf("start when the removals have come to nothing: %v", err)
	}
}
