package image

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/berth-containers/berth/fault"
	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// session is one running operation. It is the content store the operation
// writes through: what goes through it is pinned, that is, safe from the
// collector until the session ends. By then the operation has recorded an image
// that refers to it, or it is garbage.
type session struct {
	content.Store
	s      *Store
	prefix string

	mu   sync.Mutex
	pins []string
	refs map[string]struct{} // ingests not committed yet
}

func (s *Store) begin() *session {
	s.held.Lock()
	defer s.held.Unlock()
	s.sessions++
	return &session{
		Store: s.blobs, s: s,
		prefix: fmt.Sprintf("session-%d-", s.sessions),
		refs:   map[string]struct{}{},
	}
}

// pin protects a blob (by digest) or a snapshot (by chain ID or key). It
// returns after a collection that runs has ended, so that "is it there?" asked
// afterwards has an answer that lasts.
func (c *session) pin(name string) {
	c.s.held.Lock()
	c.s.pins[name]++
	c.s.held.Unlock()
	c.mu.Lock()
	c.pins = append(c.pins, name)
	c.mu.Unlock()
}

// drop lets go of the pins.
func (c *session) drop() {
	c.mu.Lock()
	pins := c.pins
	c.pins = nil
	c.mu.Unlock()
	c.s.held.Lock()
	defer c.s.held.Unlock()
	for _, name := range pins {
		c.s.unpinLocked(name)
	}
}

func (s *Store) unpinLocked(name string) {
	if s.pins[name]--; s.pins[name] <= 0 {
		delete(s.pins, name)
	}
}

// end aborts what the session was still writing, drops its pins and collects
// the garbage. It runs to its end even when ctx is done.
func (c *session) end(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	c.mu.Lock()
	refs := c.refs
	c.refs = map[string]struct{}{}
	c.mu.Unlock()
	var errs []error
	for ref := range refs {
		if err := c.s.blobs.Abort(ctx, ref); err != nil && !cerrdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	c.drop()
	return errors.Join(append(errs, c.s.collect(ctx))...)
}

// finish ends the session for an operation that returns *err.
func (c *session) finish(ctx context.Context, err *error) {
	cleanup := c.end(ctx)
	switch {
	case cleanup == nil:
	case *err == nil:
		*err = fmt.Errorf("clean up: %w", cleanup)
	default:
		*err = fmt.Errorf("%w (cleaning up: %v)", *err, cleanup)
	}
}

// Writer implements [content.Ingester]. References are made the session's own,
// so that two sessions never continue each other's half-written blob.
func (c *session) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Desc.Digest != "" {
		c.pin(o.Desc.Digest.String())
	}
	ref := c.prefix + o.Ref
	w, err := c.Store.Writer(ctx, content.WithRef(ref), content.WithDescriptor(o.Desc))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.refs[ref] = struct{}{}
	c.mu.Unlock()
	return &sessionWriter{Writer: w, c: c, ref: ref}, nil
}

// Abort implements [content.IngestManager] for the session's own references.
func (c *session) Abort(ctx context.Context, ref string) error {
	return c.abort(ctx, c.prefix+ref)
}

func (c *session) abort(ctx context.Context, ref string) error {
	err := c.Store.Abort(context.WithoutCancel(ctx), ref)
	if err == nil || cerrdefs.IsNotFound(err) {
		c.mu.Lock()
		delete(c.refs, ref)
		c.mu.Unlock()
		return nil
	}
	return err
}

type sessionWriter struct {
	content.Writer
	c   *session
	ref string
}

func (w *sessionWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if expected == "" {
		expected = w.Digest()
	}
	w.c.pin(expected.String())
	err := w.Writer.Commit(ctx, size, expected, opts...)
	fault.Here(fault.BlobCommitted)
	if err == nil || cerrdefs.IsAlreadyExists(err) {
		w.c.mu.Lock()
		delete(w.c.refs, w.ref)
		w.c.mu.Unlock()
		return err
	}
	// The local store keeps the data of a failed commit under its reference,
	// where the next attempt would find it complete and wrong.
	if aerr := w.c.abort(ctx, w.ref); aerr != nil {
		return fmt.Errorf("%w (removing it: %v)", err, aerr)
	}
	return err
}

// keyedLocks are mutexes by name, so that two operations never fetch the same
// blob or unpack the same layer side by side.
type keyedLocks struct {
	mu    sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	held  chan struct{} // holds one token while locked
	users int
}

// lock waits for name and returns what gives it back.
func (k *keyedLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedLock{}
	}
	l := k.locks[name]
	if l == nil {
		l = &keyedLock{held: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()

	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
