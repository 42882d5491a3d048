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
	e.log.Error("container's record cannot be read; set aside with its writable layer", "container", id, "dir", dir+damagedSuffix, "err", cause)
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
// done, what belongs to nobody is removed. What may take its time is done beside, see
// besides: nothing of it keeps the engine from its clients.
func (e *Engine) reconcile(ctx context.Context) error {
	known, err := e.keeperList(ctx)
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
	var beside besides
	for _, c := range e.containers.all() {
		e.sendLog(c)
		st, there := inits[c.id]
		delete(inits, c.id)
		if err := c.lock(ctx); err != nil {
			return err
		}
		if !there && c.rec.State.Status == stateStarting {
			beside.add("find out what became of a start", c.id, func(ctx context.Context) error { return e.reconcileStart(ctx, c) })
		} else if err := e.reconcileOne(ctx, c, st, there, &beside); err != nil {
			e.log.Error("reconcile container", "container", c.id, "err", err)
		}
		if err := e.reconcileExecs(c, execs); err != nil {
			e.log.Error("reconcile execs", "container", c.id, "err", err)
		}
	}
	for id, st := range inits { // processes of containers that are not ours
		if !st.Exited { // else watchExits forgets it
			beside.add("end a process that belongs to no container", id, func(ctx context.Context) error { return e.endStray(ctx, id) })
		}
	}
	if err := e.sweep(ctx); err != nil {
		// What is left is nobody's, or wrong already; the next start or a check's
		// repair tries again.
		e.log.Error("remove what belongs to no container", "err", err)
	}
	close(e.reconciled)
	beside.run(e, besidePatience)
	return nil
}

// reconcileStart settles a container whose start an engine, now dead, had asked for,
// when the keeper knows what became of it. The caller's lock is released.
func (e *Engine) reconcileStart(ctx context.Context, c *ctr) error {
	st, there := e.awaitStart(ctx, c)
	if err := ctx.Err(); err != nil { // the next engine finds out
		c.unlock()
		return err
	}
	return e.reconcileNow(ctx, c, st, there)
}

// reconcileNow is reconcileOne with all that follows, but for what is done in the
// background anyway.
func (e *Engine) reconcileNow(ctx context.Context, c *ctr, st keeper.Status, there bool) error {
	var beside besides
	err := e.reconcileOne(ctx, c, st, there, &beside)
	for _, w := range beside.work {
		err = errors.Join(err, w.do(ctx))
	}
	for _, f := range beside.last {
		e.wg.Go(f)
	}
	return err
}

// adoptPoll is how often a start is looked at that an engine, now dead, asked
// for and the keeper is still carrying out.
const adoptPoll = 5 * time.Millisecond

// awaitStart finds out what became of a start in flight: the keeper lists a
// process only once it runs.
func (e *Engine) awaitStart(ctx context.Context, c *ctr) (keeper.Status, bool) {
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

// reconcileOne settles one container, whose lock the caller has taken; it is released
// when that is done. st is the keeper's word on it.
func (e *Engine) reconcileOne(ctx context.Context, c *ctr, st keeper.Status, there bool, beside *besides) error {
	held := true
	release := func() {
		c.unlock()
		held = false
	}
	defer func() {
		if held {
			release()
		}
	}()
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
			held = false // until it has ended
			beside.add("end a process of a start that was given up", c.id, func(ctx context.Context) error {
				defer c.unlock()
				return e.endStray(ctx, c.id)
			})
			return nil
		case there: // its end is on record, and in the way of the next start
			err = e.keeper.forget(ctx, c.id, "")
		}
		remove = c.rec.HostConfig.AutoRemove && status == stateExited
	}
	intended := c.rec.State.intents
	if err == nil && !remove && !intended.Remove {
		e.resumePolicy(c, beside)
	}
	release()
	volumes := status == stateCreating || c.rec.HostConfig.AutoRemove || intended.RemoveVolumes
	switch {
	case remove:
		beside.add("remove a container", c.id, func(ctx context.Context) error {
			return e.remove(context.WithoutCancel(ctx), c, RemoveOptions{Volumes: volumes})
		})
	case intended.Remove && err == nil: // a forced removal was cut short
		beside.last = append(beside.last, func() { e.finishRemoval(c, volumes) })
	case intended.Restart && err == nil && status != stateStarting && c.snapshot().State.active(): // so was a restart
		beside.last = append(beside.last, func() { e.finishRestart(c) })
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
	if err == nil && c.rec.State.active() {
		e.resumeOOM(c)
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
func (e *Engine) resumePolicy(c *ctr, beside *besides) {
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
	beside.last = append(beside.last, func() {
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
		if c, err := e.containers.get(id); err != nil || c.snapshot().State.Status == stateStarting {
			continue // its start may not have come so far
		}
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
