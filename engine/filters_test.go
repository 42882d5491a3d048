package engine

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/events"
)

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func filter(pairs ...string) Filters {
	f := Filters{}
	for i := 0; i < len(pairs); i += 2 {
		if f[pairs[i]] == nil {
			f[pairs[i]] = map[string]bool{}
		}
		f[pairs[i]][pairs[i+1]] = true
	}
	return f
}

func TestFilterLabels(t *testing.T) {
	have := map[string]string{"a": "1", "b": ""}
	for _, tc := range []struct {
		f    Filters
		want bool
	}{
		{nil, true}, {filter("label", "a"), true}, {filter("label", "a=1"), true}, {filter("label", "a=2"), false},
		{filter("label", "a", "label", "b"), true}, {filter("label", "a", "label", "c"), false}, {filter("label", "b="), true},
		{filter("label!", "a"), false}, {filter("label!", "a=2"), true}, {filter("label!", "c"), true},
	} {
		if got := tc.f.labels(have); got != tc.want {
			t.Errorf("%v: %v", tc.f, got)
		}
	}
}

func TestFilterUntil(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for v, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "1970-01-02T00:00:00Z": time.Unix(86400, 0), "123.5": time.Unix(123, 5e8),
	} {
		if got, err := filter("until", v).until(now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", v, got, err)
		}
	}
	if _, err := filter("until", "soon").until(now); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("bad until: %v", err)
	}
}

func TestEventFilter(t *testing.T) {
	msg := &events.Message{Type: events.ContainerEventType, Action: "exec_start: sh -c x", Scope: "local",
		Actor: events.Actor{ID: "abcdef0123456789", Attributes: map[string]string{"name": "ship", "image": "busybox:latest", "color": "red"}}}
	for _, tc := range []struct {
		f    Filters
		want bool
	}{
		{nil, true},
		{filter("event", "exec_start"), true}, {filter("event", "exec_create"), false},
		{filter("container", "ship"), true}, {filter("container", "abcdef"), true}, {filter("container", "other"), false},
		{filter("type", "image"), false}, {filter("type", "container", "label", "color=red"), true}, {filter("label", "color=blue"), false},
		{filter("image", "busybox"), true}, {filter("image", "busybox:latest"), true}, {filter("image", "debian"), false},
		{filter("network", "bridge"), false},
	} {
		m, err := newEventFilter(tc.f)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.passes(msg); got != tc.want {
			t.Errorf("%v: %v", tc.f, got)
		}
	}
	if _, err := newEventFilter(filter("colour", "red")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestEventLogReplaysWithoutGap(t *testing.T) {
	l := newEventLog()
	for range eventMemory + 10 {
		l.emit(events.ContainerEventType, events.ActionStart, "x", nil)
	}
	match, _ := newEventFilter(nil)
	past, sub, err := l.subscribe(match, time.Unix(1, 0), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if len(past) != eventMemory {
		t.Errorf("%d past events", len(past))
	}
	l.emit(events.ContainerEventType, events.ActionDie, "y", nil)
	if m := <-sub.queue; m.Actor.ID != "y" {
		t.Errorf("live event %v", m)
	}
	for range eventQueue + 1 { // a subscriber that reads nothing is dropped, not waited for
		l.emit(events.ContainerEventType, events.ActionDie, "z", nil)
	}
	if l.listeners() != 0 {
		t.Error("a subscriber that lags is still there")
	}
}

func TestWithoutTag(t *testing.T) {
	for ref, want := range map[string]string{
		"busybox": "busybox", "busybox:1": "busybox", "host:5000/a/b": "host:5000/a/b", "host:5000/a:1": "host:5000/a", "a@sha256:00": "a",
	} {
		if got := withoutTag(ref); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}
