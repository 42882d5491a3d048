package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/bundle"
	"github.com/berth-containers/berth/bench/report"
)

// process is the name of the candidate that makes no container.
const process = "a process"

// ociRuntime is a candidate.
type ociRuntime struct {
	*place
	name string
	// command is the program with the options for all its commands.
	command []string
}

func (r *ociRuntime) argv(args ...string) []string {
	return append(r.command[:len(r.command):len(r.command)], args...)
}

// kinds are the specifications compared.
func kinds() []bundle.Kind {
	return []bundle.Kind{bundle.Default(), bundle.HostNetwork(), bundle.Docker()}
}

// compareRuntimes measures berth-oci and its peers.
func (b *bench) compareRuntimes(ctx context.Context) (err error) {
	runtimes, err := b.openRuntimes(ctx)
	defer func() { err = errors.Join(err, closeRuntimes(runtimes)) }()
	if err != nil {
		return err
	}
	if b.does(sectionOCI) {
		k, err := b.openKeeper(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.close()) }()
		for _, kind := range kinds() {
			if err := b.timeRun(ctx, runtimes, k, kind); err != nil {
				return err
			}
		}
		for _, kind := range []bundle.Kind{bundle.Default(), bundle.Docker()} {
			if err := b.timeLife(ctx, runtimes, kind); err != nil {
				return err
			}
		}
		if err := b.timeExec(ctx, runtimes); err != nil {
			return err
		}
	}
	if b.does(sectionThroughput) {
		return b.countThroughput(ctx, runtimes)
	}
	return nil
}

// openRuntimes describes all candidates and makes those that are there ready.
// The caller closes the runtimes also after an error.
func (b *bench) openRuntimes(ctx context.Context) ([]*ociRuntime, error) {
	all := append([]peer{{report.BerthRuntime, filepath.Join(b.bin, "berth-oci")}, {"crun", find("crun")}, {"runc", find("runc")}, {newestRunc, b.newest()}}, b.peers...)
	var runtimes []*ociRuntime
	for _, p := range all {
		program := describeProgram(ctx, report.Runtimes, p.name, p.path)
		b.results.Programs = append(b.results.Programs, program)
		if program.Missing != "" {
			continue
		}
		place, err := b.newPlace(p.name, strings.HasPrefix(p.name, "crun"))
		if err != nil {
			return runtimes, err
		}
		state := filepath.Join("/run", "state", p.name)
		if err := os.MkdirAll(state, 0o711); err != nil {
			return runtimes, errors.Join(err, place.close())
		}
		r := &ociRuntime{place, p.name, []string{p.path, "--root", state}}
		runtimes = append(runtimes, r)
		if err := b.writeBundles(r); err != nil {
			return runtimes, err
		}
	}
	return runtimes, nil
}

func closeRuntimes(runtimes []*ociRuntime) error {
	var errs []error
	for _, r := range runtimes {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// writeBundles makes a bundle of each kind, one that stays, and one for every
// caller of the throughput's measurement: each has a cgroup of its own.
func (b *bench) writeBundles(r *ociRuntime) error {
	write := func(k bundle.Kind, name string, args ...string) error {
		group := filepath.Join(r.account.Containers(), name)
		return k.Write(b.bundle(r, name), filepath.Join(b.stage.Work, "rootfs"), group, b.layout.Unified, args...)
	}
	for _, k := range kinds() {
		if err := write(k, k.Name, "/bin/true"); err != nil {
			return err
		}
	}
	if err := write(bundle.Default(), "idle", "/bin/sleep", "1000"); err != nil {
		return err
	}
	for caller := range b.plan.callers {
		if err := write(bundle.Default(), strconv.Itoa(caller), "/bin/true"); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) bundle(r *ociRuntime, name string) string {
	return filepath.Join(b.stage.Work, "bundles", r.name, name)
}

// timings makes a Timing for each candidate.
func timings(kind, name, loop string, candidates []string) []*report.Timing {
	var ts []*report.Timing
	for _, c := range candidates {
		ts = append(ts, &report.Timing{Kind: kind, Case: name, Loop: loop, Candidate: c})
	}
	return ts
}

func (b *bench) keep(ts []*report.Timing) {
	for _, t := range ts {
		b.results.Timings = append(b.results.Timings, *t)
	}
}

func names(runtimes []*ociRuntime) []string {
	var list []string
	for _, r := range runtimes {
		list = append(list, r.name)
	}
	return list
}

// timeCounted runs a command and records it.
func timeCounted(ctx context.Context, p *place, t *report.Timing, counts bool, argv ...string) error {
	res, cpu, err := p.runCounted(ctx, argv...)
	if err != nil || !counts {
		return err
	}
	record(t, res)
	t.CPUMS = append(t.CPUMS, rounded(cpu))
	return nil
}

// timeRun measures "run" of a container that ends at once, beside the keeper's
// part of that and a process without any container.
func (b *bench) timeRun(ctx context.Context, runtimes []*ociRuntime, k *keeperCandidate, kind bundle.Kind) error {
	title := "run, " + kind.Title
	progress("OCI runtimes: %s", title)
	bare, err := b.newPlace("process", false)
	if err != nil {
		return err
	}
	for _, loop := range []string{report.Tight, report.Paced} {
		ts := timings(report.Runtimes, title, loop, append(names(runtimes), report.BerthKeeper, process))
		err = b.loop(loop, b.plan.runtimeRounds).Run(ctx, len(ts), func(ctx context.Context, i int, counts bool) error {
			switch i {
			case len(runtimes):
				return k.run(ctx, ts[i], kind.Name, counts)
			case len(runtimes) + 1:
				return timeCounted(ctx, bare, ts[i], counts, filepath.Join(b.stage.Work, "rootfs/bin/true"))
			}
			r := runtimes[i]
			return timeCounted(ctx, r.place, ts[i], counts, r.argv("run", "--bundle", b.bundle(r, kind.Name), "c")...)
		})
		if err != nil {
			break
		}
		b.keep(ts)
	}
	return errors.Join(err, bare.close())
}

// timeLife measures create, start and delete.
func (b *bench) timeLife(ctx context.Context, runtimes []*ociRuntime, kind bundle.Kind) error {
	progress("OCI runtimes: create, start, delete, %s", kind.Title)
	steps := []string{"create", "start", "delete"}
	for _, loop := range []string{report.Tight, report.Paced} {
		var ts [][]*report.Timing // by step, then candidate
		for _, step := range steps {
			ts = append(ts, timings(report.Runtimes, step+", "+kind.Title, loop, names(runtimes)))
		}
		err := b.loop(loop, b.plan.runtimeRounds/2).Run(ctx, len(runtimes), func(ctx context.Context, i int, counts bool) error {
			return b.live(ctx, runtimes[i], kind, func(step int, argv []string) error {
				return timeCounted(ctx, runtimes[i].place, ts[step][i], counts, argv...)
			})
		})
		if err != nil {
			return err
		}
		for _, t := range ts {
			b.keep(t)
		}
	}
	return nil
}

// live creates a container, starts it, waits for its end and deletes it; run is
// called for each of the three commands.
func (b *bench) live(ctx context.Context, r *ociRuntime, kind bundle.Kind, run func(step int, argv []string) error) error {
	pidFile := filepath.Join("/run/state", r.name+".pid")
	if err := run(0, r.argv("create", "--bundle", b.bundle(r, kind.Name), "--pid-file", pidFile, "c")); err != nil {
		return err
	}
	pidfd, err := openPidFile(pidFile)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if err := run(1, r.argv("start", "c")); err != nil {
		return err
	}
	if err := awaitExit(ctx, pidfd); err != nil {
		return err
	}
	return run(2, r.argv("delete", "c"))
}

func openPidFile(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return -1, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1, fmt.Errorf("read %s: %w", path, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	return fd, os.NewSyscallError("pidfd_open", err)
}

// timeExec measures "exec" in a container that is idle otherwise.
func (b *bench) timeExec(ctx context.Context, runtimes []*ociRuntime) (err error) {
	progress("OCI runtimes: exec")
	for _, r := range runtimes {
		if _, err := r.run(ctx, r.argv("run", "--detach", "--bundle", b.bundle(r, "idle"), "idle")...); err != nil {
			return err
		}
		defer func() {
			_, kerr := r.run(ctx, r.argv("delete", "--force", "idle")...)
			err = errors.Join(err, kerr)
		}()
	}
	for _, loop := range []string{report.Tight, report.Paced} {
		ts := timings(report.Runtimes, "exec", loop, names(runtimes))
		err := b.loop(loop, b.plan.runtimeRounds).Run(ctx, len(ts), func(ctx context.Context, i int, counts bool) error {
			r := runtimes[i]
			return timeCounted(ctx, r.place, ts[i], counts, r.argv("exec", "idle", "/bin/true")...)
		})
		if err != nil {
			return err
		}
		b.keep(ts)
	}
	return nil
}
