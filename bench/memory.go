package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/report"
)

// weigh measures what an engine's own processes occupy, without containers and
// with idle ones.
func (b *bench) weigh(ctx context.Context, e *engine) (err error) {
	progress("%s: memory with %d idle containers", e.name, b.plan.containers)
	// Who is there now is not of the engine.
	others, err := ourProcesses()
	if err != nil {
		return err
	}
	if err := b.startServices(ctx, e); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopServices()) }()
	if _, err := e.place.run(ctx, e.runArgv([]string{"--rm", "--network", "none"}, "true")...); err != nil {
		return err
	}
	m := report.Memory{Candidate: e.name, Containers: b.plan.containers}
	if m.IdleKiB, err = b.settled(ctx, others); err != nil {
		return err
	}
	var ids []string
	for range m.Containers {
		res, err := e.place.run(ctx, e.runArgv([]string{"--detach", "--network", "none"}, "sleep", "1000")...)
		if err != nil {
			return err
		}
		ids = append(ids, lastWord(res.Output))
	}
	if m.LoadedKiB, err = b.settled(ctx, others); err != nil {
		return err
	}
	b.results.Memory = append(b.results.Memory, m)
	return e.remove(ctx, ids)
}

func lastWord(text string) string {
	words := strings.Fields(text)
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

// settled waits until what the last commands have left behind is gone, then adds
// up the memory.
func (b *bench) settled(ctx context.Context, others map[int]bool) (map[string]int64, error) {
	timer := time.NewTimer(b.plan.settle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return proportionalSizes(others)
}

// ourProcesses are the processes in this one's pid namespace; those of
// containers are in others.
func ourProcesses() (map[int]bool, error) {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// It is gone when it has no namespace any more.
		if ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid")); err == nil && ns == own {
			found[pid] = true
		}
	}
	return found, nil
}

// proportionalSizes adds up Pss (proc_pid_smaps(5)) of the processes that are
// not among others, in KiB by program.
func proportionalSizes(others map[int]bool) (map[string]int64, error) {
	pids, err := ourProcesses()
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for pid := range pids {
		if others[pid] {
			continue
		}
		name, kib, err := proportionalSize(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		sizes[name] += kib
	}
	return sizes, nil
}

func proportionalSize(pid int) (name string, kib int64, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil {
		return "", 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return "", 0, err
	}
	kib, err = pssIn(string(text))
	return filepath.Base(exe), kib, err
}

// pssIn is the figure of the line "Pss: N kB".
func pssIn(text string) (int64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			return strconv.ParseInt(number, 10, 64)
		}
	}
	return 0, fmt.Errorf("read smaps_rollup: no line Pss")
}
