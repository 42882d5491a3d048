package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/report"
	"github.com/berth-containers/berth/bench/stage"
)

// engine is a candidate: a client, and daemons where it has some.
type engine struct {
	*place
	name string
	// client is the program with the options for all its commands.
	client []string
	// run are options of its run command that make it comparable.
	run []string
	// image is the name of the image by which the engine finds it.
	image string
	// services are its daemons' command lines, in the order they are started.
	services [][]string
	running  []*daemon
}

func (e *engine) argv(args ...string) []string {
	return append(e.client[:len(e.client):len(e.client)], args...)
}

// runArgv runs args in a new container.
func (e *engine) runArgv(options []string, args ...string) []string {
	argv := append(e.argv("run"), e.run...)
	return append(append(append(argv, options...), e.image), args...)
}

// compareEngines measures berth and its peers.
func (b *bench) compareEngines(ctx context.Context) (err error) {
	engines, err := b.openEngines(ctx)
	defer func() { err = errors.Join(err, closeEngines(engines)) }()
	if err != nil {
		return err
	}
	if b.does(sectionEngine) {
		if err := b.timeEngines(ctx, engines); err != nil {
			return err
		}
	}
	if b.does(sectionUpgrade) {
		if err := b.measureUpgrades(ctx, engines[0]); err != nil {
			return fmt.Errorf("upgrades: %w", err)
		}
	}
	if b.does(sectionMemory) {
		for _, e := range engines {
			if err := b.weigh(ctx, e); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	if b.does(sectionScale) {
		for _, e := range engines {
			if err := b.crowd(ctx, e); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	return nil
}

// openEngines describes all engines and gives those that are there the image.
// The daemons do not run afterwards. The caller closes the engines also after
// an error.
func (b *bench) openEngines(ctx context.Context) ([]*engine, error) {
	var engines []*engine
	for _, open := range []func(context.Context) (*engine, error){b.openBerth, b.openPodman, b.openDocker} {
		e, err := open(ctx)
		if err != nil {
			return engines, err
		}
		if e == nil {
			continue
		}
		progress("%s: importing the image", e.name)
		engines = append(engines, e)
		if err := b.importImage(ctx, e); err != nil {
			return engines, err
		}
	}
	return engines, nil
}

func (b *bench) importImage(ctx context.Context, e *engine) error {
	if err := b.startServices(ctx, e); err != nil {
		return err
	}
	_, err := e.place.run(ctx, e.argv("import", filepath.Join(b.stage.Work, "busybox.tar"), e.image)...)
	return errors.Join(err, e.stopServices())
}

func closeEngines(engines []*engine) error {
	var errs []error
	for _, e := range engines {
		errs = append(errs, e.stopServices(), e.close())
	}
	return errors.Join(errs...)
}

func (b *bench) startServices(ctx context.Context, e *engine) error {
	for _, argv := range e.services {
		d, err := startDaemon(ctx, e.options, b.stage.Work, filepath.Base(argv[0]), argv)
		if err != nil {
			return err
		}
		e.running = append(e.running, d)
	}
	return nil
}

// stopServices stops the daemons, the last one first.
func (e *engine) stopServices() error {
	var errs []error
	for len(e.running) > 0 {
		last := len(e.running) - 1
		errs = append(errs, e.running[last].stop())
		e.running = e.running[:last]
	}
	return errors.Join(errs...)
}

// describe adds an engine's programs, given by name and path, to the results.
// The first is the engine itself; it is missing when any of them is.
func (b *bench) describe(ctx context.Context, programs ...peer) (present bool) {
	kind := report.Engines
	present = true
	first := len(b.results.Programs)
	for _, p := range programs {
		program := describeProgram(ctx, kind, p.name, p.path)
		kind = ""
		b.results.Programs = append(b.results.Programs, program)
		if program.Missing != "" {
			present = false
			b.results.Programs[first].Missing = p.name + " " + program.Missing
		}
	}
	return present
}

func (b *bench) openBerth(ctx context.Context) (*engine, error) {
	client, daemon := filepath.Join(b.bin, "berth"), filepath.Join(b.bin, "berthd")
	if !b.describe(ctx, peer{report.BerthEngine, client}, peer{"berthd", daemon}) {
		return nil, fmt.Errorf("%s is incomplete: make build makes what belongs there", b.bin)
	}
	place, err := b.newPlace(report.BerthEngine, false)
	if err != nil {
		return nil, err
	}
	return &engine{
		place: place, name: report.BerthEngine, client: []string{client}, image: "busybox",
		services: [][]string{{
			daemon, "--config", "/dev/null", "--state-root", filepath.Join(b.stage.Work, "berth"), "--cgroup-parent", place.account.Containers(),
		}},
	}, nil
}

func (b *bench) openPodman(ctx context.Context) (*engine, error) {
	client := find("podman")
	runtime := find("crun")
	if runtime == "" {
		runtime = find("runc")
	}
	if !b.describe(ctx, peer{"podman", client}, peer{"conmon", find("conmon")}, peer{"netavark", find("/usr/lib/podman/netavark")}) {
		return nil, nil
	}
	place, err := b.newPlace("podman", true)
	if err != nil {
		return nil, err
	}
	if err := trustAll(); err != nil {
		return nil, err
	}
	e := &engine{
		place: place, name: "podman", image: "localhost/busybox",
		client: []string{
			client, "--root", filepath.Join(b.stage.Work, "podman"), "--runtime", runtime, "--cgroup-manager", "cgroupfs", "--events-backend", "file",
		},
		run: []string{"--cgroup-parent", place.account.Containers(), "--log-driver", "k8s-file"},
	}
	limits, err := ownLimits()
	if err != nil {
		return nil, err
	}
	if limits != nil {
		e.run = append(e.run, limits...)
		b.note("The benchmark runs without CAP_SYS_RESOURCE. podman fails without it unless it is told which limits to use: %s.", strings.Join(limits, " "))
	}
	return e, nil
}

// trustAll lets podman take images that are not signed, where the host has no
// policy. It is called where /etc is our own.
func trustAll() error {
	const path = "/etc/containers/policy.json"
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644)
}

// ownLimits are podman's options for the resource limits this process has, when
// it may not raise them; nil when it may.
func ownLimits() ([]string, error) {
	const sysResource = 24 // capabilities(7)
	effective, err := strconv.ParseUint(field("/proc/self/status", "CapEff", ":"), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	if effective&(1<<sysResource) != 0 {
		return nil, nil
	}
	var options []string
	for _, l := range []struct {
		name     string
		resource int
	}{{"nofile", unix.RLIMIT_NOFILE}, {"nproc", unix.RLIMIT_NPROC}} {
		var limit unix.Rlimit
		if err := unix.Getrlimit(l.resource, &limit); err != nil {
			return nil, os.NewSyscallError("getrlimit", err)
		}
		options = append(options, "--ulimit", fmt.Sprintf("%s=%d:%d", l.name, int64(limit.Max), int64(limit.Max)))
	}
	return options, nil
}

func (b *bench) openDocker(ctx context.Context) (*engine, error) {
	client, daemon, containerd := find("docker"), find("dockerd"), find("containerd")
	shim := find("containerd-shim-runc-v2")
	if !b.describe(ctx, peer{"docker", client}, peer{"dockerd", daemon}, peer{"containerd", containerd}, peer{"containerd-shim-runc-v2", shim}) {
		return nil, nil
	}
	place, err := b.newPlace("docker", false)
	if err != nil {
		return nil, err
	}
	// The host's own configuration is not to matter.
	config := filepath.Join(b.stage.Work, "dockerd.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return nil, err
	}
	return &engine{
		place: place, name: "docker", client: []string{client}, image: "busybox",
		services: [][]string{
			{containerd, "--config", "/dev/null", "--root", filepath.Join(b.stage.Work, "containerd")},
			{
				daemon, "--config-file", config, "--data-root", filepath.Join(b.stage.Work, "docker"), "--containerd", "/run/containerd/containerd.sock",
				"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", place.account.Containers(),
			},
		},
	}, nil
}

// timeEngines measures all engines' commands in turns, with all daemons running.
func (b *bench) timeEngines(ctx context.Context, engines []*engine) (err error) {
	for _, e := range engines {
		if err := b.startServices(ctx, e); err != nil {
			return err
		}
	}
	for _, network := range []string{"none", "host", "bridge"} {
		err := b.timeEngine(ctx, engines, "run --rm --network "+network, func(e *engine) []string {
			return e.runArgv([]string{"--rm", "--network", network}, "true")
		})
		if err != nil {
			return err
		}
	}
	if err := b.timeEngineExec(ctx, engines); err != nil {
		return err
	}
	if err := b.timeEngineHealth(ctx, engines); err != nil {
		return err
	}
	err = b.timeEngine(ctx, engines, "version", func(e *engine) []string { return e.argv("version") })
	for _, e := range engines {
		err = errors.Join(err, e.stopServices())
	}
	return err
}

func (b *bench) timeEngineExec(ctx context.Context, engines []*engine) (err error) {
	for _, e := range engines {
		if _, err := e.place.run(ctx, e.runArgv([]string{"--detach", "--name", "idle", "--network", "none"}, "sleep", "1000")...); err != nil {
			return err
		}
	}
	err = b.timeEngine(ctx, engines, "exec", func(e *engine) []string { return e.argv("exec", "idle", "true") })
	for _, e := range engines {
		err = errors.Join(err, e.remove(ctx, []string{"idle"}))
	}
	return err
}

// remove ends containers and removes them.
func (e *engine) remove(ctx context.Context, containers []string) error {
	// Telling sleep to end would take ten seconds: it has no handler for SIGTERM.
	if _, err := e.place.run(ctx, e.argv(append([]string{"kill"}, containers...)...)...); err != nil {
		return err
	}
	_, err := e.place.run(ctx, e.argv(append([]string{"rm", "--force"}, containers...)...)...)
	return err
}

// timeEngine measures one command in both loops.
func (b *bench) timeEngine(ctx context.Context, engines []*engine, title string, argv func(*engine) []string) error {
	progress("engines: %s", title)
	var candidates []string
	for _, e := range engines {
		candidates = append(candidates, e.name)
	}
	for _, loop := range []string{report.Tight, report.Paced} {
		ts := timings(report.Engines, title, loop, candidates)
		begins := make([]time.Duration, len(engines))
		err := b.loop(loop, b.plan.engineRounds).Run(ctx, len(engines), func(ctx context.Context, i int, counts bool) (err error) {
			e := engines[i]
			if counts && len(ts[i].WallMS) == 0 {
				if begins[i], err = e.account.Usage(); err != nil {
					return err
				}
			}
			res, err := e.place.run(ctx, argv(e)...)
			if err == nil && counts {
				record(ts[i], res)
			}
			return err
		})
		if err != nil {
			return err
		}
		for i, e := range engines {
			if err := meanUsage(ts[i], e.account, begins[i]); err != nil {
				return err
			}
		}
		b.keep(ts)
	}
	return nil
}

// meanUsage notes the processor time since the account stood at begin, per
// command: what daemons and helpers do when the client has left belongs to it.
func meanUsage(t *report.Timing, a stage.Account, begin time.Duration) error {
	end, err := a.Usage()
	if err != nil || len(t.WallMS) == 0 {
		return err
	}
	t.CPUMS = []float64{rounded((end - begin) / time.Duration(len(t.WallMS)))}
	return nil
}
