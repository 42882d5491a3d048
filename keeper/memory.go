package keeper

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// collectPercent lets the heap grow by a quarter of what is alive, at least
	// by a MiB, before it is collected: the keeper lives long, does little and
	// shares the host with what matters.
	collectPercent = 25
	// trimDelay after the last start or exit memory is given back.
	trimDelay = time.Second
)

// trimmer gives memory back to the system when a burst of work is over.
type trimmer struct {
	mu      sync.Mutex
	timer   *time.Timer
	percent int
}

func newTrimmer() *trimmer {
	return &trimmer{percent: debug.SetGCPercent(collectPercent)}
}

// trimSoon puts the trimming off to trimDelay from now.
func (t *trimmer) trimSoon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer == nil {
		t.timer = time.AfterFunc(trimDelay, debug.FreeOSMemory)
		return
	}
	t.timer.Reset(trimDelay)
}

func (t *trimmer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	debug.SetGCPercent(t.percent)
}
