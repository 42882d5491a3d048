package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/measure"
	"github.com/berth-containers/berth/bench/report"
	"github.com/berth-containers/berth/bench/spawn"
	"github.com/berth-containers/berth/bench/stage"
)

// bench is one run of the benchmarks.
type bench struct {
	*options
	plan    plan
	stage   stage.Stage
	layout  stage.Layout
	results *report.Results
}

// plan is how much is measured.
type plan struct {
	runtimeRounds, engineRounds int
	// limit ends a loop early, so that slow machines are done in time, too.
	limit time.Duration
	// pause is that of the paced loops.
	pause time.Duration
	// callers start runs containers each in every of the throughput's rounds.
	callers, runs, throughputRounds int
	// containers are left idle to see what an engine needs for one.
	containers int
	// settle is how long after the last start an engine's memory is looked at.
	settle time.Duration
	// upgrades of the keeper while a container is listened to.
	upgrades int
	// crowd containers of Berth, and peersCrowd of each peer, which are slower,
	// are started by scaleCallers at once.
	crowd, peersCrowd, scaleCallers int
	// pullRounds is how often a real image is pulled and loaded.
	pullRounds int
}

func (o *options) plan() plan {
	p := plan{
		runtimeRounds: 100, limit: 20 * time.Second, pause: 25 * time.Millisecond,
		callers: 8, runs: 25, throughputRounds: 3, containers: 50, settle: 5 * time.Second, upgrades: 10, pullRounds: 3,
		crowd: 1000, peersCrowd: 60, scaleCallers: 4,
	}
	if o.quick {
		p.runtimeRounds, p.limit, p.runs, p.containers, p.settle = 10, 3*time.Second, 6, 8, time.Second
		p.crowd, p.peersCrowd, p.pullRounds = 60, 10, 1
	}
	if o.rounds > 0 {
		p.runtimeRounds = o.rounds
	}
	p.engineRounds = max(3, p.runtimeRounds/4)
	return p
}

func newBench(o *options, st stage.Stage) (*bench, error) {
	layout, err := stage.FindLayout()
	if err != nil {
		return nil, err
	}
	machine, err := describeMachine(layout)
	if err != nil {
		return nil, err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	b := &bench{options: o, plan: o.plan(), stage: st, layout: layout, results: &report.Results{Machine: machine, Quick: o.quick}}
	if layout.Beside != "" {
		b.note("The host has cgroup v2 mounted beside the controllers on v1. crun refuses that when v2 has any controller, so it runs, with podman, "+
			"in a mount namespace without %s. The others see the host as it is.", layout.Beside)
	}
	return b, nil
}

func (b *bench) note(format string, args ...any) {
	b.results.Notes = append(b.results.Notes, fmt.Sprintf(format, args...))
}

// run runs the sections that are asked for.
func (b *bench) run(ctx context.Context) error {
	if b.does(sectionOCI) || b.does(sectionThroughput) {
		if err := b.compareRuntimes(ctx); err != nil {
			return fmt.Errorf("OCI runtimes: %w", err)
		}
	}
	if b.does(sectionEngine) || b.does(sectionMemory) || b.does(sectionUpgrade) || b.does(sectionScale) {
		if err := b.compareEngines(ctx); err != nil {
			return fmt.Errorf("engines: %w", err)
		}
	}
	if b.does(sectionPull) {
		if err := b.comparePulls(ctx); err != nil {
			return fmt.Errorf("pulls: %w", err)
		}
	}
	if b.does(sectionSnapshots) {
		if err := b.compareSnapshotters(ctx); err != nil {
			return fmt.Errorf("snapshotters: %w", err)
		}
	}
	return nil
}

// loop is one of the two ways of repeating a command.
func (b *bench) loop(name string, rounds int) measure.Loop {
	l := measure.Loop{Rounds: rounds, Limit: b.plan.limit, WarmUp: 2}
	if name == report.Paced {
		l.Pause = b.plan.pause
	}
	return l
}

// place is where a candidate's commands run.
type place struct {
	spawner *spawn.Spawner
	options spawn.Options
	account stage.Account
}

// newPlace starts a candidate's spawner; the caller closes it. withoutUnified
// takes cgroup v2 away where it is beside v1.
func (b *bench) newPlace(name string, withoutUnified bool) (*place, error) {
	account, err := b.stage.NewAccount(b.layout, name)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(b.stage.Work, "home", name)
	if err := os.MkdirAll(filepath.Join(home, "tmp"), 0o755); err != nil {
		return nil, err
	}
	o := spawn.Options{
		Binary: filepath.Join(b.stage.Work, "spawner"), Join: []string{account.Commands()}, Dir: home,
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + filepath.Join(home, "tmp")},
	}
	if withoutUnified {
		o.Unmount = b.layout.Beside
	}
	spawner, err := spawn.Start(o)
	if err != nil {
		return nil, err
	}
	return &place{spawner, o, account}, nil
}

func (p *place) run(ctx context.Context, argv ...string) (*spawn.Result, error) {
	return p.spawner.Run(ctx, argv...)
}

// runCounted also returns the processor time that the candidate's cgroup used
// meanwhile.
func (p *place) runCounted(ctx context.Context, argv ...string) (*spawn.Result, time.Duration, error) {
	before, err := p.account.Usage()
	if err != nil {
		return nil, 0, err
	}
	res, err := p.run(ctx, argv...)
	if err != nil {
		return nil, 0, err
	}
	after, err := p.account.Usage()
	return res, after - before, err
}

// close ends the spawner.
func (p *place) close() error { return p.spawner.Close() }

// record adds a command's figures, all but the processor time of its cgroup.
func record(t *report.Timing, res *spawn.Result) {
	t.WallMS = append(t.WallMS, rounded(res.Wall))
	t.UserMS = append(t.UserMS, rounded(res.User))
	t.SystemMS = append(t.SystemMS, rounded(res.System))
	t.PeakKiB = append(t.PeakKiB, float64(res.PeakKiB))
	t.Faults = append(t.Faults, float64(res.MinorFaults+res.MajorFaults))
	t.Switches = append(t.Switches, float64(res.Voluntary+res.Involuntary))
}

// rounded is a time in milliseconds, to the microsecond.
func rounded(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// awaitExit waits for the end of a process that need not be a child.
func awaitExit(ctx context.Context, pidfd int) error {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		// Context and process are looked at in turns, as no descriptor stands
		// for the former.
		n, err := unix.Poll(poll, 100)
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return os.NewSyscallError("poll", err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}
