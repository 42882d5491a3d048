package engine

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/berth-containers/berth/keeper"
)

// defaultDetachKeys end an attachment when the request says nothing else.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// stream is a Stream on the keeper's.
type stream struct {
	*keeper.Stream
	tty    bool
	detach *detachScanner // nil: no keys
	// onDetach is called when the keys were typed.
	onDetach func()
	replay   *replay // read before the stream; nil: nothing
	replayed bool    // Read's own
	// ended, when not nil, is closed once the end of the process is on record.
	// Read's EOF waits for it: who has read all asks for the exit code next.
	ended <-chan struct{}

	closeOnce sync.Once
	closed    chan struct{}
}

// TTY says that the process has a terminal.
func (s *stream) TTY() bool { return s.tty }

// errDetached is what Write says once the detach keys were typed.
var errDetached = errors.New("detached")

// Write passes input on. When the detach keys are typed the stream is closed,
// so that Read ends too, and the process runs on.
func (s *stream) Write(p []byte) (int, error) {
	if s.detach == nil {
		return s.Stream.Write(p)
	}
	out, done := s.detach.scan(p)
	if len(out) > 0 {
		if _, err := s.Stream.Write(out); err != nil {
			return 0, err
		}
	}
	if done {
		s.onDetach()
		s.Close()
		return len(p), errDetached
	}
	return len(p), nil
}

// Read yields the replayed log, if any, then the live output.
func (s *stream) Read(p []byte) (int, error) {
	if !s.replayed && s.replay != nil {
		n, err := s.replay.Read(p)
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		s.replayed = true
	}
	n, err := s.Stream.Read(p)
	if err != nil && s.detach != nil && s.detach.done() {
		return n, io.EOF
	}
	if errors.Is(err, io.EOF) && s.ended != nil {
		select {
		case <-s.ended:
		case <-s.closed:
		}
	}
	return n, err
}

// Close detaches.
func (s *stream) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		if s.replay != nil {
			s.replay.Close()
		}
	})
	return s.Stream.Close()
}

// detachScanner finds the detach keys in a terminal's input.
type detachScanner struct {
	keys []byte

	mu    sync.Mutex
	seen  int // how many of keys have just been typed
	found bool
}

// scan returns what of p to pass on: everything but the keys. A beginning of
// the keys is held back until the next byte decides.
func (d *detachScanner) scan(p []byte) (out []byte, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range p {
		if c != d.keys[d.seen] && d.seen > 0 {
			out = append(out, d.keys[:d.seen]...)
			d.seen = 0
		}
		if c != d.keys[d.seen] {
			out = append(out, c)
			continue
		}
		if d.seen++; d.seen == len(d.keys) {
			d.found = true
			return out, true
		}
	}
	return out, false
}

func (d *detachScanner) done() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found
}

// newDetachScanner reads keys such as ctrl-p,ctrl-q or a,b.
func newDetachScanner(keys string) (*detachScanner, error) {
	d := new(detachScanner)
	for _, name := range strings.Split(firstNonEmpty(keys, defaultDetachKeys), ",") {
		c, ok := keyByte(name)
		if !ok {
			return nil, invalidf("invalid detach keys %q", keys)
		}
		d.keys = append(d.keys, c)
	}
	return d, nil
}

// keyByte is the byte a key sends: itself, or what it sends with ctrl.
func keyByte(name string) (byte, bool) {
	if len(name) == 1 {
		return name[0], true
	}
	letter, ok := strings.CutPrefix(name, "ctrl-")
	if !ok || len(letter) != 1 {
		return 0, false
	}
	switch c := letter[0]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, true
	case c >= '@' && c <= '_': // ctrl-@ and ctrl-[ \ ] ^ _
		return c - '@', true
	}
	return 0, false
}

// openStream attaches to a process at the keeper.
func (e *Engine) openStream(ctx context.Context, id, execID string, tty bool, o keeper.AttachOptions, detachKeys string) (*stream, error) {
	s := &stream{tty: tty, onDetach: func() {}, closed: make(chan struct{})}
	d, err := newDetachScanner(detachKeys)
	if err != nil {
		return nil, err
	}
	if tty && o.Stdin { // what is not typed may be anything
		s.detach = d
	}
	k, err := e.keeper.attach(ctx, id, execID, o)
	if err != nil {
		return nil, err
	}
	s.Stream = k
	return s, nil
}
