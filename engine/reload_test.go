package engine

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

// TestReload: what can change does, and Docker's event tells it.
func TestReload(t *testing.T) {
	te := newTestEngine(t)
	ch, err := te.Subscribe(t.Context(), filter("type", "daemon"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	te.Reload(Config{Labels: []string{"dock=seven"}, InsecureRegistries: []string{"quay.example:5000"}})
	got := <-ch
	if got.Type != events.DaemonEventType || got.Action != events.ActionReload || got.Actor.ID != te.id ||
		got.Actor.Attributes["labels"] != `["dock=seven"]` || got.Actor.Attributes["insecure-registries"] != `["quay.example:5000"]` {
		t.Errorf("event %+v", got)
	}
	info, err := te.Info(t.Context())
	if err != nil || len(info.Labels) != 1 || info.Labels[0] != "dock=seven" {
		t.Errorf("labels %v, %v", info.Labels, err)
	}
}
