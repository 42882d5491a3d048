package engine

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/berth-containers/berth/errdefs"
)

func TestReserveIsAtomic(t *testing.T) {
	r := newRoster()
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 20 {
		wg.Go(func() {
			if _, err := r.reserve("anchor", newID()); err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			} else if !errors.Is(err, errdefs.ErrConflict) || errdefs.Hint(err) == "" {
				t.Errorf("error %v", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d got the name", won)
	}
}

func TestReserveRefusesBadNames(t *testing.T) {
	r := newRoster()
	for _, bad := range []string{"a", "-x", "a b", "../x", "x/y", ".x", "ü1"} {
		if _, err := r.reserve(bad, newID()); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if name, err := r.reserve("/with-slash.1", newID()); err != nil || name != "with-slash.1" {
		t.Errorf("%q, %v", name, err)
	}
}

func TestGeneratedNames(t *testing.T) {
	seen := map[string]bool{}
	r := newRoster()
	for range 500 {
		name, err := r.reserve("", newID())
		if err != nil || seen[name] || !nameRule.MatchString(name) {
			t.Fatalf("name %q, %v, seen %v", name, err, seen[name])
		}
		if !strings.Contains(name, "_") && len(name) != 12 {
			t.Errorf("name %q is neither adjective_noun nor an id", name)
		}
		seen[name] = true
	}
}

func TestGetByNameIDAndPrefix(t *testing.T) {
	r := newRoster()
	for _, c := range []struct{ id, name string }{
		{"aaaa11" + strings.Repeat("0", 58), "first"}, {"aaaa22" + strings.Repeat("0", 58), "aaaa2"},
	} {
		if _, err := r.reserve(c.name, c.id); err != nil {
			t.Fatal(err)
		}
		r.add(newCtr(t.TempDir(), &record{ID: c.id, Name: c.name}))
	}
	for ref, want := range map[string]string{"first": "aaaa11", "/first": "aaaa11", "aaaa1": "aaaa11", "aaaa2": "aaaa22", "aaaa22": "aaaa22"} {
		if c, err := r.get(ref); err != nil || !strings.HasPrefix(c.id, want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := r.get("aaaa"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("ambiguous prefix: %v", err)
	}
	if _, err := r.get("bbbb"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
}

func TestIDsAreNoNumbers(t *testing.T) {
	for range 1000 {
		if id := newID(); len(id) != 64 || !strings.ContainsAny(id[:12], "abcdef") {
			t.Fatalf("id %s", id)
		}
	}
}

func TestTransitions(t *testing.T) {
	all := []state{stateCreating, stateCreated, stateStarting, stateRunning, statePaused, stateRestarting, stateExited, stateRemoving, stateDead}
	for _, from := range all {
		if len(transitions[from]) == 0 {
			t.Errorf("%s leads nowhere", from)
		}
		for _, to := range transitions[from] {
			if from == to {
				t.Errorf("%s leads to itself", from)
			}
		}
	}
	for _, bad := range [][2]state{{stateCreated, stateRunning}, {stateRemoving, stateRunning}, {stateExited, statePaused}, {stateRunning, stateRemoving}} {
		if allowed(bad[0], bad[1]) {
			t.Errorf("%s to %s is allowed", bad[0], bad[1])
		}
	}
}

func TestUpdateRefusesBadTransitions(t *testing.T) {
	root := t.TempDir()
	rec := &record{ID: newID(), State: lifeState{Status: stateExited}}
	c := newCtr(root, rec)
	mkdir(t, c.dir)
	if err := c.update(func(r *record) { r.State.Status = statePaused }); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("exited to paused: %v", err)
	}
	if c.rec.State.Status != stateExited {
		t.Error("a refused change was made")
	}
	if err := c.update(func(r *record) { r.State.Status = stateStarting }); err != nil {
		t.Fatal(err)
	}
}
