package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/berth-containers/berth/bench/measure"
	"github.com/berth-containers/berth/bench/report"
)

// scaleOptions are the limits of each of the many containers; their logs are
// each engine's default, JSON files or what podman writes in their place.
var scaleOptions = []string{"--detach", "--network", "none", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "64"}

// scaleLists is how often the containers are listed.
const scaleLists = 9

// crowd starts many containers and measures how fast, how long it takes to list
// them, and what the engine's own processes occupy.
func (b *bench) crowd(ctx context.Context, e *engine) (err error) {
	s := report.Scale{Candidate: e.name, Containers: b.plan.crowd, Callers: b.plan.scaleCallers}
	if e.name != report.BerthEngine {
		s.Containers = b.plan.peersCrowd
	}
	progress("%s: %d idle containers", e.name, s.Containers)
	if err := b.startServices(ctx, e); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopServices()) }()
	if _, err := e.place.run(ctx, e.runArgv([]string{"--rm", "--network", "none"}, "true")...); err != nil {
		return err
	}
	// The shell takes the number and the caller's command line as its arguments.
	script := fmt.Sprintf(`seq %d | xargs -P %d -I N "$@" >/dev/null`, s.Containers, s.Callers)
	argv := append([]string{"/bin/sh", "-c", script, "crowd"},
		e.runArgv(append(scaleOptions[:len(scaleOptions):len(scaleOptions)], "--name", "crowdN"), "sleep", "1000000")...)
	res, cpu, err := e.place.runCounted(ctx, argv...)
	if err != nil {
		return err
	}
	s.PerSecond = float64(s.Containers) / res.Wall.Seconds()
	s.CPUMS = rounded(cpu / time.Duration(s.Containers))
	if err := e.countRunning(ctx, s.Containers); err != nil {
		return err
	}
	var lists []float64
	for range scaleLists {
		res, err := e.place.run(ctx, e.argv("ps")...)
		if err != nil {
			return err
		}
		lists = append(lists, rounded(res.Wall))
	}
	s.ListMS = measure.Median(lists)
	if s.KiB, err = b.settled(ctx, e.place); err != nil {
		return err
	}
	b.results.Scale = append(b.results.Scale, s)
	names := make([]string, s.Containers)
	for i := range names {
		names[i] = "crowd" + strconv.Itoa(i+1)
	}
	return e.remove(ctx, names)
}

// countRunning fails unless so many containers run.
func (e *engine) countRunning(ctx context.Context, want int) error {
	res, err := e.place.run(ctx, append([]string{"/bin/sh", "-c", `"$@" | wc -l`, "count"}, e.argv("ps", "--quiet")...)...)
	if err != nil {
		return err
	}
	if got := lastWord(res.Output); got != strconv.Itoa(want) {
		return fmt.Errorf("%s containers run, %d were started", got, want)
	}
	return nil
}
