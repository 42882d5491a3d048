package cgroup

import (
	"fmt"
	"strings"
)

// Stats is what the group has used. Counters run since the group was made and
// include the cgroups below it. What a kernel does not count is 0, nil or, for a
// limit, [Unlimited].
type Stats struct {
	CPU    CPUStats
	Memory MemoryStats
	Pids   PidsStats
	// IO has one entry for each block device that was used. On v1 since Linux
	// 6.10 those without both a throttle and the BFQ scheduler read 0.
	IO []IOStats
}

// CPUStats is CPU time, all in nanoseconds but the Periods.
type CPUStats struct {
	Total, User, System uint64
	// PerCPU is the total by CPU number; v1 only.
	PerCPU []uint64
	// Periods of cpu.quota which have passed, those in which the group was
	// stopped for the rest of one, and how long it was.
	Periods, ThrottledPeriods, ThrottledTime uint64
}

// MemoryStats is memory in bytes.
type MemoryStats struct {
	Usage uint64
	// Limit is [Unlimited] when there is none.
	Limit uint64
	// Peak is the highest Usage; v2 since Linux 5.19.
	Peak uint64
	// Cache is page cache, in Usage too. InactiveFile is the part of it which
	// the kernel drops first: Docker shows Usage minus InactiveFile.
	Cache, InactiveFile uint64
	// SwapUsage is swap alone.
	SwapUsage uint64
	// Failures counts how often the limit was hit.
	Failures uint64
	// OOMKills is as [Group.OOMKills] has it.
	OOMKills uint64
	// Detail is memory.stat as the kernel has it: its keys differ between v1
	// ("total_inactive_file") and v2 ("inactive_file").
	Detail map[string]uint64
}

// PidsStats counts tasks: processes and threads.
type PidsStats struct {
	Current uint64
	// Limit is [Unlimited] when there is none.
	Limit uint64
}

// IOStats is what went through one block device.
type IOStats struct {
	Major, Minor             uint64
	ReadBytes, WriteBytes    uint64
	ReadOps, WriteOps        uint64
	DiscardBytes, DiscardOps uint64
}

// Stats reads what the group has used. It is an [errdefs.ErrNotFound] when the
// group is gone.
func (g *Group) Stats() (*Stats, error) {
	s := &Stats{Memory: MemoryStats{Limit: Unlimited}, Pids: PidsStats{Limit: Unlimited}}
	for _, part := range []figures[Stats]{
		{"cpuacct", (*branch).cpuUsageV1, nil},
		{"cpu", (*branch).cpuThrottlingV1, (*branch).cpuStatsV2},
		{"memory", (*branch).memoryStatsV1, (*branch).memoryStatsV2},
		{"pids", (*branch).pidsStats, (*branch).pidsStats},
		{"blkio", (*branch).ioStatsV1, nil},
		{"io", nil, (*branch).ioStatsV2},
	} {
		if err := part.read(g, s); err != nil {
			return nil, fmt.Errorf("read use of cgroup %s: %w", g.path, classify(err))
		}
	}
	return s, nil
}

// figures are those of one controller: how they are read on v1 and on v2, into a T.
type figures[T any] struct {
	controller string
	v1, v2     func(*branch, *T) error // nil: there are none
}

// read reads them, if the group has the controller.
func (f figures[T]) read(g *Group, into *T) error {
	b := g.branch(f.controller)
	if b == nil {
		return nil
	}
	read := f.v1
	if b.v2 {
		read = f.v2
	}
	if read == nil {
		return nil
	}
	return read(b, into)
}

// optional passes over a file that this kernel, or a v2 cgroup to which the
// controller was not passed on, does not have. A cgroup that is gone is an error.
func (b *branch) optional(err error) error {
	if !gone(err) {
		return err
	}
	if _, err := b.read("cgroup.procs"); gone(err) {
		return err
	}
	return nil
}

func (b *branch) pidsStats(s *Stats) (err error) {
	if s.Pids.Current, err = b.readUint("pids.current"); err != nil {
		return b.optional(err)
	}
	s.Pids.Limit, err = b.readUint("pids.max")
	return b.optional(err)
}

// parseKeyed reads "KEY NUMBER" lines.
func parseKeyed(s string) map[string]uint64 {
	m := make(map[string]uint64, 64)
	for line := range strings.Lines(s) {
		key, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			continue
		}
		if n, err := parseUint(rest); err == nil {
			m[key] = n
		}
	}
	return m
}

// device returns the entry of the device "MAJOR:MINOR", made when new; nil when
// the text is none.
func (s *Stats) device(text string) *IOStats {
	major, minor, ok := strings.Cut(text, ":")
	ma, err1 := parseUint(major)
	mi, err2 := parseUint(minor)
	if !ok || err1 != nil || err2 != nil {
		return nil
	}
	for i := range s.IO {
		if s.IO[i].Major == ma && s.IO[i].Minor == mi {
			return &s.IO[i]
		}
	}
	s.IO = append(s.IO, IOStats{Major: ma, Minor: mi})
	return &s.IO[len(s.IO)-1]
}
