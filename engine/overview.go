package engine

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// Overview is what all containers use at one moment. Counters run since each
// container's start; whoever shows rates compares two overviews.
type Overview struct {
	Time time.Time
	// CPUs are the host's, SystemCPU what all of them have spent together, in
	// nanoseconds; MemoryTotal and MemoryAvailable are the host's, in bytes.
	CPUs                         int
	SystemCPU                    uint64
	MemoryTotal, MemoryAvailable uint64
	Containers                   []ContainerUse
}

// ContainerUse is a container's line of an overview. What does not run has
// only its state.
type ContainerUse struct {
	ID, Name, Image, Status string
	// Health is the health check's last word; empty without a check.
	Health                string `json:",omitempty"`
	ExitCode              int
	StartedAt, FinishedAt time.Time `json:",omitzero"`
	Restarts              int
	// CPU is nanoseconds; CPUs the limit in processors, 0 for none; Throttled the
	// time it was stopped for it, in nanoseconds.
	CPU       uint64
	CPUs      float64
	Throttled uint64
	// Memory is without the part of the page cache that is dropped first; a
	// MemoryLimit of 0 is none.
	Memory, MemoryLimit   uint64
	ReadBytes, WriteBytes uint64
	RxBytes, TxBytes      uint64
	Pids, PidsLimit       uint64
	// CPUPressure, MemoryPressure and IOPressure are the percentage of the last
	// ten seconds in which some task of it waited; -1 where that is not counted.
	CPUPressure, MemoryPressure, IOPressure float64
}

// Watch calls fn with an overview of all containers, and again after every
// pause, until fn returns an error, which is returned, or ctx or the engine
// ends. It asks the kernel for as little as an overview shows.
func (e *Engine) Watch(ctx context.Context, every time.Duration, fn func(*Overview) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		o, err := e.overview()
		if err != nil {
			return err
		}
		if err := fn(o); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return errdefs.ErrUnavailable
		}
	}
}

func (e *Engine) overview() (*Overview, error) {
	o := &Overview{
		Time: time.Now().UTC(), CPUs: e.host.cpus, SystemCPU: systemCPU(), MemoryTotal: uint64(e.host.memTotal),
		MemoryAvailable: memoryAvailable(), Containers: []ContainerUse{},
	}
	for _, c := range e.containers.all() {
		use, err := e.containerUse(c.snapshot())
		if err != nil {
			return nil, err
		}
		if health := c.healthNow(); health != nil {
			use.Health = string(health.Status)
		}
		o.Containers = append(o.Containers, use)
	}
	return o, nil
}

// memoryAvailable is what the host can still give, proc_meminfo(5).
func memoryAvailable() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseUint(kib, 10, 64) // the kernel writes numbers
	return n << 10
}

func (e *Engine) containerUse(rec *record) (ContainerUse, error) {
	st, hc := &rec.State, rec.HostConfig
	u := ContainerUse{
		ID: rec.ID, Name: rec.Name, Image: rec.Config.Image, Status: string(st.shown()), ExitCode: st.ExitCode,
		StartedAt: st.StartedAt, FinishedAt: st.FinishedAt, Restarts: rec.RestartCount,
		CPUs: cpuLimit(hc.NanoCPUs, hc.CPUQuota, hc.CPUPeriod), CPUPressure: -1, MemoryPressure: -1, IOPressure: -1,
	}
	if st.Status != stateRunning && st.Status != statePaused {
		return u, nil
	}
	g, err := e.cgroup(rec)
	if err == nil {
		defer g.Close()
		err = u.read(g)
	}
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return u, nil // it ends at this moment
	}
	if err == nil && !hc.NetworkMode.IsHost() {
		for _, n := range readNetDev(st.Pid) {
			u.RxBytes, u.TxBytes = u.RxBytes+n.RxBytes, u.TxBytes+n.TxBytes
		}
	}
	return u, err
}

func (u *ContainerUse) read(g *cgroup.Group) error {
	st, err := g.Stats()
	if err != nil {
		return err
	}
	u.CPU, u.Throttled, u.Pids = st.CPU.Total, st.CPU.ThrottledTime, st.Pids.Current
	u.Memory = st.Memory.Usage - min(st.Memory.Usage, st.Memory.InactiveFile)
	if st.Memory.Limit != cgroup.Unlimited {
		u.MemoryLimit = st.Memory.Limit
	}
	if st.Pids.Limit != cgroup.Unlimited {
		u.PidsLimit = st.Pids.Limit
	}
	for i := range st.IO {
		u.ReadBytes, u.WriteBytes = u.ReadBytes+st.IO[i].ReadBytes, u.WriteBytes+st.IO[i].WriteBytes
	}
	cpu, memory, io, err := g.Pressures()
	if err != nil {
		return err
	}
	for to, from := range map[*float64]*cgroup.Pressure{&u.CPUPressure: cpu, &u.MemoryPressure: memory, &u.IOPressure: io} {
		if from != nil {
			*to = from.Some.Avg10
		}
	}
	return nil
}

// cpuLimit is a limit in processors, 0 for none.
func cpuLimit(nano, quota, period int64) float64 {
	switch {
	case nano > 0:
		return float64(nano) / 1e9
	case quota > 0 && period > 0:
		return float64(quota) / float64(period)
	}
	return 0
}
