package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/moby/moby/api/types/container"
)

// statsEvery is the pause between samples, Docker's.
const statsEvery = time.Second

// ContainerStats takes one sample. PreCPUStats is empty; see
// ContainerStatsFollow. A container that does not run yields an empty sample.
func (e *Engine) ContainerStats(_ context.Context, ref string) (*container.StatsResponse, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	return e.sample(c)
}

// ContainerStatsFollow calls fn once a second with a sample whose PreCPUStats
// is the one before (empty in the first), until fn returns an error, which is
// returned, ctx ends, or the container is removed. A container that does not
// run yields empty samples, as Docker's does.
func (e *Engine) ContainerStatsFollow(ctx context.Context, ref string, fn func(*container.StatsResponse) error) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(statsEvery)
	defer ticker.Stop()
	var before *container.StatsResponse
	for {
		s, err := e.sample(c)
		if err != nil {
			return err
		}
		if before != nil {
			s.PreRead, s.PreCPUStats = before.Read, before.CPUStats
		}
		if err := fn(s); err != nil {
			return err
		}
		before = s
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return errdefs.ErrUnavailable
		}
		if c.gone() {
			return nil
		}
	}
}

// sample reads the cgroup and the network counters.
func (e *Engine) sample(c *ctr) (*container.StatsResponse, error) {
	rec := c.snapshot()
	s := &container.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux", Read: time.Now().UTC()}
	if rec.State.Status != stateRunning && rec.State.Status != statePaused {
		s.Read = time.Time{}
		return s, nil
	}
	g, err := e.cgroup(rec)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return s, nil // it ends at this moment
	}
	if err != nil {
		return nil, err
	}
	defer g.Close()
	st, err := g.Stats()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errdefs.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read statistics of container %s: %w", short(c.id), err)
	}
	e.fillStats(s, st)
	if !rec.HostConfig.NetworkMode.IsHost() {
		s.Networks = readNetDev(rec.State.Pid)
	}
	return s, nil
}

func (e *Engine) fillStats(s *container.StatsResponse, st *cgroup.Stats) {
	s.CPUStats = container.CPUStats{
		CPUUsage: container.CPUUsage{
			TotalUsage: st.CPU.Total, UsageInUsermode: st.CPU.User, UsageInKernelmode: st.CPU.System, PercpuUsage: st.CPU.PerCPU,
		},
		SystemUsage: systemCPU(), OnlineCPUs: uint32(e.host.cpus),
		ThrottlingData: container.ThrottlingData{
			Periods: st.CPU.Periods, ThrottledPeriods: st.CPU.ThrottledPeriods, ThrottledTime: st.CPU.ThrottledTime,
		},
	}
	s.MemoryStats = container.MemoryStats{
		Usage: st.Memory.Usage, MaxUsage: st.Memory.Peak, Failcnt: st.Memory.Failures, Stats: st.Memory.Detail,
		Limit: min(st.Memory.Limit, uint64(e.host.memTotal)),
	}
	s.PidsStats.Current = st.Pids.Current
	if st.Pids.Limit != cgroup.Unlimited {
		s.PidsStats.Limit = st.Pids.Limit
	}
	for i := range st.IO {
		d := &st.IO[i]
		entry := func(op string, v uint64) container.BlkioStatEntry {
			return container.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: op, Value: v}
		}
		s.BlkioStats.IoServiceBytesRecursive = append(s.BlkioStats.IoServiceBytesRecursive,
			entry("read", d.ReadBytes), entry("write", d.WriteBytes))
		s.BlkioStats.IoServicedRecursive = append(s.BlkioStats.IoServicedRecursive,
			entry("read", d.ReadOps), entry("write", d.WriteOps))
	}
}

// systemCPU is the time all CPUs together have spent since boot, in
// nanoseconds: the first line of /proc/stat without guest time, which user
// time includes, proc_stat(5).
func systemCPU() uint64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	var ticks uint64
	for i := 1; i < len(f) && i <= 8; i++ {
		v, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			return 0
		}
		ticks += v
	}
	return ticks * uint64(time.Second/clockTicks)
}

// readNetDev reads the counters of a container's links, loopback left out. It
// is nil when the process has ended.
func readNetDev(pid int) map[string]container.NetworkStats {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil
	}
	return parseNetDev(data)
}

// parseNetDev reads the format of proc_pid_net(5): two lines of titles, then
// "name: 16 numbers".
func parseNetDev(data []byte) map[string]container.NetworkStats {
	links := map[string]container.NetworkStats{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 16 || name == "lo" {
			continue
		}
		num := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v } // the kernel writes numbers
		links[name] = container.NetworkStats{
			RxBytes: num(0), RxPackets: num(1), RxErrors: num(2), RxDropped: num(3),
			TxBytes: num(8), TxPackets: num(9), TxErrors: num(10), TxDropped: num(11),
		}
	}
	return links
}
