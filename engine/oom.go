package engine

import (
	"errors"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/moby/moby/api/types/events"
)

// A process that the kernel kills for want of memory need not be the container's
// first: the container then lives on, and would not tell. The kernel tells the engine.
// At the end of the container the keeper's count says what has not been told.

// oomWatch is the engine's watch over all containers; the zero value, on a host
// without a memory controller, watches nothing.
type oomWatch struct{ w *cgroup.OOMWatcher }

func newOOMWatch() (oomWatch, error) {
	w, err := cgroup.NewOOMWatcher()
	if errors.Is(err, errdefs.ErrUnsupported) {
		return oomWatch{}, nil
	}
	return oomWatch{w}, err
}

func (o *oomWatch) close() error {
	if o.w == nil {
		return nil
	}
	return o.w.Close()
}

// oomState is what is known of one container's want of memory. Guarded by act.
type oomState struct {
	told uint64 // kills that have been told of
	stop func() // ends the watch; nil: there is none
}

// beginOOM watches a container that runs. The caller holds act.
func (e *Engine) beginOOM(c *ctr) {
	c.endOOM() // a repair takes over what is watched already
	c.oom = oomState{}
	if e.oom.w == nil {
		return
	}
	g, err := cgroup.Load(e.cgroupPath(c.rec))
	if err == nil {
		c.oom.stop, err = e.oom.w.Add(g, c.id)
		g.Close()
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) { // it has ended meanwhile
		// It runs as well without; its end tells.
		e.log.Warn("memory is not watched", "container", c.id, "err", err)
	}
}

// resumeOOM does so for one that ran while there was no engine, and tells of what has
// happened meanwhile. The caller holds act.
func (e *Engine) resumeOOM(c *ctr) {
	e.beginOOM(c)
	kills, err := e.oomKills(c)
	if c.rec.State.OOMKilled {
		c.oom.told = kills
	} else if kills > 0 {
		err = errors.Join(err, e.tellOOM(c, kills))
	}
	if err != nil {
		e.log.Error("look for want of memory", "container", c.id, "err", err)
	}
}

// endOOM ends the watch. The caller holds act.
func (c *ctr) endOOM() {
	if c.oom.stop != nil {
		c.oom.stop()
		c.oom.stop = nil
	}
}

// watchOOM takes the kernel's news until the engine closes.
func (e *Engine) watchOOM() {
	for {
		ids, err := e.oom.w.Next()
		if err != nil {
			if e.ctx.Err() == nil {
				e.log.Error("memory is not watched any more", "err", err)
			}
			return
		}
		for _, id := range ids {
			if c, err := e.containers.get(id); err == nil && c.oomNews.Add(1) == 1 {
				e.wg.Go(func() { e.noteOOM(c) })
			}
		}
	}
}

func (e *Engine) oomKills(c *ctr) (uint64, error) {
	g, err := cgroup.Load(e.cgroupPath(c.rec))
	if errors.Is(err, errdefs.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer g.Close()
	return g.OOMKills()
}

// On cgroup v1 the kernel tells before it chooses whom it kills, and nothing tells that
// it has: it is looked for, at once and then with pauses that double.
const (
	oomLookFirst = time.Millisecond
	oomLooks     = 10
)

// noteOOM looks into a container until there is no more news of it. One looks for all
// of it: where a limit is reached, and nobody killed, news may come without an end.
func (e *Engine) noteOOM(c *ctr) {
	for {
		news := c.oomNews.Load()
		e.findOOM(c)
		if c.oomNews.CompareAndSwap(news, 0) {
			return
		}
	}
}

// findOOM looks for what the kernel has killed in a container, and tells of it.
func (e *Engine) findOOM(c *ctr) {
	for pause, looks := oomLookFirst, 0; looks < oomLooks; pause, looks = 2*pause, looks+1 {
		done, err := e.lookOOM(c)
		if err != nil && e.ctx.Err() == nil && !errors.Is(err, errdefs.ErrNotFound) {
			e.log.Error("look for want of memory", "container", c.id, "err", err)
		}
		if done || err != nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return
		}
	}
}

// lookOOM is done when it has told of something, or there is nothing to come.
func (e *Engine) lookOOM(c *ctr) (done bool, err error) {
	if err := c.lock(e.ctx); err != nil {
		return false, err
	}
	defer c.unlock()
	if !c.rec.State.active() {
		return true, nil // its end has told
	}
	kills, err := e.oomKills(c)
	if err != nil || kills <= c.oom.told {
		return false, err
	}
	return true, e.tellOOM(c, kills)
}

// tellOOM notes that there have been so many kills. The caller holds act.
func (e *Engine) tellOOM(c *ctr, kills uint64) error {
	c.oom.told = kills
	err := c.note(func(r *record) { r.State.OOMKilled = true })
	e.emitContainer(c.rec, events.ActionOOM, nil)
	return err
}
