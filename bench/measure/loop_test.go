package measure

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestLoopTakesTurns(t *testing.T) {
	var order []int
	warm := 0
	err := Loop{Rounds: 40, WarmUp: 2}.Run(t.Context(), 3, func(_ context.Context, candidate int, counts bool) error {
		if counts {
			order = append(order, candidate)
		} else {
			warm++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if warm != 2*3 {
		t.Errorf("%d measurements to warm up, want 6", warm)
	}
	orders := map[[3]int]bool{}
	for round := range slices.Chunk(order, 3) {
		orders[[3]int(round)] = true
		if sorted := slices.Sorted(slices.Values(round)); !slices.Equal(sorted, []int{0, 1, 2}) {
			t.Errorf("a round has the candidates %v", round)
		}
	}
	if len(order) != 120 || len(orders) < 4 {
		t.Errorf("%d measurements in %d different orders, want 120 in at least 4", len(order), len(orders))
	}
}

func TestLoopEndsAtItsLimit(t *testing.T) {
	calls := 0
	err := Loop{Rounds: 1000, Limit: time.Nanosecond}.Run(t.Context(), 2, func(context.Context, int, bool) error {
		calls++
		return nil
	})
	if err != nil || calls != 2 {
		t.Errorf("%d calls, error %v; want the 2 of one round and none", calls, err)
	}
}

func TestLoopEndsOnError(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	err := Loop{Rounds: 5}.Run(t.Context(), 2, func(context.Context, int, bool) error {
		calls++
		return broken
	})
	if !errors.Is(err, broken) || calls != 1 {
		t.Errorf("%d calls, error %v; want 1 and %v", calls, err, broken)
	}
}

func TestLoopEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	err := Loop{Rounds: 5, Pause: time.Hour}.Run(ctx, 2, func(context.Context, int, bool) error { return nil })
	if !errors.Is(err, stopped) {
		t.Errorf("error %v, want %v", err, stopped)
	}
}
