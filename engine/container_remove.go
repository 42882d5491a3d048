package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/kernel/filetree"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerRemove removes a container and what belongs to it: its writable
// layer, log, records and, when asked, anonymous volumes. A running one is an
// ErrConflict unless forced. After an error it can be tried again.
func (e *Engine) ContainerRemove(ctx context.Context, ref string, opt RemoveOptions) (err error) {
	ctx, end := e.observe(ctx, OpRemove, ref)
	defer func() { end(err) }()
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	if opt.Force {
		defer c.giveUpStarts()()
		if err := e.endForRemoval(ctx, c, opt.Volumes); err != nil {
			return err
		}
	}
	return e.remove(context.WithoutCancel(ctx), c, opt)
}

// endForRemoval kills a running container and waits for its end. From here on it
// is to go, whatever becomes of this engine.
func (e *Engine) endForRemoval(ctx context.Context, c *ctr, volumes bool) error {
	// On a full disk this cannot be written, and removing is the remedy.
	_ = c.intend(ctx, func(i *intents) { i.Remove, i.RemoveVolumes = true, volumes })
	mark := c.exitCount()
	err := e.kill(ctx, c, syscall.SIGKILL)
	if errors.Is(err, errdefs.ErrConflict) {
		return nil // it does not run
	}
	if err != nil {
		return err
	}
	return c.awaitKilled(ctx, mark)
}

// remove takes a container that does not run apart. With --rm the end of the
// process may have removed it already; that is an ErrNotFound.
func (e *Engine) remove(ctx context.Context, c *ctr, opt RemoveOptions) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if st := c.rec.State.Status; c.rec.State.active() || st == stateRestarting && !opt.Force {
		err := conflictf("cannot remove container %s: container is %s", c.rec.Name, c.rec.State.shown())
		return errdefs.WithHint(err, "stop the container before removing it, or force the removal")
	}
	c.cancelRestart()
	// On a full disk this cannot be written, and removing is the remedy: were
	// the engine killed on the way, the container would have to be removed again.
	_ = c.note(func(r *record) {
		r.State.Status, r.State.Remove, r.State.RemoveVolumes = stateRemoving, true, opt.Volumes
	})
	fault.Here(fault.RemoveRecord)
	if err := errors.Join(e.settleOwed(ctx, c), e.takeApart(ctx, c, opt.Volumes)); err != nil {
		dead := c.note(func(r *record) { r.State.Status, r.State.Error = stateDead, err.Error() })
		return errors.Join(fmt.Errorf("remove container %s: %w", c.rec.Name, err), dead)
	}
	fault.Here(fault.RemoveDone)
	e.forgetExecs(c)
	e.containers.remove(c, c.rec.Name)
	e.releaseAssigned(c.rec)
	e.emitContainer(c.rec, events.ActionDestroy, nil)
	c.noteRemoved()
	return nil
}

// takeApart removes what a container has on disk, the record last of all.
func (e *Engine) takeApart(ctx context.Context, c *ctr, volumes bool) error {
	if err := e.releaseRun(ctx, c); err != nil {
		return err
	}
	fault.Here(fault.RemoveReleased)
	if err := e.images.RemoveSnapshot(ctx, c.id); err != nil {
		return err
	}
	fault.Here(fault.RemoveSnapshot)
	if err := e.removeVolumes(c.rec, volumes); err != nil {
		return err
	}
	fault.Here(fault.RemoveVolumes)
	return e.removeDir(ctx, c.dir)
}

// removeDir removes a container's directory such that a crash on the way leaves
// either a record, to try again with, or nothing that looks like a container.
// What somebody keeps in use is left to the store's janitor.
func (e *Engine) removeDir(ctx context.Context, dir string) error {
	doomed := dir + doomedSuffix
	if err := filetree.Move(dir, doomed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fault.Here(fault.RemoveDir)
	return e.removeDoomed(ctx, doomed)
}

// removeDoomed removes a directory, or, when somebody uses what is in it, leaves
// that to the store's janitor.
func (e *Engine) removeDoomed(ctx context.Context, dir string) error {
	if err := filetree.Remove(ctx, dir); err != nil {
		return e.images.Discard(dir)
	}
	return nil
}

// doomedSuffix marks a directory that is being removed.
const doomedSuffix = ".removed"

// ContainerRename gives a container another name.
func (e *Engine) ContainerRename(ctx context.Context, ref, name string) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	if name == "" || name == "/" {
		return invalidf("neither old nor new names may be empty")
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	old := c.rec.Name
	if name == old || name == "/"+old {
		return errdefs.WithHint(invalidf("renaming a container with the same name as its current name"), "choose another name")
	}
	name, err = e.containers.reserve(name, c.id)
	if err != nil {
		return err
	}
	if err := c.update(func(r *record) { r.Name = name }); err != nil {
		e.containers.release(name, c.id)
		return err
	}
	fault.Here(fault.RenameDone)
	e.containers.release(old, c.id)
	e.emitContainer(c.rec, events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// ContainerPrune removes all containers that do not run. Filters: label,
// label!, until.
func (e *Engine) ContainerPrune(ctx context.Context, f Filters) (*container.PruneReport, error) {
	if err := f.only("label", "label!", "until"); err != nil {
		return nil, err
	}
	before, err := f.until(time.Now())
	if err != nil {
		return nil, err
	}
	report := &container.PruneReport{ContainersDeleted: []string{}}
	for _, c := range e.containers.all() {
		rec := c.snapshot()
		if rec.State.active() || rec.State.Status == stateRestarting || rec.State.Status == stateRemoving ||
			!f.labels(rec.Config.Labels) || !before.IsZero() && rec.Created.After(before) {
			continue
		}
		size, _, err := e.images.Usage(ctx, c.id)
		if err != nil {
			size = 0 // a damaged one; it is removed all the same
		}
		err = e.remove(ctx, c, RemoveOptions{})
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrConflict) {
			continue // removed or started meanwhile
		}
		if err != nil {
			return report, err
		}
		report.ContainersDeleted = append(report.ContainersDeleted, c.id)
		report.SpaceReclaimed += uint64(size)
	}
	e.events.emit(events.ContainerEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, nil
}
