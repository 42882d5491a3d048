package measure

import (
	"context"
	"math/rand/v2"
	"time"
)

// Loop takes the candidates' measurements in turns, so that what else happens
// on the machine meets all of them.
type Loop struct {
	// Rounds is how many measurements each candidate gives, at most.
	Rounds int
	// Limit ends the loop after the round in which it is reached; 0 for never.
	Limit time.Duration
	// Pause is between one measurement and the next.
	Pause time.Duration
	// WarmUp is the number of rounds before those that count.
	WarmUp int
}

// Run calls measure for each of n candidates in every round. In each round the
// order is another one, drawn from a generator with a fixed seed: what one
// candidate leaves to do to the kernel, such as taking a network namespace
// apart, then falls on all the others alike. The first error ends the loop.
func (l Loop) Run(ctx context.Context, n int, measure func(ctx context.Context, candidate int, counts bool) error) error {
	random := rand.New(rand.NewPCG(3, 4))
	began := time.Now()
	for round := -l.WarmUp; round < l.Rounds; round++ {
		if round > 0 && l.Limit > 0 && time.Since(began) >= l.Limit {
			return nil
		}
		for _, candidate := range random.Perm(n) {
			if err := measure(ctx, candidate, round >= 0); err != nil {
				return err
			}
			if err := pause(ctx, l.Pause); err != nil {
				return err
			}
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
