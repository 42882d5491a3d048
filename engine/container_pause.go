package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/moby/moby/api/types/events"
)

// ContainerPause freezes all processes of a running container.
func (e *Engine) ContainerPause(ctx context.Context, ref string) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	switch c.rec.State.Status {
	case stateRunning:
	case statePaused:
		return conflictf("container %s is already paused", short(c.id))
	case stateRestarting:
		return conflictf("container %s is restarting, wait until it runs", short(c.id))
	default:
		return errNotRunning(c.id)
	}
	return e.pause(c, false)
}

// pause freezes; briefly says that it is for as long as the caller is at work only.
// The caller holds act and knows that the container runs. The
// record comes first: were the engine killed in between, the next Open would
// see by the kernel that nothing is frozen.
func (e *Engine) pause(c *ctr, briefly bool) error {
	g, err := e.cgroup(c.rec)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := c.update(func(r *record) { r.State.Status, r.State.Thaw = statePaused, briefly }); err != nil {
		return err
	}
	fault.Here(fault.PauseRecord)
	if err := g.Freeze(); err != nil {
		undo := c.update(func(r *record) { r.State.Status, r.State.Thaw = stateRunning, false })
		if undo != nil {
			e.log.Error("undo pause", "container", c.id, "err", undo)
		}
		return fmt.Errorf("pause container %s: %w", short(c.id), err)
	}
	fault.Here(fault.PauseDone)
	c.haltHealth()
	e.emitContainer(c.rec, events.ActionPause, nil)
	return nil
}

// ContainerUnpause thaws a paused container.
func (e *Engine) ContainerUnpause(ctx context.Context, ref string) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if c.rec.State.Status != statePaused {
		return conflictf("container %s is not paused", short(c.id))
	}
	return e.thaw(c)
}

// thaw undoes pause. The caller holds act.
func (e *Engine) thaw(c *ctr) error {
	g, err := e.cgroup(c.rec)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := g.Thaw(); err != nil {
		return fmt.Errorf("unpause container %s: %w", short(c.id), err)
	}
	fault.Here(fault.UnpauseThawed)
	if err := c.update(func(r *record) { r.State.Status, r.State.Thaw = stateRunning, false }); err != nil {
		return err
	}
	fault.Here(fault.UnpauseDone)
	e.resumeHealth(c)
	e.emitContainer(c.rec, events.ActionUnPause, nil)
	return nil
}

// thawForeign thaws what somebody else has frozen, behind the engine's back: on
// cgroup v1 nothing that is frozen dies.
func (e *Engine) thawForeign(rec *record) error {
	g, err := e.cgroup(rec)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	defer g.Close()
	frozen, err := g.Frozen()
	if err == nil && frozen {
		err = g.Thaw()
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("thaw container %s: %w", short(rec.ID), err)
	}
	return nil
}

// cgroup opens a running container's. The caller closes it.
func (e *Engine) cgroup(rec *record) (*cgroup.Group, error) {
	g, err := cgroup.Load(e.cgroupPath(rec))
	if err != nil {
		return nil, fmt.Errorf("open cgroup of container %s: %w", short(rec.ID), err)
	}
	return g, nil
}
