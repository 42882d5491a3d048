package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

// storedLog is an event log with a store that keeps little.
func storedLog(t *testing.T, path string) *eventLog {
	t.Helper()
	l := newEventLog()
	var err error
	if l.store, err = openEventStore(path, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	l.store.limit = 64 << 10
	return l
}

// pastIDs are the ids of the remembered events.
func pastIDs(t *testing.T, l *eventLog, since, until time.Time) []string {
	t.Helper()
	match, err := newEventFilter(nil)
	if err != nil {
		t.Fatal(err)
	}
	past, s, err := l.subscribe(match, since, until)
	if err != nil {
		t.Fatal(err)
	}
	l.unsubscribe(s)
	var ids []string
	for _, m := range past {
		ids = append(ids, m.Actor.ID)
	}
	return ids
}

// TestEventStore remembers more than is in memory, after a restart too, and no
// more than it may.
func TestEventStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l := storedLog(t, path)
	begin := time.Now()
	for i := range 400 {
		l.emit(events.ContainerEventType, events.ActionStart, fmt.Sprint(i), nil)
	}
	l.emit(events.ContainerEventType, events.ActionExecDie, "probe", map[string]string{"execID": probePrefix + "1"})
	if ids := pastIDs(t, l, begin, time.Time{}); len(ids) != 400 || ids[0] != "0" || ids[399] != "399" {
		t.Errorf("%d events are remembered", len(ids))
	}
	l.close()
	// A crash leaves a piece of a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"Type":"container","Act`)
	f.Close()
	l = storedLog(t, path)
	middle := time.Now()
	l.emit(events.ContainerEventType, events.ActionStart, "after", nil)
	if ids := pastIDs(t, l, begin, time.Time{}); len(ids) != 401 || ids[400] != "after" {
		t.Errorf("after a restart %d events are remembered", len(ids))
	}
	if ids := pastIDs(t, l, begin, middle); len(ids) != 400 {
		t.Errorf("up to the restart %d events are remembered", len(ids))
	}
	if ids := pastIDs(t, l, middle, time.Time{}); len(ids) != 1 {
		t.Errorf("since the restart %d events are remembered", len(ids))
	}
	for i := range 2000 {
		l.emit(events.ContainerEventType, events.ActionStart, fmt.Sprint(i), nil)
	}
	ids := pastIDs(t, l, begin, time.Time{})
	if len(ids) < 400 || len(ids) > 2000 || ids[len(ids)-1] != "1999" {
		t.Errorf("of 2401 events %d are kept", len(ids))
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 2 {
		t.Errorf("%d files", len(entries))
	}
	l.close()
}

// TestEventStoreFails tells once that events are not kept, and goes on.
func TestEventStoreFails(t *testing.T) {
	l := newEventLog()
	var failures []error
	var err error
	l.store, err = openEventStore(filepath.Join(t.TempDir(), "events"), func(err error) { failures = append(failures, err) })
	if err != nil {
		t.Fatal(err)
	}
	l.store.file.Close()
	l.emit(events.ContainerEventType, events.ActionStart, "lost", nil)
	l.emit(events.ContainerEventType, events.ActionStart, "kept", nil)
	if len(failures) != 1 || !errors.Is(failures[0], os.ErrClosed) {
		t.Errorf("failures: %v", failures)
	}
	l.past = nil
	if ids := pastIDs(t, l, time.Unix(1, 0), time.Time{}); len(ids) != 1 || ids[0] != "kept" {
		t.Errorf("kept: %v", ids)
	}
	l.close()
}
