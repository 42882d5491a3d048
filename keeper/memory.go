package keeper

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// collectPercent lets the heap grow by a quarter of what is alive, at least
	// by a MiB, before it is collected: the keeper lives long, does little and
	// shares the host with what matters. In a burst of work it is as usual: with
	// a thousand containers each collection looks through three thousand stacks,
	// and took more time than the starts.
	collectPercent = 25
	burstPercent   = 100
	// trimDelay after the last start or exit memory is given back.
	trimDelay = time.Second
)

// trimmer gives memory back to the system when a burst of work is over.
type trimmer struct {
	mu      sync.Mutex
	timer   *time.Timer
	percent int
	burst   bool
}

func newTrimmer() *trimmer {
	return &trimmer{percent: debug.SetGCPercent(collectPercent)}
}

// trimSoon puts the trimming off to trimDelay from now.
func (t *trimmer) trimSoon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer == nil {
		t.timer = time.AfterFunc(trimDelay, t.trim)
		return
	}
	// The second start within trimDelay makes it a burst.
	if t.timer.Reset(trimDelay) && !t.burst {
		t.burst = true
		debug.SetGCPercent(burstPercent)
	}
}

func (t *trimmer) trim() {
	t.mu.Lock()
	if t.burst {
		t.burst = false
		debug.SetGCPercent(collectPercent)
	}
	t.mu.Unlock()
	debug.FreeOSMemory()
}

func (t *trimmer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	debug.SetGCPercent(t.percent)
}
