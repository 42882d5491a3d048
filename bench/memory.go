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
	if err := b.startServices(ctx, e); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopServices()) }()
	if _, err := e.place.run(ctx, e.runArgv([]string{"--rm", "--network", "none"}, "true")...); err != nil {
		return err
	}
	m := report.Memory{Candidate: e.name, Containers: b.plan.containers}
	if m.IdleKiB, err = b.settled(ctx, e.place); err != nil {
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
	if m.LoadedKiB, err = b.settled(ctx, e.place); err != nil {
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
func (b *bench) settled(ctx context.Context, p *place) (map[string]int64, error) {
	timer := time.NewTimer(b.plan.settle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return p.proportionalSizes()
}

// proportionalSizes adds up Pss (proc_pid_smaps(5)) of a candidate's own
// processes, in KiB by program. Those of containers are in other pid namespaces.
func (p *place) proportionalSizes() (map[string]int64, error) {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	pids, err := p.account.Processes()
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, pid := range pids {
		// It is gone when it has no namespace any more.
		ns, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/pid"))
		if err != nil || ns != own || pid == p.spawner.Pid() {
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
