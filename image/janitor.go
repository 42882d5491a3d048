package image

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/kernel/filetree"
	"github.com/containerd/containerd/v2/core/snapshots"
)

// janitor deletes what was moved into the trash, in one background goroutine,
// so that nobody waits for the unlinking of thousands of files. What cannot be
// deleted, because somebody uses it, is tried again later, see janitor_stuck.go.
type janitor struct {
	trash  string
	layers snapshots.Snapshotter
	log    *slog.Logger
	serial atomic.Uint64
	// ctx ends with close: the deletion in hand is left to the next Open.
	ctx    context.Context
	cancel context.CancelFunc
	stuck  stuckTrash

	mu     sync.Mutex
	cond   *sync.Cond
	work   []func(context.Context) error
	dirty  bool // the trash has something
	sunken bool // the snapshotter has directories without a record
	idle   bool
	closed bool
	ended  chan struct{}
}

func newJanitor(root string, layers snapshots.Snapshotter, log *slog.Logger) *janitor {
	j := &janitor{
		trash: filepath.Join(root, "trash"), layers: layers, log: log,
		dirty: true, sunken: true, ended: make(chan struct{}),
	}
	j.serial.Store(uint64(time.Now().UnixNano()))
	j.ctx, j.cancel = context.WithCancel(context.Background())
	j.cond = sync.NewCond(&j.mu)
	go j.run()
	return j
}

// discard moves path into the trash: it is gone from its place on return.
func (j *janitor) discard(path string) error {
	to := filepath.Join(j.trash, strconv.FormatUint(j.serial.Add(1), 36))
	if err := filetree.Move(path, to); err != nil {
		return err
	}
	fault.Here(fault.Discarded)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dirty = true
	j.cond.Broadcast()
	return nil
}

// layersRemoved has the janitor delete the directories of snapshots that are
// no longer in the snapshotter's database.
func (j *janitor) layersRemoved() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dirty, j.sunken = true, true
	j.cond.Broadcast()
}

// do has the janitor run f, once, after what it has in hand. What is not begun
// when the store closes is not run.
func (j *janitor) do(f func(context.Context) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.work = append(j.work, f)
	j.cond.Broadcast()
}

// wait returns when there is nothing left to do.
func (j *janitor) wait() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for !j.closed && !(j.idle && !j.dirty && len(j.work) == 0) {
		j.cond.Wait()
	}
}

// close breaks the deletion in hand off. The rest stays for the next Open.
func (j *janitor) close() {
	j.cancel()
	j.mu.Lock()
	j.closed = true
	j.cond.Broadcast()
	j.mu.Unlock()
	<-j.ended
}

func (j *janitor) run() {
	defer close(j.ended)
	ctx := quiet(context.Background())
	for {
		j.mu.Lock()
		for !j.closed && !j.dirty && len(j.work) == 0 {
			j.idle = true
			j.cond.Broadcast()
			j.cond.Wait()
		}
		j.idle = false
		if j.closed {
			j.mu.Unlock()
			return
		}
		work, sunken := j.work, j.sunken
		j.work, j.dirty, j.sunken = nil, false, false
		j.mu.Unlock()
		for _, f := range work {
			if err := f(ctx); err != nil {
				j.log.Warn("image store: background work", "err", err)
			}
		}
		if c, ok := j.layers.(snapshots.Cleaner); ok && sunken {
			if err := c.Cleanup(ctx); err != nil {
				j.log.Warn("image store: remove deleted layers", "err", err)
			}
		}
		j.sweep()
	}
}

// sweep deletes what is in the trash now.
func (j *janitor) sweep() {
	entries, err := os.ReadDir(j.trash)
	if err != nil {
		j.log.Warn("image store: empty trash", "err", err)
	}
	failed := map[string]error{}
	for _, e := range entries {
		err := filetree.Remove(j.ctx, filepath.Join(j.trash, e.Name()))
		if j.ctx.Err() != nil {
			return
		}
		if err != nil {
			failed[e.Name()] = err
		}
	}
	j.postpone(failed)
}
