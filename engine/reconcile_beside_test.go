package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// syncBuffer is a log that several write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestBesides: an engine waits for what is done at once, and not for what takes long;
// that goes on, and the log says so.
func TestBesides(t *testing.T) {
	var out syncBuffer
	e := &Engine{log: slog.New(slog.NewTextHandler(&out, nil))}
	e.ctx, e.cancel = context.WithCancel(t.Context())
	last := make(chan struct{})
	end := make(chan struct{})

	var quick besides
	done := 0
	for range 3 * besideWorkers {
		quick.add("be quick", "a", func(context.Context) error { return nil })
	}
	quick.add("be last", "a", func(context.Context) error { done++; return errors.New("no luck") })
	quick.run(e, time.Hour)
	if done != 1 || strings.Contains(out.String(), "takes long") || !strings.Contains(out.String(), "no luck") {
		t.Errorf("quick work: %d done, log %s", done, out.String())
	}

	slow := besides{last: []func(){func() { close(last) }}}
	slow.add("be slow", "b", func(ctx context.Context) error {
		select {
		case <-end:
		case <-ctx.Done():
		}
		return nil
	})
	slow.run(e, 0)
	<-last
	if text := out.String(); !strings.Contains(text, "goes on beside everything else: be slow") || !strings.Contains(text, "container=b") {
		t.Errorf("slow work: log %s", text)
	}
	e.cancel() // as Close does
	e.wg.Wait()
}
