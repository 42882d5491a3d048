package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/keeper"
	"github.com/moby/moby/api/types/events"
)

// containerEnded handles the end of a container's init: what the run held is
// given back, the exit goes into the record and only then out of the keeper's,
// waiters wake, and the restart policy or --rm has its say.
func (e *Engine) containerEnded(c *ctr, st keeper.Status) error {
	if err := c.lock(e.ctx); err != nil {
		return err
	}
	removed, err := e.settleExit(c, st)
	c.unlock()
	if removed {
		e.autoRemove(c)
	}
	return err
}

// settleExit does it. The caller holds act. remove says that --rm wants the
// container gone.
func (e *Engine) settleExit(c *ctr, st keeper.Status) (remove bool, err error) {
	if !c.rec.State.active() || !sameRun(c.rec, &st) { // told twice
		err := e.keeper.forget(e.ctx, c.id, "")
		if errors.Is(err, errdefs.ErrConflict) { // the next run is under way
			err = nil
		}
		return false, err
	}
	ctx := context.WithoutCancel(e.ctx)
	e.endHealth(c)
	c.endOOM()
	released := errors.Join(e.releaseRun(ctx, c), e.settleExecs(ctx, c))
	fault.Here(fault.ExitReleased)
	rec := c.rec
	next := stateExited
	delay, again := c.restart.next(rec, st.ExitCode, st.ExitedAt.Sub(st.StartedAt))
	if again {
		next = stateRestarting
	}
	err = c.note(func(r *record) {
		r.State.Status, r.State.Pid, r.State.ExitCode = next, 0, st.ExitCode
		r.State.StartedAt, r.State.FinishedAt = st.StartedAt, st.ExitedAt.UTC()
		r.State.OOMKilled, r.State.Error, r.State.Signal, r.State.Used = st.OOMKilled, st.Error, st.Signal, &st.Used
		if again {
			r.RestartCount++
		}
	})
	fault.Here(fault.ExitRecord)
	if c.owed = err != nil; !c.owed { // else the keeper keeps it for the next Open
		err = e.keeper.forget(ctx, c.id, "")
	}
	fault.Here(fault.ExitDone)
	if st.OOMKilled && (c.oom.told == 0 || st.Used.OOMKills > c.oom.told) {
		e.emitContainer(c.rec, events.ActionOOM, nil)
	}
	e.emitContainer(c.rec, events.ActionDie, map[string]string{
		"exitCode":     strconv.Itoa(st.ExitCode),
		"execDuration": strconv.Itoa(int(st.ExitedAt.Sub(st.StartedAt).Seconds())),
	})
	c.noteExit(exitResult{code: st.ExitCode, err: st.Error})
	if again {
		e.restartLater(c, delay)
	}
	return !again && rec.HostConfig.AutoRemove, errors.Join(err, released)
}

// sameRun says whether the exit is that of the run the record speaks of. A
// record in starting has no pid yet: its start was cut short, or is adopted. Nor has
// a process whose keeper was killed: it is told from one before it by its end.
func sameRun(rec *record, st *keeper.Status) bool {
	return rec.State.Status == stateStarting || rec.State.Pid == st.Pid || rec.State.StartedAt.Equal(st.StartedAt) ||
		st.Pid == 0 && st.ExitedAt.After(rec.State.StartedAt)
}

// autoRemove removes a container that was created with --rm.
func (e *Engine) autoRemove(c *ctr) {
	err := e.remove(context.WithoutCancel(e.ctx), c, RemoveOptions{Volumes: true})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		e.log.Error("remove ended container", "container", c.id, "err", err)
	}
}

// errStopTimeout: SIGKILL was sent and nothing ended.
func errStopTimeout(id string, waited time.Duration) error {
	return errdefs.WithHint(fmt.Errorf("container %s has not ended %s after SIGKILL: %w", short(id), waited, errdefs.ErrUnavailable),
		"a process of it waits in the kernel; see berth top and the kernel's log")
}
