package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
)

// OperationTable has what the engine does at somebody's behest: each request is one
// from its beginning to its end. It is there to be asked what is under way, for
// how long and what it waits for, and to end what nobody wants any more. The
// zero value is ready.
type OperationTable struct {
	mu      sync.Mutex
	last    uint64
	running map[uint64]*Operation
}

// Operation is one of them. Its methods do nothing on nil: work that nobody
// asked for is none.
type Operation struct {
	id           uint64
	kind, object string
	since        time.Time
	// own ends when the operation is cancelled by name, and not when the client
	// hangs up.
	own    context.Context
	cancel context.CancelCauseFunc
	// inner is what the work waits for, client what the answer does.
	inner, client atomic.Pointer[wait]
}

// wait is what an operation waits for.
type wait struct {
	text  func() string
	since time.Time
	until time.Time // zero: no end is set
}

// OperationInfo describes a running operation.
type OperationInfo struct {
	ID string
	// Kind is what is done, "container stop" say, Object to what, as the client
	// named it.
	Kind, Object string
	Since        time.Time
	// WaitingFor is "" while it works. WaitingSince is when that began,
	// WaitingUntil when it ends at the latest, zero when nothing is set.
	WaitingFor   string    `json:",omitempty"`
	WaitingSince time.Time `json:",omitzero"`
	WaitingUntil time.Time `json:",omitzero"`
	// Cancelled says that it has been told to end.
	Cancelled bool `json:",omitempty"`
}

type operationKey struct{}

// Begin begins an operation. The context it returns ends with ctx and when the
// operation is cancelled. The caller calls end.
func (o *OperationTable) Begin(ctx context.Context, kind, object string) (_ context.Context, op *Operation, end func()) {
	op = &Operation{kind: kind, object: object, since: time.Now()}
	ctx = context.WithValue(ctx, operationKey{}, op)
	op.own, op.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(op.own, func() { cancel(context.Cause(op.own)) })
	o.mu.Lock()
	o.last++
	op.id = o.last
	if o.running == nil {
		o.running = map[uint64]*Operation{}
	}
	o.running[op.id] = op
	o.mu.Unlock()
	return ctx, op, func() {
		stop()
		cancel(nil)
		op.cancel(nil)
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.running, op.id)
	}
}

// List describes what is under way, the oldest first.
func (o *OperationTable) List() []OperationInfo {
	o.mu.Lock()
	ops := make([]*Operation, 0, len(o.running))
	for _, op := range o.running {
		ops = append(ops, op)
	}
	o.mu.Unlock()
	slices.SortFunc(ops, func(a, b *Operation) int { return int(a.id) - int(b.id) })
	list := make([]OperationInfo, 0, len(ops))
	for _, op := range ops {
		list = append(list, op.info())
	}
	return list
}

// Cancel ends an operation: it gives up what it waits for and undoes what it
// has not finished. What cannot be undone, a signal that was sent, stays.
func (o *OperationTable) Cancel(id string) error {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return invalidf("operation id %q is not a number", id)
	}
	o.mu.Lock()
	op := o.running[n]
	o.mu.Unlock()
	if op == nil {
		return errdefs.WithHint(errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such operation: %s", id)),
			"berth system ops lists what is under way")
	}
	op.cancel(&cancelledError{op})
	return nil
}

// cancelledError is the end of an operation that somebody cancelled.
type cancelledError struct{ op *Operation }

func (e *cancelledError) Error() string {
	return fmt.Sprintf("%s %s: cancelled as operation %d", e.op.kind, e.op.object, e.op.id)
}

func (e *cancelledError) Unwrap() error { return errdefs.ErrConflict }

// Cancelled is why the operation was told to end, nil when it was not.
func (op *Operation) Cancelled() error {
	if op == nil || op.own.Err() == nil {
		return nil
	}
	return context.Cause(op.own)
}

// OnCancel calls f when the operation is cancelled, until stop is called.
func (op *Operation) OnCancel(f func()) (stop func() bool) { return context.AfterFunc(op.own, f) }

// AwaitsClient notes that the operation waits for its client: to read the
// answer, to send its data. done notes that it does not any more.
func (op *Operation) AwaitsClient(what string) (done func()) {
	if op == nil {
		return func() {}
	}
	op.client.Store(&wait{text: func() string { return what }, since: time.Now()})
	return func() { op.client.Store(nil) }
}

func (op *Operation) info() OperationInfo {
	i := OperationInfo{
		ID: strconv.FormatUint(op.id, 10), Kind: op.kind, Object: op.object, Since: op.since,
		Cancelled: op.own.Err() != nil,
	}
	w := op.inner.Load()
	if w == nil {
		w = op.client.Load()
	}
	if w != nil {
		i.WaitingFor, i.WaitingSince, i.WaitingUntil = w.text(), w.since, w.until
	}
	return i
}

// text is how the operation is named where another waits for it.
func (op *Operation) text() string {
	if op == nil {
		return "the engine's own work on it"
	}
	return fmt.Sprintf("%s (operation %d)", op.kind, op.id)
}

// operationOf is the operation that ctx belongs to, or nil.
func operationOf(ctx context.Context) *Operation {
	op, _ := ctx.Value(operationKey{}).(*Operation)
	return op
}

// detach is the context of an act that goes on when its client hangs up. It
// ends only when the operation is cancelled by name.
func detach(ctx context.Context) context.Context {
	if op := operationOf(ctx); op != nil {
		return op.own
	}
	return context.WithoutCancel(ctx)
}

// awaits notes what the operation of ctx waits for, until done is called.
func awaits(ctx context.Context, until time.Time, text func() string) (done func()) {
	op := operationOf(ctx)
	if op == nil {
		return func() {}
	}
	before := op.inner.Swap(&wait{text: text, since: time.Now(), until: until})
	return func() { op.inner.Store(before) }
}

// awaitsText is awaits for a text that does not change.
func awaitsText(ctx context.Context, until time.Time, text string) (done func()) {
	return awaits(ctx, until, func() string { return text })
}

// reporting passes a transfer's progress on, and has the operation of ctx say
// how far it is.
func reporting(ctx context.Context, progress func(ProgressEvent)) func(ProgressEvent) {
	op := operationOf(ctx)
	if op == nil {
		return progress
	}
	return func(e ProgressEvent) {
		op.inner.Store(&wait{text: func() string { return progressText(&e) }, since: time.Now()})
		if progress != nil {
			progress(e)
		}
	}
}

// progressText is a step of a transfer in words: "abc123: Downloading, 12MB of 40MB".
func progressText(e *ProgressEvent) string {
	text := e.Status
	if e.ID != "" {
		text = e.ID + ": " + text
	}
	if e.Total > 0 {
		text += fmt.Sprintf(", %s of %s", units.HumanSize(float64(e.Current)), units.HumanSize(float64(e.Total)))
	}
	return text
}
