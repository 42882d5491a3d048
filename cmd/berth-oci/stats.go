package main

import (
	"maps"
	"slices"

	"github.com/berth-containers/berth/kernel/cgroup"
)

// The statistics as runc prints them (its package types). What is 0 there when
// nothing counts it is 0 or left out here too.

type statistics struct {
	CPU      cpuStatistics             `json:"cpu"`
	CPUSet   map[string]any            `json:"cpuset"`
	Memory   memoryStatistics          `json:"memory"`
	Pids     pidsStatistics            `json:"pids"`
	Blkio    blkioStatistics           `json:"blkio"`
	HugeTLB  map[string]hugeStatistics `json:"hugetlb"`
	IntelRdt struct{}                  `json:"intel_rdt"`
	// Networks are always null: runc counts only those it made itself.
	Networks []struct{} `json:"network_interfaces"`
}

type cpuStatistics struct {
	Usage      cpuUsage     `json:"usage,omitzero"`
	Throttling throttling   `json:"throttling,omitzero"`
	PSI        *psiOfAGroup `json:"psi,omitempty"`
}

// cpuUsage is in nanoseconds.
type cpuUsage struct {
	Total        uint64   `json:"total,omitempty"`
	PerCPU       []uint64 `json:"percpu,omitempty"`
	PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
	PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

type throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

type memoryStatistics struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     memoryEntry       `json:"usage,omitzero"`
	Swap      memoryEntry       `json:"swap,omitzero"`
	Kernel    memoryEntry       `json:"kernel,omitzero"`
	KernelTCP memoryEntry       `json:"kernelTCP,omitzero"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *psiOfAGroup      `json:"psi,omitempty"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type pidsStatistics struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type blkioStatistics struct {
	Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Ops   []blkioEntry `json:"ioServicedRecursive,omitempty"`
	PSI   *psiOfAGroup `json:"psi,omitempty"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type hugeStatistics struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type psiOfAGroup struct {
	Some psi `json:"some"`
	Full psi `json:"full"`
}

type psi struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

func statsOf(s *cgroup.Stats, m *cgroup.MoreStats) *statistics {
	out := &statistics{CPUSet: map[string]any{}, HugeTLB: map[string]hugeStatistics{}}
	out.CPU = cpuStatistics{
		Usage: cpuUsage{
			Total: s.CPU.Total, Kernel: s.CPU.System, User: s.CPU.User,
			PerCPU: s.CPU.PerCPU, PerCPUKernel: m.PerCPUKernel, PerCPUUser: m.PerCPUUser,
		},
		Throttling: throttling{s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime},
		PSI:        psiOf(m.CPUPressure),
	}
	for _, name := range cgroup.CpusetFiles() {
		out.CPUSet[name] = m.Cpuset[name]
	}
	if len(m.CPUs) > 0 {
		out.CPUSet["cpus"], out.CPUSet["mems"] = m.CPUs, m.Mems
	}
	out.Memory = memoryStatistics{
		Cache:  s.Memory.Cache,
		Usage:  memoryEntry{s.Memory.Limit, s.Memory.Usage, s.Memory.Peak, s.Memory.Failures},
		Swap:   entryOf(m.Swap),
		Kernel: entryOf(m.Kernel), KernelTCP: entryOf(m.KernelTCP),
		Raw: s.Memory.Detail, PSI: psiOf(m.MemoryPressure),
	}
	out.Pids.Current = s.Pids.Current
	if s.Pids.Limit != cgroup.Unlimited {
		out.Pids.Limit = s.Pids.Limit
	}
	out.Blkio = blkioOf(s.IO)
	out.Blkio.PSI = psiOf(m.IOPressure)
	for _, size := range slices.Sorted(maps.Keys(m.HugeTLB)) {
		u := m.HugeTLB[size]
		out.HugeTLB[size] = hugeStatistics{u.Usage, u.Peak, u.Failures}
	}
	return out
}

func entryOf(u cgroup.MemoryUse) memoryEntry {
	return memoryEntry{u.Limit, u.Usage, u.Peak, u.Failures}
}

func blkioOf(devices []cgroup.IOStats) (b blkioStatistics) {
	for _, d := range devices {
		for _, e := range []struct {
			op         string
			bytes, ops uint64
		}{{"Read", d.ReadBytes, d.ReadOps}, {"Write", d.WriteBytes, d.WriteOps}, {"Discard", d.DiscardBytes, d.DiscardOps}} {
			b.Bytes = append(b.Bytes, blkioEntry{d.Major, d.Minor, e.op, e.bytes})
			b.Ops = append(b.Ops, blkioEntry{d.Major, d.Minor, e.op, e.ops})
		}
	}
	return b
}

func psiOf(p *cgroup.Pressure) *psiOfAGroup {
	if p == nil {
		return nil
	}
	return &psiOfAGroup{psi(p.Some), psi(p.Full)}
}
