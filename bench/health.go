package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/berth-containers/berth/bench/report"
)

// healthPatience bounds the wait for one result of a health check. healthLook is
// the pause between two looks at them, which cost more than a probe.
const (
	healthPatience = 20 * time.Second
	healthLook     = 70 * time.Millisecond
)

// probed is a container of an engine with a health check at work.
type probed struct {
	*engine
	last time.Time // the end of the newest result seen
}

// timeEngineHealth measures what a health check's probe takes, by the engines'
// own clocks. Podman is left out: systemd's timers run its health checks.
func (b *bench) timeEngineHealth(ctx context.Context, engines []*engine) (err error) {
	progress("engines: health check")
	var all []*probed
	var names []string
	for _, e := range engines {
		if e.name == "podman" {
			continue
		}
		options := []string{"--detach", "--name", "probed", "--network", "none", "--health-cmd", "true", "--health-interval", "200ms"}
		if _, err := e.place.run(ctx, e.runArgv(options, "sleep", "1000")...); err != nil {
			return err
		}
		all, names = append(all, &probed{engine: e}), append(names, e.name)
	}
	ts := timings(report.Engines, "health check", report.Tight, names)
	err = b.loop(report.Tight, b.plan.engineRounds).Run(ctx, len(all), func(ctx context.Context, i int, counts bool) error {
		took, err := all[i].next(ctx)
		if err == nil && counts {
			ts[i].WallMS = append(ts[i].WallMS, rounded(took))
		}
		return err
	})
	for _, p := range all {
		err = errors.Join(err, p.remove(ctx, []string{"probed"}))
	}
	b.keep(ts)
	return err
}

// next waits for a result that has not been seen and returns how long the probe
// took.
func (p *probed) next(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	look := time.NewTicker(healthLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		res, err := p.place.run(ctx, p.argv("inspect", "--format", "{{json .State.Health.Log}}", "probed")...)
		if err != nil {
			return 0, err
		}
		var log []struct {
			Start, End time.Time
			ExitCode   int
		}
		if err := json.Unmarshal([]byte(res.Output), &log); err != nil {
			return 0, fmt.Errorf("%s: health check results: %w", p.name, err)
		}
		if n := len(log); n > 0 && log[n-1].End.After(p.last) {
			newest := log[n-1]
			p.last = newest.End
			if newest.ExitCode != 0 {
				return 0, fmt.Errorf("%s: a health check ended with exit code %d", p.name, newest.ExitCode)
			}
			return newest.End.Sub(newest.Start), nil
		}
	}
}
