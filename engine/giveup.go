package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// giveUp is how others end a start that is under way: it may hang for as long as a
// hook, or a file server, likes.
type giveUp struct {
	// cancel ends it, nil when there is none; again says that it is one of the
	// restart policy. Guarded by the container's mu.
	cancel context.CancelCauseFunc
	again  bool
	// removals are the forced ones under way: no start begins before they have ended.
	removals int
}

// closeGrace is how long a start may go on when the engine closes.
const closeGrace = 5 * time.Second

// starting makes a start one that others can give up, until done is called, and that
// does not keep the engine from closing. The caller holds act.
func (e *Engine) starting(ctx context.Context, c *ctr, again bool) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.ctx, func() { time.AfterFunc(e.closeGrace, func() { cancel(errEngineCloses) }) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveUp.cancel, c.giveUp.again = cancel, again
	if c.giveUp.removals > 0 {
		cancel(errRemovedMeanwhile)
	}
	return ctx, func() {
		c.mu.Lock()
		c.giveUp.cancel, c.giveUp.again = nil, false
		c.mu.Unlock()
		stop()
		cancel(nil)
	}
}

// These are why others give a start up.
var (
	errRemovedMeanwhile = errors.New("the container is being removed")
	errStoppedMeanwhile = errors.New("the container is being stopped")
	errEngineCloses     = errors.New("the engine is closing")
)

// giveUpStarts ends a start that is under way, which is then undone, and those that
// would begin before done is called: of several that wait for the container, the next
// one could hang too.
func (c *ctr) giveUpStarts() (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveUp.removals++
	if c.giveUp.cancel != nil {
		c.giveUp.cancel(errRemovedMeanwhile)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.giveUp.removals--
	}
}

// giveUpRestart does the same, only for a start by the restart policy: there is
// nobody else who could end it.
func (c *ctr) giveUpRestart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.giveUp.cancel != nil && c.giveUp.again {
		c.giveUp.cancel(errStoppedMeanwhile)
	}
}

// givenUp explains the error of a start or an exec whose client has gone.
func givenUp(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == context.Canceled {
		return fmt.Errorf("its client has gone: %w", err)
	}
	return err
}

// unlessHeld calls f, which may be held in the kernel by a file server that does not
// answer, whatever its context says, and waits no longer than ctx lasts. What f uses
// is its own to close.
func unlessHeld(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }() // it ends when the kernel lets go of it
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// outlet is where work writes that may be left behind: nothing comes out of it once
// it is shut.
type outlet struct {
	mu   sync.Mutex
	shut bool
	w    io.Writer
}

// open makes w what is written to.
func (o *outlet) open(begin func() (io.Writer, error)) (io.Writer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shut {
		return nil, io.ErrClosedPipe
	}
	w, err := begin()
	if err != nil || w == nil {
		return nil, err
	}
	o.w = w
	return o, nil
}

// Write writes, unless it is shut.
func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shut {
		return 0, io.ErrClosedPipe
	}
	return o.w.Write(p)
}

func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
}
