package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// MoreStats is what [Stats] leaves out because few ask and each figure is a file
// more to read. What a kernel does not count is nil or 0.
type MoreStats struct {
	// PerCPUUser and PerCPUKernel are nanoseconds by CPU number; v1 only.
	PerCPUUser, PerCPUKernel []uint64
	// Swap is memory and swap together; Kernel and KernelTCP are parts of memory
	// that v1 counts.
	Swap, Kernel, KernelTCP MemoryUse
	// Cpuset has the v1 cpuset's files with one number by name ("mem_hardwall"),
	// and CPUs and Mems the lists of those that the group was given.
	Cpuset     map[string]int64
	CPUs, Mems []uint16
	// HugeTLB has the use of huge pages by their size: "2MB".
	HugeTLB map[string]MemoryUse
	// Pressure of CPU, memory and I/O, where the kernel counts it by cgroup: on a
	// unified and on a hybrid host.
	CPUPressure, MemoryPressure, IOPressure *Pressure
}

// MemoryUse is the use of one kind of memory in bytes; Limit is [Unlimited] when
// there is none, 0 when this kind is not counted.
type MemoryUse struct{ Usage, Limit, Peak, Failures uint64 }

// Pressure is how much time tasks lost waiting: some of them, or all (accounting/psi.rst).
type Pressure struct{ Some, Full Stall }

// Stall is the share of time lost, in percent over the last 10, 60 and 300 s,
// and the sum in microseconds.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// MoreStats reads what the group has used. It is an [errdefs.ErrNotFound] when
// the group is gone.
func (g *Group) MoreStats() (*MoreStats, error) {
	m := &MoreStats{HugeTLB: map[string]MemoryUse{}}
	for _, part := range []figures[MoreStats]{
		{"cpuacct", (*branch).perCPUV1, nil},
		{"memory", (*branch).moreMemoryV1, (*branch).moreMemoryV2},
		{"cpuset", (*branch).cpusetV1, nil},
		{"hugetlb", (*branch).hugeTLBV1, (*branch).hugeTLBV2},
	} {
		if err := part.read(g, m); err != nil {
			return nil, fmt.Errorf("read use of cgroup %s: %w", g.path, classify(err))
		}
	}
	return m, g.pressures(m)
}

// Pressures reads only those of [MoreStats]. They are nil where the kernel does
// not count them.
func (g *Group) Pressures() (cpu, memory, io *Pressure, err error) {
	var m MoreStats
	err = g.pressures(&m)
	return m.CPUPressure, m.MemoryPressure, m.IOPressure, err
}

func (g *Group) pressures(m *MoreStats) error {
	b := g.unified()
	if b == nil {
		return nil
	}
	for _, p := range []struct {
		file string
		into **Pressure
	}{{"cpu.pressure", &m.CPUPressure}, {"memory.pressure", &m.MemoryPressure}, {"io.pressure", &m.IOPressure}} {
		s, err := b.read(p.file)
		if err != nil { // EOPNOTSUPP when turned off
			if err := b.optional(err); err != nil && !isUnsupported(err) {
				return fmt.Errorf("read use of cgroup %s: %w", g.path, classify(err))
			}
			continue
		}
		if *p.into, err = parsePressure(s); err != nil {
			return fmt.Errorf("read %s of cgroup %s: %w", p.file, g.path, err)
		}
	}
	return nil
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the
// same for "full".
func parsePressure(s string) (*Pressure, error) {
	p := &Pressure{}
	for line := range strings.Lines(s) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		stall := &p.Some
		if w[0] == "full" {
			stall = &p.Full
		}
		for _, pair := range w[1:] {
			key, text, _ := strings.Cut(pair, "=")
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("malformed line %q", line)
			}
			switch key {
			case "avg10":
				stall.Avg10 = n
			case "avg60":
				stall.Avg60 = n
			case "avg300":
				stall.Avg300 = n
			case "total":
				stall.Total, _ = parseUint(text)
			}
		}
	}
	return p, nil
}

// perCPUV1 reads cpuacct.usage_all: a title, then "CPU USER SYSTEM" lines.
func (b *branch) perCPUV1(m *MoreStats) error {
	s, err := b.read("cpuacct.usage_all")
	if err != nil {
		return b.optional(err)
	}
	for line := range strings.Lines(s) {
		w := strings.Fields(line)
		if len(w) != 3 || w[0] == "cpu" {
			continue
		}
		user, err1 := parseUint(w[1])
		kernel, err2 := parseUint(w[2])
		if err1 != nil || err2 != nil {
			return fmt.Errorf("parse cpuacct.usage_all: malformed line %q", line)
		}
		m.PerCPUUser, m.PerCPUKernel = append(m.PerCPUUser, user), append(m.PerCPUKernel, kernel)
	}
	return nil
}

func (b *branch) moreMemoryV1(m *MoreStats) error {
	for prefix, use := range map[string]*MemoryUse{
		"memory.memsw": &m.Swap, "memory.kmem": &m.Kernel, "memory.kmem.tcp": &m.KernelTCP,
	} {
		if err := b.usageV1(prefix, use); err != nil {
			return err
		}
		if use.Limit >= unlimitedV1 {
			use.Limit = Unlimited
		}
	}
	return nil
}

// usageV1 reads the four files that each v1 counter of pages has.
func (b *branch) usageV1(prefix string, use *MemoryUse) (err error) {
	for _, f := range []struct {
		file string
		n    *uint64
	}{
		{".usage_in_bytes", &use.Usage}, {".limit_in_bytes", &use.Limit}, {".max_usage_in_bytes", &use.Peak}, {".failcnt", &use.Failures},
	} {
		if *f.n, err = b.readUint(prefix + f.file); b.optional(err) != nil {
			return err
		}
	}
	return nil
}

// moreMemoryV2 adds memory to v2's figures of swap alone.
func (b *branch) moreMemoryV2(m *MoreStats) error {
	n := map[string]uint64{}
	for _, file := range []string{"memory.current", "memory.max", "memory.swap.current", "memory.swap.max"} {
		v, err := b.readUint(file)
		if err != nil { // no swap, or no controller here
			return b.optional(err)
		}
		n[file] = v
	}
	m.Swap.Usage, m.Swap.Limit = n["memory.current"]+n["memory.swap.current"], Unlimited
	if n["memory.max"] != Unlimited && n["memory.swap.max"] != Unlimited {
		m.Swap.Limit = n["memory.max"] + n["memory.swap.max"]
	}
	return nil
}

// CpusetFiles names what [MoreStats.Cpuset] may have.
func CpusetFiles() []string {
	return []string{
		"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
		"memory_pressure", "sched_load_balance", "sched_relax_domain_level",
	}
}

func (b *branch) cpusetV1(m *MoreStats) (err error) {
	m.Cpuset = map[string]int64{}
	for _, file := range CpusetFiles() {
		s, err := b.read("cpuset." + file)
		if err != nil {
			if err := b.optional(err); err != nil {
				return err
			}
			continue
		}
		if m.Cpuset[file], err = strconv.ParseInt(strings.TrimSpace(s), 10, 64); err != nil {
			return fmt.Errorf("parse cpuset.%s: %w", file, err)
		}
	}
	for file, list := range map[string]*[]uint16{"cpuset.cpus": &m.CPUs, "cpuset.mems": &m.Mems} {
		s, err := b.read(file)
		if err == nil {
			*list, err = parseList(strings.TrimSpace(s))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseList reads "0-2,7" (cpuset(7), "List format").
func parseList(s string) ([]uint16, error) {
	var out []uint16
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		z, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || z < a {
			return nil, fmt.Errorf("parse list %q: malformed", s)
		}
		for n := a; n <= z; n++ {
			out = append(out, uint16(n))
		}
	}
	return out, nil
}

func (b *branch) hugeTLBV1(m *MoreStats) error {
	return b.hugeTLB(m, "usage_in_bytes", func(prefix string, use *MemoryUse) error { return b.usageV1(strings.TrimSuffix(prefix, "."), use) })
}

func (b *branch) hugeTLBV2(m *MoreStats) error {
	return b.hugeTLB(m, "current", func(prefix string, use *MemoryUse) (err error) {
		if use.Usage, err = b.readUint(prefix + "current"); err != nil {
			return err
		}
		if use.Limit, err = b.readUint(prefix + "max"); err != nil {
			return err
		}
		use.Failures, _, err = b.readKey(prefix+"events", "max")
		return err
	})
}

// hugeTLB reads the use of each page size, by reservation where that is counted.
func (b *branch) hugeTLB(m *MoreStats, file string, read func(prefix string, use *MemoryUse) error) error {
	for _, size := range pageSizes() {
		prefix := "hugetlb." + size + ".rsvd."
		if _, err := b.read(prefix + file); err != nil {
			prefix = "hugetlb." + size + "."
			if _, err := b.read(prefix + file); err != nil {
				if err := b.optional(err); err != nil {
					return err
				}
				continue // the controller was not passed on
			}
		}
		var use MemoryUse
		if err := read(prefix, &use); b.optional(err) != nil {
			return err
		}
		m.HugeTLB[size] = use
	}
	return nil
}

// pageSizes lists the kernel's sizes of huge pages as cgroups name them: 2MB.
func pageSizes() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []string
	for _, e := range entries { // hugepages-2048kB
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		unit := "KB"
		for _, next := range []string{"MB", "GB"} {
			if kb >= 1024 {
				kb, unit = kb/1024, next
			}
		}
		sizes = append(sizes, strconv.FormatUint(kb, 10)+unit)
	}
	return sizes
}
