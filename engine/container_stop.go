package engine

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"
)

// killPatience is how long an exit may take after SIGKILL: a big process gives
// its memory back first.
const killPatience = 30 * time.Second

// ContainerStop stops a running container: its stop signal, then after the
// grace SIGKILL. The error is an ErrNotModified when it does not run. Once
// begun, a stop goes on though ctx ends.
func (e *Engine) ContainerStop(ctx context.Context, ref string, opt StopOptions) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	return e.stop(ctx, c, opt)
}

func (e *Engine) stop(ctx context.Context, c *ctr, opt StopOptions) (err error) {
	ctx, end := e.observe(ctx, OpStop, c.id)
	defer func() { end(err) }()
	rec := c.snapshot()
	sig, err := stopSignal(rec, opt.Signal)
	if err != nil {
		return err
	}
	grace := e.stopGrace(rec, opt.Timeout)
	if grace == 0 {
		sig = syscall.SIGKILL
	}
	mark := c.exitCount()
	ended, err := e.beginStop(ctx, c, sig)
	if err != nil || ended {
		return err
	}
	ctx = detach(ctx)
	if err := e.awaitStop(ctx, c, mark, sig, grace); err != nil {
		return err
	}
	// Who handles the exit holds act until all of it is done and told.
	if err := c.lock(ctx); err == nil {
		c.unlock()
	}
	e.emitContainer(c.snapshot(), events.ActionStop, nil)
	return nil
}

// awaitStop waits for the end, and helps with SIGKILL when the grace is over.
func (e *Engine) awaitStop(ctx context.Context, c *ctr, mark uint64, sig syscall.Signal, grace time.Duration) error {
	if sig != syscall.SIGKILL {
		if c.awaitEnd(ctx, mark, grace) == nil {
			return nil
		}
		if ctx.Err() != nil { // told to give up, not to help
			return context.Cause(ctx)
		}
		if err := e.signalRunning(ctx, c, syscall.SIGKILL); err != nil {
			return err
		}
	}
	return c.awaitKilled(ctx, mark)
}

// awaitKilled waits for an exit after mark that SIGKILL brings about.
func (c *ctr) awaitKilled(ctx context.Context, mark uint64) error {
	err := c.awaitEnd(ctx, mark, killPatience)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return errStopTimeout(c.id, killPatience)
	}
	return nil
}

// beginStop marks the container as stopped by a user and sends the signal.
// ended says that there was only a restart to call off.
func (e *Engine) beginStop(ctx context.Context, c *ctr, sig syscall.Signal) (ended bool, err error) {
	c.giveUpRestart()
	if err := c.lock(ctx); err != nil {
		return false, err
	}
	defer c.unlock()
	switch st := c.rec.State.Status; st {
	case stateRestarting:
		return true, c.settleRestarting()
	case stateRunning, statePaused:
	default:
		return false, errdefs.As(errdefs.ErrNotModified, fmt.Errorf("container %s is already stopped", short(c.id)))
	}
	c.markStopped(sig, sentByStop)
	fault.Here(fault.StopRecord)
	return false, e.sendSignal(context.WithoutCancel(ctx), c, sig)
}

// markStopped keeps the restart policy from what a user ends. That it cannot be
// written, on a full disk, must not keep anybody from stopping: it is tried
// again with the exit. The caller holds act.
func (c *ctr) markStopped(sig syscall.Signal, by sender) {
	_ = c.note(func(r *record) {
		r.State.Stopped = true
		r.State.noteSent(sig, by)
	})
}

// awaitEnd waits for an exit after mark; negative patience has no end.
func (c *ctr) awaitEnd(ctx context.Context, mark uint64, patience time.Duration) error {
	var until time.Time
	if patience >= 0 {
		var cancel context.CancelFunc
		until = time.Now().Add(patience)
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	defer awaitsText(ctx, until, "the process to end")()
	_, err := c.wait(ctx, container.WaitConditionNotRunning, mark)
	return err
}

// stopSignal is the signal asked for, else the container's own, else SIGTERM.
func stopSignal(rec *record, asked string) (syscall.Signal, error) {
	name := firstNonEmpty(asked, firstNonEmpty(rec.Config.StopSignal, "SIGTERM"))
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return 0, errdefs.As(errdefs.ErrInvalid, err)
	}
	return sig, nil
}

// stopGrace is the pause before SIGKILL; negative has no end.
func (e *Engine) stopGrace(rec *record, asked *int) time.Duration {
	seconds := e.cfg.StopTimeout
	if rec.Config.StopTimeout != nil {
		seconds = *rec.Config.StopTimeout
	}
	if asked != nil {
		seconds = *asked
	}
	return time.Duration(seconds) * time.Second
}

// signalHint says how signals are written.
const signalHint = "write a name, such as HUP or SIGTERM, or a number from 1 to 64"

// ContainerKill sends a signal (name or number; empty: SIGKILL) to a running
// container's init. After SIGKILL it returns when the container has ended.
func (e *Engine) ContainerKill(ctx context.Context, ref, name string) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	sig, err := signal.ParseSignal(firstNonEmpty(name, "SIGKILL"))
	if err != nil {
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err), signalHint)
	}
	if sig < 1 || sig > 64 {
		return errdefs.WithHint(invalidf("invalid signal: %s", name), signalHint)
	}
	mark := c.exitCount()
	if err := e.kill(ctx, c, sig); err != nil {
		return err
	}
	if sig != syscall.SIGKILL {
		return nil
	}
	return c.awaitKilled(detach(ctx), mark)
}

// kill signals a container on a user's behalf: after SIGKILL or its stop
// signal the restart policy leaves it alone.
func (e *Engine) kill(ctx context.Context, c *ctr, sig syscall.Signal) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	own, err := stopSignal(c.rec, "")
	if err != nil {
		return err
	}
	ends := sig == syscall.SIGKILL || sig == own
	switch st := c.rec.State.Status; {
	case st == stateRestarting && ends:
		return c.settleRestarting()
	case st != stateRunning && st != statePaused:
		return errNotRunning(c.id)
	}
	if ends {
		c.markStopped(sig, sentByKill)
	} else {
		c.markSent(sig, sentByKill)
	}
	return e.sendSignal(context.WithoutCancel(ctx), c, sig)
}

// signalRunning signals the container if it still runs.
func (e *Engine) signalRunning(ctx context.Context, c *ctr, sig syscall.Signal) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if st := c.rec.State.Status; st != stateRunning && st != statePaused {
		return nil
	}
	c.markSent(sig, sentAfterGrace)
	return e.sendSignal(ctx, c, sig)
}

// sendSignal signals a running or paused container. A frozen process takes no
// signal, so one that is to end it thaws it. The caller holds act.
func (e *Engine) sendSignal(ctx context.Context, c *ctr, sig syscall.Signal) error {
	if err := e.keeper.signal(ctx, c.id, "", sig); err != nil {
		return fmt.Errorf("signal container %s: %w", short(c.id), err)
	}
	fault.Here(fault.StopSignal)
	own, err := stopSignal(c.rec, "")
	switch paused := c.rec.State.Status == statePaused; {
	case paused && (sig == syscall.SIGKILL || err == nil && sig == own):
		if err := e.thaw(c); err != nil {
			return err
		}
	case sig == syscall.SIGKILL:
		if err := e.thawForeign(c.rec); err != nil {
			return err
		}
	}
	e.emitContainer(c.rec, events.ActionKill, map[string]string{"signal": strconv.Itoa(int(sig))})
	return nil
}
