package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/oci"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
)

// The exit codes of a command that could not be started, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitStartFailed   = 128
)

// ContainerStart starts a created or exited container. The error is an
// ErrNotModified when it runs already. When ctx ends before the container runs, the
// start is undone.
func (e *Engine) ContainerStart(ctx context.Context, ref string) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	err = e.lockAndStart(ctx, c)
	if err != nil && c.snapshot().HostConfig.AutoRemove && c.snapshot().State.Error != "" {
		e.autoRemove(c) // it was started in vain
	}
	return err
}

func (e *Engine) lockAndStart(ctx context.Context, c *ctr) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	return e.startFresh(ctx, c)
}

// startFresh is a start that its restart policy counts from. The caller holds
// act.
func (e *Engine) startFresh(ctx context.Context, c *ctr) error {
	if err := startable(c.rec); err != nil {
		return err
	}
	c.restart.delay = 0
	if c.rec.RestartCount != 0 {
		if err := c.update(func(r *record) { r.RestartCount = 0 }); err != nil {
			return err
		}
	}
	return e.start(ctx, c)
}

// start brings a container up. The caller holds act.
func (e *Engine) start(ctx context.Context, c *ctr) (err error) {
	ctx, end := e.observe(ctx, OpStart, c.id)
	defer func() { end(err) }()
	before := c.rec.State.Status
	if err := startable(c.rec); err != nil {
		return err
	}
	ctx, done := e.starting(ctx, c, before == stateRestarting)
	defer done()
	if ctx.Err() != nil { // there is nothing to undo yet
		return fmt.Errorf("start container %s: %w", c.rec.Name, context.Cause(ctx))
	}
	c.cancelRestart()
	if err := e.settleOwed(ctx, c); err != nil {
		return err
	}
	err = c.update(func(r *record) {
		r.State.Status, r.State.Error, r.State.Stopped, r.State.OOMKilled = stateStarting, "", false, false
		r.State.Again = before == stateRestarting
		r.State.Signal, r.State.Sent, r.State.Used = 0, nil, nil
		r.State.intents = intents{Restart: r.State.Restart}
	})
	if err != nil {
		return err
	}
	fault.Here(fault.StartRecord)
	status, err := e.launch(ctx, c)
	if died := (*keeperDied)(nil); errors.As(err, &died) {
		// All of it is undone. The next keeper buries what the last one had begun.
		if err = e.keeper.forget(ctx, c.id, ""); err == nil {
			status, err = e.launch(ctx, c)
		}
	}
	if err != nil {
		return e.startFailed(c, before, givenUp(ctx, err))
	}
	fault.Here(fault.StartAnswered)
	// It runs, whether that can be written down or not; if not, the record says
	// starting and the next Open finds out.
	err = c.note(func(r *record) {
		r.State.Status, r.State.Pid, r.State.StartedAt, r.State.ExitCode = stateRunning, status.Pid, status.StartedAt, 0
		r.State.intents = intents{}
	})
	fault.Here(fault.StartDone)
	e.sendLog(c)
	e.beginOOM(c)
	e.beginHealth(c)
	e.emitContainer(c.rec, events.ActionStart, nil)
	return err
}

// settleOwed drops what the keeper holds of an earlier run. The caller holds
// act.
func (e *Engine) settleOwed(ctx context.Context, c *ctr) error {
	if !c.owed {
		return nil
	}
	if err := e.keeper.forget(ctx, c.id, ""); err != nil {
		return err
	}
	c.owed = false
	return nil
}

// startable says whether a start makes sense in the container's state.
func startable(rec *record) error {
	switch rec.State.Status {
	case stateCreated, stateExited, stateRestarting:
		return nil
	case stateRunning, stateStarting:
		return errdefs.As(errdefs.ErrNotModified, fmt.Errorf("container %s is already running", short(rec.ID)))
	case statePaused:
		return errdefs.WithHint(conflictf("cannot start a paused container"), "unpause it instead")
	}
	return conflictf("container %s is %s and cannot be started", short(rec.ID), rec.State.Status)
}

// startFailed puts the container back and keeps the reason in its record. One
// that never ran goes back to created, as with Docker.
func (e *Engine) startFailed(c *ctr, before state, cause error) error {
	code := startExitCode(cause)
	back := stateExited
	if before == stateCreated {
		back = stateCreated
	}
	err := c.note(func(r *record) {
		r.State.Status, r.State.Pid, r.State.ExitCode, r.State.Error = back, 0, code, cause.Error()
		r.State.intents = intents{}
		if back == stateExited {
			r.State.FinishedAt = time.Now().UTC()
		}
	})
	c.noteExit(exitResult{code: code}) // the cause is the starter's to hear
	return errors.Join(fmt.Errorf("start container %s: %w", c.rec.Name, cause), err)
}

// startExitCode is what a shell would exit with for this failure.
func startExitCode(err error) int {
	switch {
	case errors.Is(err, oci.ErrCommandNotFound):
		return exitNotFound
	case errors.Is(err, oci.ErrCommandNotExecutable):
		return exitNotExecutable
	}
	return exitStartFailed
}

// launch prepares everything a start needs, what is independent side by side,
// and has the keeper start the process. On error all of it is undone.
func (e *Engine) launch(ctx context.Context, c *ctr) (keeper.Status, error) {
	var undo cleanup
	defer undo.run()
	rec := c.rec
	joins, err := e.openJoins(rec)
	if err != nil {
		return keeper.Status{}, err
	}
	defer joins.close()
	src := &specSources{rec: rec, host: e.host, parent: e.cgroupParent(rec), shmSize: e.cfg.DefaultShmSize}
	if err := e.hostSources(src); err != nil {
		return keeper.Status{}, err
	}
	src.pidns, src.ipcns, src.netns = joins.path(joins.pid), joins.path(joins.ipc), joins.path(joins.net)

	undo.add(func() { e.releaseRun(context.WithoutCancel(ctx), c) })
	if src.userns, err = e.makeUserns(rec); err != nil {
		return keeper.Status{}, err
	}
	defer src.userns.close()
	sources, err := e.openMounts(ctx, rec, src.userns)
	if err != nil {
		return keeper.Status{}, err
	}
	defer sources.close()
	src.mountSources = sources.paths

	var rootfs *os.File
	undo.add(func() { // runs first
		if rootfs != nil {
			rootfs.Close()
		}
	})
	var group errgroup.Group
	group.Go(func() (err error) {
		if rootfs, err = e.rootForStart(ctx, c, src.userns); err != nil {
			return err
		}
		fault.Here(fault.StartRootfs)
		if src.user, err = resolveUser(rootfs, rec.Config.User, rec.HostConfig.GroupAdd); err != nil {
			return err
		}
		return src.userns.checkMapped(&src.user)
	})
	group.Go(func() error { return e.prepareNetwork(ctx, c, src) })
	if err := group.Wait(); err != nil {
		return keeper.Status{}, err
	}
	if err := labelFiles(rec, src.etc); err != nil {
		return keeper.Status{}, err
	}
	spec, err := e.finishSpec(c, src)
	if err != nil {
		return keeper.Status{}, err
	}
	request, err := c.startRequest(spec, rootfs)
	if err != nil {
		return keeper.Status{}, err
	}
	status, err := e.keeperStart(ctx, request)
	if err != nil {
		return keeper.Status{}, err
	}
	undo.release()
	return status, rootfs.Close()
}

// keeperStart has the keeper start the container.
func (e *Engine) keeperStart(ctx context.Context, r *keeper.StartRequest) (status keeper.Status, err error) {
	ctx, end := e.observe(ctx, OpKeeperStart, r.ID)
	defer func() { end(err) }()
	defer awaitsText(ctx, time.Time{}, "the container's process to be made")()
	return e.keeper.start(ctx, r)
}

// finishSpec makes the spec, with what CDI devices add to it.
func (e *Engine) finishSpec(c *ctr, src *specSources) (*specs.Spec, error) {
	spec, err := buildSpec(src)
	if err != nil {
		return nil, err
	}
	if err := e.cdi.inject(spec, src.cdi); err != nil {
		return nil, err
	}
	return spec, c.writeBundle(spec)
}

// hostSources resolves what the spec takes from the host.
func (e *Engine) hostSources(src *specSources) (err error) {
	hc := src.rec.HostConfig
	if src.sec, err = parseSecurityOpt(hc.SecurityOpt, e.host); err != nil {
		return err
	}
	if src.appArmor, err = e.appArmor.profile(&src.sec, hc.Privileged, e.host); err != nil {
		return err
	}
	if src.devices, err = resolveDevices(hc.Devices); err != nil {
		return err
	}
	if src.cdi, err = e.cdi.resolve(hc.DeviceRequests); err != nil {
		return err
	}
	if hc.Privileged {
		if src.hostDevices, err = hostDevices(); err != nil {
			return err
		}
	}
	src.shm, err = e.prepareShm(src.rec)
	return err
}

// cgroupParent is the cgroup the container's own is made below.
func (e *Engine) cgroupParent(rec *record) string {
	parent := firstNonEmpty(rec.HostConfig.CgroupParent, e.cfg.CgroupParent)
	return "/" + strings.TrimLeft(parent, "/")
}

// cgroupPath is the container's own cgroup.
func (e *Engine) cgroupPath(rec *record) string { return e.cgroupParent(rec) + "/" + rec.ID }
