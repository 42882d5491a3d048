package engine

import (
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/events"
)

// ContainerExport writes a container's root file system to w as a tar: its own
// files without what is mounted on it.
func (e *Engine) ContainerExport(ctx context.Context, ref string, w io.Writer) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	root, ids, done, err := e.openFiles(ctx, c)
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
