package main

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-containers/berth/bench/measure"
	"github.com/berth-containers/berth/bench/report"
)

// countThroughput measures how many containers each runtime runs to their end
// per second when several callers do so at the same time.
func (b *bench) countThroughput(ctx context.Context, runtimes []*ociRuntime) error {
	progress("OCI runtimes: throughput with %d callers", b.plan.callers)
	found := make([]report.Throughput, len(runtimes))
	loop := measure.Loop{Rounds: b.plan.throughputRounds, Limit: b.plan.limit}
	err := loop.Run(ctx, len(runtimes), func(ctx context.Context, i int, _ bool) error {
		r, t := runtimes[i], &found[i]
		t.Candidate, t.Callers = r.name, b.plan.callers
		before, err := r.account.Usage()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := b.runAtOnce(ctx, r); err != nil {
			return err
		}
		elapsed := time.Since(began)
		after, err := r.account.Usage()
		containers := b.plan.callers * b.plan.runs
		t.PerSecond = append(t.PerSecond, float64(containers)/elapsed.Seconds())
		t.CPUMS = append(t.CPUMS, rounded((after-before)/time.Duration(containers)))
		return err
	})
	b.results.Throughput = found
	return err
}

// runAtOnce lets every caller run its containers one after the other.
func (b *bench) runAtOnce(ctx context.Context, r *ociRuntime) error {
	group, ctx := errgroup.WithContext(ctx)
	for caller := range b.plan.callers {
		name := strconv.Itoa(caller)
		argv := r.argv("run", "--bundle", b.bundle(r, name), "c"+name)
		group.Go(func() error {
			for range b.plan.runs {
				if _, err := r.run(ctx, argv...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
