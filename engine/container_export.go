package engine

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/moby/moby/api/types/events"
)

// ContainerExport writes a container's root file system to w as a tar: its own
// files without what is mounted on it.
func (e *Engine) ContainerExport(ctx context.Context, ref string, w io.Writer) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	root, ids, done, err := e.openRoot(ctx, c)
	if err != nil {
		return fmt.Errorf("export container %s: %w", short(c.id), err)
	}
	defer done()
	if err := writeTar(ctx, w, root, ids); err != nil {
		return fmt.Errorf("export container %s: %w", short(c.id), err)
	}
	e.emitContainer(c.snapshot(), events.ActionExport, nil)
	return nil
}

// openRoot opens a container's root directory: through its process when it
// runs, else by mounting it, and then nobody starts it until done is called. ids
// is not nil when owners show as what they are on the host.
func (e *Engine) openRoot(ctx context.Context, c *ctr) (root *os.File, ids *idMapping, done func(), err error) {
	if err := c.lock(ctx); err != nil {
		return nil, nil, nil, err
	}
	switch st := c.rec.State.Status; st {
	case stateRunning, statePaused:
		defer c.unlock()
		root, err = os.Open(fmt.Sprintf("/proc/%d/root", c.rec.State.Pid))
		return root, c.rec.IDs, func() { root.Close() }, err
	case stateCreated, stateExited, stateRestarting:
	default:
		c.unlock()
		return nil, nil, nil, conflictf("it is %s", st)
	}
	if op := operationOf(ctx); op != nil {
		op.yields.Store(true) // act is held for as long as the client reads
	}
	root, err = e.images.MountDetached(ctx, c.id)
	if err != nil {
		c.unlock()
		return nil, nil, nil, err
	}
	return root, nil, func() {
		root.Close()
		c.unlock()
	}, nil
}
