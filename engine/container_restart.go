package engine

import (
	"context"
	"errors"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// The pauses before a restart by policy, Docker's: 100 ms, doubled every time
// up to a minute, from the beginning after a run of ten seconds or more.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = time.Minute
	restartReset = 10 * time.Second
)

// restarter is a container's restart policy at work. Its fields are guarded by
// the container's act, but for cancel.
type restarter struct {
	delay  time.Duration
	cancel context.CancelFunc // ends the pause in progress; nil: none
}

// next says whether the policy starts the container again and after what pause.
func (r *restarter) next(rec *record, exitCode int, ran time.Duration) (time.Duration, bool) {
	if !wantsRestart(rec, exitCode) {
		return 0, false
	}
	if ran >= restartReset {
		r.delay = 0
	}
	if r.delay == 0 {
		r.delay = restartFirst
	} else {
		r.delay = min(2*r.delay, restartMost)
	}
	return r.delay, true
}

// wantsRestart is the policy itself. A container a user stopped stays stopped
// until the user or, unless it says unless-stopped, the next start of the
// engine starts it.
func wantsRestart(rec *record, exitCode int) bool {
	p := rec.HostConfig.RestartPolicy
	if rec.State.Stopped {
		return false
	}
	switch {
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return exitCode != 0 && (p.MaximumRetryCount == 0 || rec.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// restartLater starts the container after the pause. The caller holds act.
func (e *Engine) restartLater(c *ctr, delay time.Duration) {
	ctx, cancel := context.WithCancel(e.ctx)
	c.restart.cancel = cancel
	fault.Here(fault.RestartPause)
	e.wg.Go(func() {
		defer cancel()
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-e.reconciled: // or its network would be taken for a stranger's
		case <-ctx.Done():
			return
		}
		if err := e.restartNow(ctx, c); err != nil && !errors.Is(err, errdefs.ErrNotFound) && ctx.Err() == nil {
			e.log.Error("restart by policy", "container", c.id, "err", err)
		}
	})
}

// restartNow starts a container whose pause is over.
func (e *Engine) restartNow(ctx context.Context, c *ctr) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if c.rec.State.Status != stateRestarting || ctx.Err() != nil {
		return nil
	}
	return e.start(context.WithoutCancel(ctx), c) // its context ends with the pause
}

// cancelRestart ends a pause in progress. The caller holds act.
func (c *ctr) cancelRestart() {
	if c.restart.cancel != nil {
		c.restart.cancel()
		c.restart.cancel = nil
	}
}

// settleRestarting turns a container that waits for its restart into an exited
// one. The caller holds act.
func (c *ctr) settleRestarting() error {
	c.cancelRestart()
	return c.update(func(r *record) { r.State.Status, r.State.Stopped = stateExited, true })
}

// ContainerRestart stops a container (when it runs) and starts it.
func (e *Engine) ContainerRestart(ctx context.Context, ref string, opt StopOptions) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	if err := c.intend(ctx, func(i *intents) { i.Restart = true }); err != nil {
		return err
	}
	if err := e.stop(ctx, c, opt); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		return errors.Join(err, c.intend(context.WithoutCancel(ctx), func(i *intents) { i.Restart = false }))
	}
	ctx = detach(ctx)
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if err := e.startFresh(ctx, c); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		return err
	}
	e.emitContainer(c.rec, events.ActionRestart, nil)
	return nil
}

// ContainerWait returns a channel that yields one response when the condition
// holds and is then closed. The end of ctx closes it without one. The zero
// condition is not-running.
func (e *Engine) ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	switch cond {
	case "", container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return nil, invalidf("invalid condition: %q", cond)
	}
	since := c.exitCount()
	out := make(chan container.WaitResponse, 1)
	e.wg.Go(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(e.ctx, cancel)()
		res, err := c.wait(ctx, cond, since)
		if err != nil {
			return
		}
		resp := container.WaitResponse{StatusCode: int64(res.code)}
		if res.err != "" {
			resp.Error = &container.WaitExitError{Message: res.err}
		}
		out <- resp
	})
	return out, nil
}
