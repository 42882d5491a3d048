package image

import (
	"context"
	"time"
)

// The pauses between attempts of a transfer: the first one, which doubles up
// to the last one.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// pause waits before the attempt that follows the given one (1, 2, ...).
func pause(ctx context.Context, attempt int) error {
	d := longestPause
	if attempt < 6 {
		d = firstPause << (attempt - 1)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
