package engine

import (
	"context"
	"sync"
	"time"
)

const (
	// besidePatience is how long the engine keeps its clients waiting for what is
	// nearly always done at once. What takes longer goes on beside them.
	besidePatience = 2 * time.Second
	// besideWorkers bounds how much of it is done at a time.
	besideWorkers = 8
)

// besides is what an engine that begins has to do and does not need to wait for:
// a process that should not be may take its time to die, a disk to delete.
type besides struct {
	work []besideWork
	// last is begun when the engine has taken stock of all containers: it may start
	// some, whose network nobody may take for a stranger's.
	last []func()
}

// besideWork is one piece of it. What it returns is logged.
type besideWork struct {
	what, container string
	do              func(ctx context.Context) error
}

func (b *besides) add(what, container string, do func(context.Context) error) {
	b.work = append(b.work, besideWork{what, container, do})
}

// run begins the work, and returns when it is done or has taken so long that it is
// better waited for by those whom it concerns. The log says what goes on.
func (b *besides) run(e *Engine, patience time.Duration) {
	var mu sync.Mutex
	open := map[int]besideWork{}
	for i, w := range b.work {
		open[i] = w
	}
	next, done := make(chan int, len(b.work)), make(chan struct{})
	for i := range b.work {
		next <- i
	}
	close(next)
	for range min(besideWorkers, len(b.work)) {
		e.beside.Go(func() {
			for i := range next {
				w := b.work[i]
				if err := w.do(e.ctx); err != nil && e.ctx.Err() == nil {
					e.log.Error(w.what, "container", w.container, "err", err)
				}
				mu.Lock()
				delete(open, i)
				mu.Unlock()
			}
		})
	}
	e.wg.Go(func() {
		e.beside.Wait()
		close(done)
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		mu.Lock()
		defer mu.Unlock()
		for _, w := range open {
			e.log.Warn("this takes long and goes on beside everything else: "+w.what, "container", w.container)
		}
	}
	for _, f := range b.last {
		e.wg.Go(f)
	}
}
