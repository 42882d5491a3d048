package engine

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-containers/berth/keeper"
	"github.com/moby/moby/api/types/container"
)

// ctr is one container: its record and the order of its changes.
//
// Two locks: act admits one state change (start, exit, pause, remove, ...) at
// a time and may be held for long; mu guards the fields below it and is only
// held for moments. Whoever holds act may read rec without mu, for only holders
// of act change it; changes are made through update, which takes mu.
type ctr struct {
	id      string
	dir     string // StateRoot/containers/ID
	created time.Time
	act     chan struct{}
	// holder is whose operation holds act, nil for the engine's own work.
	holder atomic.Pointer[Operation]

	// owed says that the keeper still holds the end of the last run, because
	// it could not be written down here. Guarded by act.
	owed bool

	// execWrites admits one change of an exec at a time, while it is written.
	execWrites sync.Mutex

	mu      sync.Mutex
	rec     *record
	changed chan struct{} // closed and replaced at every change
	exits   uint64        // ends of the process seen by this engine
	last    exitResult    // of the newest exit
	removed bool
	execs   map[string]*execution
	probes  map[string]chan<- keeper.Status // who waits for the end of a probe
	health  healthCheck
	restart restarter
	sending bool // its log is being sent
	giveUp  giveUp
	oom     oomState
	oomNews atomic.Int64 // what the kernel has told and nobody has looked at yet
	// still is the container's mounted root while somebody reads or writes its
	// files though it does not run; nil otherwise.
	still *stillRoot
}

// exitResult is what waiters get.
type exitResult struct {
	code int
	err  string
}

func newCtr(root string, rec *record) *ctr {
	return &ctr{
		id:      rec.ID,
		created: rec.Created,
		dir:     filepath.Join(root, rec.ID),
		act:     make(chan struct{}, 1),
		rec:     rec,
		changed: make(chan struct{}),
		execs:   map[string]*execution{},
	}
}

// lock waits for the right to change the container's state. The caller must
// unlock.
func (c *ctr) lock(ctx context.Context) error {
	select {
	case c.act <- struct{}{}:
	default:
		if err := c.queue(ctx); err != nil {
			return err
		}
	}
	c.holder.Store(operationOf(ctx))
	if c.gone() {
		c.unlock()
		return errNoContainer(c.id)
	}
	return nil
}

// queue waits for act, and says for whom.
func (c *ctr) queue(ctx context.Context) error {
	defer awaits(ctx, time.Time{}, func() string { return c.holder.Load().text() + " to end" })()
	select {
	case c.act <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *ctr) unlock() {
	c.holder.Store(nil)
	<-c.act
}

// gone says that the container has been removed.
func (c *ctr) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removed
}

// snapshot returns a copy of the record whose top level and State are the
// caller's own. What its pointers point to is never changed in place.
func (c *ctr) snapshot() *record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := *c.rec
	return &r
}

// update changes the record by fn, writes it and only then lets others see
// it. The caller holds act.
func (c *ctr) update(fn func(r *record)) error {
	next := c.snapshot()
	from := next.State.Status
	fn(next)
	if to := next.State.Status; to != from && !allowed(from, to) {
		return conflictf("container %s cannot go from %s to %s", short(c.id), from, to)
	}
	if err := next.save(c.dir); err != nil {
		return err
	}
	c.show(next)
	return nil
}

// note is update for what has happened already, such as an exit: it is true
// and shown also when it cannot be written. The caller holds act.
func (c *ctr) note(fn func(r *record)) error {
	next := c.snapshot()
	fn(next)
	err := next.save(c.dir)
	c.show(next)
	return err
}

// intend notes, for a container that runs, that an act of several steps begins
// or has been given up. Else there is nothing that a crash could leave half done.
func (c *ctr) intend(ctx context.Context, fn func(i *intents)) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if !c.rec.State.active() {
		return nil
	}
	return c.update(func(r *record) { fn(&r.State.intents) })
}

func (c *ctr) show(rec *record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec = rec
	c.wake()
}

// wake tells everybody who waits to look again. The caller holds mu.
func (c *ctr) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// noteExit counts an end of the process for those who wait for the next one.
func (c *ctr) noteExit(res exitResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exits++
	c.last = res
	c.wake()
}

// noteRemoved tells waiters that the container is gone.
func (c *ctr) noteRemoved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = true
	c.wake()
}

// wait blocks until the condition holds.
func (c *ctr) wait(ctx context.Context, cond container.WaitCondition, since uint64) (exitResult, error) {
	for {
		c.mu.Lock()
		changed, res := c.changed, c.last
		if c.exits == since { // no exit since: the record has the last one
			res = exitResult{code: c.rec.State.ExitCode, err: c.rec.State.Error}
		}
		done := c.removed
		switch cond {
		case container.WaitConditionNextExit:
			done = done || c.exits > since
		case container.WaitConditionRemoved:
		default:
			st := &c.rec.State
			done = done || c.exits > since || !st.active() && st.Status != stateRestarting
		}
		c.mu.Unlock()
		if done {
			return res, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return exitResult{}, ctx.Err()
		}
	}
}

// exitCount is the mark for wait's since.
func (c *ctr) exitCount() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exits
}

// short is the id as users see it in lists.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
