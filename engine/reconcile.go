package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
)

// loadContainers reads the records. A directory without one is what is left of
// a removal, or of a creation that did not get as far.
func (e *Engine) loadContainers() error {
	entries, err := os.ReadDir(e.containersDir())
	if err != nil {
		return fmt.Errorf("load containers: %w", err)
	}
	for _, entry := range entries {
		dir := filepath.Join(e.containersDir(), entry.Name())
		if strings.HasSuffix(dir, damagedSuffix) {
			continue
		}
		rec, err := loadRecord(dir)
		if err != nil || strings.HasSuffix(dir, doomedSuffix) {
			if err := e.dropUnreadable(dir, err); err != nil {
				return fmt.Errorf("load containers: %w", err)
			}
			continue
		}
		if err := e.adopt(rec); err != nil {
			return fmt.Errorf("load container %s: %w", rec.ID, err)
		}
	}
	return nil
}

// damagedSuffix marks the directory of a container whose record cannot be read.
const damagedSuffix = ".damaged"

// dropUnreadable removes the directory of a container without a record. One with
// a record that a crash of the host, or a disk, has damaged is set aside when the
// container had files of its own: they may be somebody's only copy.
func (e *Engine) dropUnreadable(dir string, cause error) error {
	id := filepath.Base(dir)
	_, files, err := e.images.Usage(e.ctx, id)
	if err != nil || files <= 1 || cause == nil || errors.Is(cause, os.ErrNotExist) {
		return e.removeDoomed(e.ctx, dir)
	}
	e.log.Error("container's record cannot be read; set aside with its writable layer", "dir", dir+damagedSuffix, "err", cause)
	return os.Rename(dir, dir+damagedSuffix)
}

// setAside are the ids of containers whose records could not be read.
func (e *Engine) setAside() (map[string]bool, error) {
	entries, err := os.ReadDir(e.containersDir())
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), damagedSuffix); ok {
			ids[id] = true
		}
	}
	return ids, nil
}

// adopt makes a container known again.
func (e *Engine) adopt(rec *record) error {
	c := newCtr(e.containersDir(), rec)
	if err := errors.Join(c.loadExecs(), c.loadHealth()); err != nil {
		return err
	}
	name, err := e.containers.reserve(rec.Name, rec.ID)
	if errors.Is(err, errdefs.ErrConflict) { // two records with one name: a rename was cut short
		name, err = e.containers.reserve("", rec.ID)
	}
	if err != nil {
		return err
	}
	rec.Name = name
	e.ids.adopt(rec.ID, rec.IDs)
	if !e.host.seLinux {
		rec.Labels = nil // another kernel may have been booted
	}
	if err := adoptLabels(rec.Labels); err != nil {
		e.log.Error("keep labels of container", "container", rec.ID, "err", err)
	}
	e.containers.add(c)
	for id := range c.execs {
		e.execs.add(id, c)
	}
	return nil
}

// reconcile brings the records in line with what the keeper knows and the
// kernel has. What ended meanwhile is settled, what was half done is undone or
// done, what belongs to nobody is removed.
func (e *Engine) reconcile(ctx context.Context) error {
	known, err := e.keeper.list(ctx)
	if err != nil {
		return err
	}
	inits := map[string]keeper.Status{}
	execs := map[string]keeper.Status{}
	for _, st := range known {
		if st.ExecID == "" {
			inits[st.ContainerID] = st
		} else {
			execs[st.ExecID] = st
		}
	}
	for _, c := range e.containers.all() {
		e.sendLog(c)
		st, there := inits[c.id]
		if !there {
			st, there = e.awaitStart(ctx, c)
		}
		if err := e.reconcileOne(ctx, c, st, there); err != nil {
			e.log.Error("reconcile container", "container", c.id, "err", err)
		}
		if err := e.reconcileExecs(c, execs); err != nil {
			e.log.Error("reconcile execs", "container", c.id, "err", err)
		}
		delete(inits, c.id)
	}
	for id, st := range inits { // processes of containers that are not ours
		if st.Exited {
			continue // watchExits forgets it
		}
		if err := e.endStray(ctx, id); err != nil {
			return err
		}
	}
	return e.sweep(ctx)
}

// adoptPoll is how often a start is looked at that an engine, now dead, asked
// for and the keeper is still carrying out.
const adoptPoll = 5 * time.Millisecond

// awaitStart finds out what became of a start in flight: the keeper lists a
// process only once it runs.
func (e *Engine) awaitStart(ctx context.Context, c *ctr) (keeper.Status, bool) {
	if c.rec.State.Status != stateStarting {
		return keeper.Status{}, false
	}
	client, err := e.keeper.connect(ctx)
	if err != nil {
		return keeper.Status{}, false
	}
	ticker := time.NewTicker(adoptPoll)
	defer ticker.Stop()
	for {
		st, err := client.Status(ctx, c.id, "")
		if err != nil {
			return keeper.Status{}, false // it never began, or has failed
		}
		if st.Pid != 0 || st.Exited {
			return st, true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return keeper.Status{}, false
		}
	}
}

// reconcileOne settles one container. st is the keeper's word on it.
func (e *Engine) reconcileOne(ctx context.Context, c *ctr, st keeper.Status, there bool) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	status := c.rec.State.Status
	var err error
	remove := false
	switch {
	case status == stateCreating || status == stateRemoving || status == stateDead:
		remove = true
	case c.rec.State.active() && there && st.Exited:
		remove, err = e.settleExit(c, st)
	case c.rec.State.active() && there:
		err = e.takeOver(c, st)
	case status == stateStarting:
		err = e.rollBack(ctx, c)
		remove = c.rec.HostConfig.AutoRemove
	case c.rec.State.active():
		lost := keeper.Status{ContainerID: c.id, StartedAt: c.rec.State.StartedAt, ExitedAt: time.Now(), Exited: true,
			ExitCode: keeper.ExitCodeLost, Error: "the host was restarted, or the keeper was"}
		remove, err = e.settleExit(c, lost)
	default:
		switch {
		case there && !st.Exited: // a start that was given up went through after all
			err = e.endStray(ctx, c.id)
		case there: // its end is on record, and in the way of the next start
			err = e.keeper.forget(ctx, c.id, "")
		}
		remove = c.rec.HostConfig.AutoRemove && status == stateExited
	}
	intended := c.rec.State.intents
	if err == nil && !remove && !intended.Remove {
		e.resumePolicy(c)
	}
	c.unlock()
	volumes := status == stateCreating || c.rec.HostConfig.AutoRemove || intended.RemoveVolumes
	switch {
	case remove:
		return errors.Join(err, e.remove(ctx, c, RemoveOptions{Volumes: volumes}))
	case intended.Remove && err == nil: // a forced removal was cut short
		e.wg.Go(func() { e.finishRemoval(c, volumes) })
	case intended.Restart && err == nil && status != stateStarting && c.snapshot().State.active(): // so was a restart
		e.wg.Go(func() { e.finishRestart(c) })
	}
	return err
}

// finishRestart goes on with a restart whose stop may have begun.
func (e *Engine) finishRestart(c *ctr) {
	err := e.ContainerRestart(e.ctx, c.id, StopOptions{})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) && e.ctx.Err() == nil {
		e.log.Error("go on with a restart", "container", c.id, "err", err)
	}
}

// finishRemoval goes on with a forced removal, in the background: it may wait for
// the end of a process.
func (e *Engine) finishRemoval(c *ctr, volumes bool) {
	err := e.ContainerRemove(e.ctx, c.id, RemoveOptions{Force: true, Volumes: volumes})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) && e.ctx.Err() == nil {
		e.log.Error("go on with a removal", "container", c.id, "err", err)
	}
}

// endStray kills a container's process that should not be, and returns when the
// keeper has forgotten it: only then can the container be started.
func (e *Engine) endStray(ctx context.Context, id string) error {
	if err := e.keeper.signal(ctx, id, "", syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	if _, err := e.keeper.wait(ctx, id, ""); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("end stray process of container %s: %w", short(id), err)
	}
	return e.keeper.forget(ctx, id, "")
}

// takeOver makes the record of a container say that it runs. Whether it is
// frozen the kernel knows. The caller holds act.
func (e *Engine) takeOver(c *ctr, st keeper.Status) error {
	next := stateRunning
	frozen, err := e.frozen(c.rec)
	if err != nil {
		return err
	}
	if frozen && c.rec.State.Status != stateStarting {
		next = statePaused
	}
	err = c.update(func(r *record) {
		if r.State.Status == stateStarting { // with its start a restart is done
			r.State.Restart = false
		}
		r.State.Status, r.State.Pid, r.State.StartedAt = next, st.Pid, st.StartedAt
	})
	if err == nil {
		err = e.finishBrief(c)
	}
	if err == nil && c.rec.State.Status == stateRunning {
		e.resumeHealth(c)
	}
	return err
}

// finishBrief ends what was to be only for as long as an engine was at work on a
// running container: a pause, and limits that were written down and not yet to the
// kernel. The caller holds act.
func (e *Engine) finishBrief(c *ctr) error {
	if c.rec.State.Thaw {
		if c.rec.State.Status != statePaused {
			if err := c.update(func(r *record) { r.State.Thaw = false }); err != nil {
				return err
			}
		} else if err := e.thaw(c); err != nil {
			return err
		}
	}
	if !c.rec.State.Apply {
		return nil
	}
	if err := e.applyLimits(c); err != nil {
		return err
	}
	return c.update(func(r *record) { r.State.Apply = false })
}

// frozen asks the kernel. A container whose cgroup is gone has just ended; the
// keeper's word on that follows.
func (e *Engine) frozen(rec *record) (bool, error) {
	g, err := e.cgroup(rec)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer g.Close()
	frozen, err := g.Frozen()
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return frozen, err
}

// rollBack undoes a start that the keeper knows nothing of. The caller holds
// act.
func (e *Engine) rollBack(ctx context.Context, c *ctr) error {
	if err := e.releaseRun(ctx, c); err != nil {
		return err
	}
	return c.update(func(r *record) {
		r.State.Pid, r.State.Error = 0, "the engine ended while it started the container"
		r.State.Status = r.State.shown()
	})
}

// resumePolicy starts, in the background, what the restart policy wants
// running when an engine starts: also what was waiting for its restart, and,
// with always, what a user had stopped. The caller holds act.
func (e *Engine) resumePolicy(c *ctr) {
	st, p := &c.rec.State, c.rec.HostConfig.RestartPolicy
	if st.Status == stateRestarting {
		if c.restart.cancel == nil {
			e.restartLater(c, restartFirst)
		}
		return
	}
	if st.Status != stateExited || st.StartedAt.IsZero() {
		return
	}
	if !st.Restart && !p.IsAlways() && !(p.IsUnlessStopped() && !st.Stopped) && !(p.IsOnFailure() && wantsRestart(c.rec, st.ExitCode)) {
		return
	}
	e.wg.Go(func() {
		if err := c.lock(e.ctx); err != nil {
			return
		}
		defer c.unlock()
		if c.rec.State.Status != stateExited {
			return
		}
		if err := e.startFresh(context.WithoutCancel(e.ctx), c); err != nil {
			e.log.Error("start by policy", "container", c.id, "err", err)
		}
	})
}

// reconcileExecs settles the execs that were starting or running. Those the
// keeper knows as running go on; their exits come by watchExits.
func (e *Engine) reconcileExecs(c *ctr, known map[string]keeper.Status) error {
	errs := []error{e.endStrayProbes(c, known)}
	for _, id := range c.execIDs() {
		x := c.execs[id] // nobody else is at work yet
		st, there := known[id]
		switch {
		case there && st.Exited:
			errs = append(errs, e.execEnded(c, st))
		case there:
			errs = append(errs, c.changeExec(x, func(x *execution) { x.Status, x.Pid = execRunning, st.Pid }))
		case x.Status == execStarting:
			// The command never ran, so it has the code of one that cannot.
			errs = append(errs, c.changeExec(x, func(x *execution) { endExec(x, exitNotExecutable, time.Now().UTC()) }))
		case x.Status == execRunning:
			errs = append(errs, c.changeExec(x, func(x *execution) { endExec(x, keeper.ExitCodeLost, time.Now().UTC()) }))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what belongs to no container: attachments, namespaces, links,
// writable layers, shared memory.
func (e *Engine) sweep(ctx context.Context) error {
	var live []string
	ours := map[string]bool{}
	for _, c := range e.containers.all() {
		ours[c.id] = true
		if rec := c.snapshot(); rec.State.active() {
			live = append(live, c.id)
		}
	}
	report, err := e.nets.Reconcile(ctx, live)
	if err != nil {
		return err
	}
	for _, id := range report.Broken {
		e.log.Error("container has lost its network link; restart it", "container", id)
	}
	aside, err := e.setAside()
	if err != nil {
		return err
	}
	for key := range e.images.Snapshots() {
		if ours[key] || aside[key] {
			continue
		}
		if err := e.images.RemoveSnapshot(ctx, key); err != nil {
			return err
		}
	}
	return e.sweepShm(live)
}

// sweepShm unmounts the shared memory of containers that do not run.
func (e *Engine) sweepShm(live []string) error {
	entries, err := os.ReadDir(filepath.Dir(e.shmDir("x")))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	for _, id := range live {
		alive[id] = true
	}
	for _, entry := range entries {
		if alive[entry.Name()] {
			continue
		}
		if err := e.removeShm(entry.Name()); err != nil {
			return err
		}
	}
	return nil
}
