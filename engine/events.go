package engine

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/berth-containers/berth/volume"
	"github.com/moby/moby/api/types/events"
)

// eventMemory is how many past events are kept in memory. Older ones are read
// from the store.
const eventMemory = 256

// eventQueue is how many events a slow subscriber may lag behind before it is
// dropped: no subscriber can hold up the engine.
const eventQueue = 1024

// eventLog hands events to subscribers and remembers the last ones.
type eventLog struct {
	mu     sync.Mutex
	store  *eventStore      // nil: the past is what is in memory
	past   []events.Message // oldest first, at most eventMemory
	subs   map[*subscriber]struct{}
	closed bool
}

// subscriber is one listener; its queue is closed when it is dropped.
type subscriber struct {
	match *eventFilter
	queue chan events.Message
}

func newEventLog() *eventLog { return &eventLog{subs: map[*subscriber]struct{}{}} }

// emit publishes one event.
func (l *eventLog) emit(kind events.Type, action events.Action, id string, attrs map[string]string) {
	now := time.Now()
	msg := events.Message{
		Type: kind, Action: action, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{ID: id, Attributes: attrs},
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.past) == eventMemory {
		l.past = append(l.past[:0], l.past[1:]...)
	}
	l.past = append(l.past, msg)
	if l.store != nil && !isProbe(attrs["execID"]) { // probes would crowd out the rest
		l.store.add(&msg)
	}
	for s := range l.subs {
		if !s.match.passes(&msg) {
			continue
		}
		select {
		case s.queue <- msg:
		default:
			l.drop(s)
		}
	}
}

// drop ends a subscription. The caller holds mu.
func (l *eventLog) drop(s *subscriber) {
	if _, there := l.subs[s]; there {
		delete(l.subs, s)
		close(s.queue)
	}
}

// subscribe returns the remembered events from since on, up to until, and the
// live ones after them, without a gap or an overlap.
func (l *eventLog) subscribe(match *eventFilter, since, until time.Time) ([]events.Message, *subscriber, error) {
	wanted := func(m *events.Message) bool {
		return m.TimeNano >= since.UnixNano() && (until.IsZero() || m.TimeNano <= until.UnixNano()) && match.passes(m)
	}
	past, old, s, err := l.join(match, since, wanted)
	if err != nil || old == nil {
		return past, s, err
	}
	defer old.close()
	err = old.each(func(m *events.Message) bool {
		if wanted(m) {
			past = append(past, *m)
		}
		return true
	})
	if err != nil {
		l.unsubscribe(s)
	}
	return past, s, err
}

// join makes a subscriber. The past is what is in memory if that is all, else it
// is to be read from what the store had at this moment.
func (l *eventLog) join(match *eventFilter, since time.Time, wanted func(*events.Message) bool) (past []events.Message, old *kept, s *subscriber, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case since.IsZero():
	case l.store != nil && (len(l.past) == 0 || l.past[0].TimeNano > since.UnixNano()):
		if old, err = l.store.snapshot(); err != nil {
			return nil, nil, nil, err
		}
	default:
		for i := range l.past {
			if wanted(&l.past[i]) {
				past = append(past, l.past[i])
			}
		}
	}
	s = &subscriber{match: match, queue: make(chan events.Message, eventQueue)}
	if l.closed {
		close(s.queue)
	} else {
		l.subs[s] = struct{}{}
	}
	return past, old, s, nil
}

func (l *eventLog) unsubscribe(s *subscriber) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(s)
}

func (l *eventLog) listeners() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subs)
}

// close ends all subscriptions.
func (l *eventLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for s := range l.subs {
		l.drop(s)
	}
	if l.store != nil {
		l.store.close()
		l.store = nil
	}
}

// Subscribe yields events that pass the filters: the remembered ones from
// since on (zero: none), those of earlier engines too, then live ones up to until (zero: without end). The
// channel is closed when until has passed, ctx ends, the engine closes, or the
// reader is more than a thousand events behind. Filters: container, daemon,
// event, image, label, network, scope, type.
func (e *Engine) Subscribe(ctx context.Context, f Filters, since, until time.Time) (<-chan events.Message, error) {
	match, err := newEventFilter(f)
	if err != nil {
		return nil, err
	}
	past, sub, err := e.events.subscribe(match, since, until)
	if err != nil {
		return nil, err
	}
	out := make(chan events.Message)
	e.wg.Go(func() {
		defer close(out)
		defer e.events.unsubscribe(sub)
		e.relay(ctx, past, sub, until, out)
	})
	return out, nil
}

// relay moves a subscription's events to its reader.
func (e *Engine) relay(ctx context.Context, past []events.Message, sub *subscriber, until time.Time, out chan<- events.Message) {
	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		end = timer.C
	}
	send := func(m events.Message) bool {
		if !until.IsZero() && m.TimeNano > until.UnixNano() {
			return false
		}
		select {
		case out <- m:
			return true
		case <-ctx.Done():
		case <-e.ctx.Done():
		}
		return false
	}
	for _, m := range past {
		if !send(m) {
			return
		}
	}
	for {
		select {
		case m, open := <-sub.queue:
			if !open || !send(m) {
				return
			}
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// emitContainer publishes an event of a container with Docker's attributes:
// its labels, image and name, and what the action adds.
func (e *Engine) emitContainer(r *record, action events.Action, extra map[string]string) {
	attrs := make(map[string]string, len(r.Config.Labels)+len(extra)+2)
	maps.Copy(attrs, r.Config.Labels)
	attrs["image"], attrs["name"] = r.Config.Image, r.Name
	maps.Copy(attrs, extra)
	e.events.emit(events.ContainerEventType, action, r.ID, attrs)
}

// emitImage publishes an event of an image; name is how it was called.
func (e *Engine) emitImage(action events.Action, id, name string) {
	attrs := map[string]string{}
	if name != "" {
		attrs["name"] = name
	}
	e.events.emit(events.ImageEventType, action, id, attrs)
}

// emitNetwork publishes a container's connection to or from a network.
func (e *Engine) emitNetwork(action events.Action, networkID, name, containerID string) {
	e.events.emit(events.NetworkEventType, action, networkID,
		map[string]string{"container": containerID, "name": name, "type": name})
}

// emitVolume publishes an event of a volume.
func (e *Engine) emitVolume(action events.Action, name string, attrs map[string]string) {
	if attrs == nil {
		attrs = map[string]string{}
	}
	attrs["driver"] = volume.DriverLocal
	e.events.emit(events.VolumeEventType, action, name, attrs)
}

// execAction is an exec event's action, which by Docker's custom carries the
// command.
func execAction(action events.Action, args []string) events.Action {
	text := string(action) + ":"
	for _, a := range args {
		text += " " + a
	}
	return events.Action(text)
}

func unknownFilter(name string) error {
	return invalidf("invalid filter '%s'", name)
}

func badFilterValue(name, value string, err error) error {
	return fmt.Errorf("invalid filter '%s=%s': %w", name, value, err)
}
