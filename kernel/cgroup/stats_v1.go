package cgroup

import (
	"fmt"
	"strings"
)

// cpuUsageV1 reads cpuacct, in nanoseconds (cgroup-v1/cpuacct.rst).
func (b *branch) cpuUsageV1(s *Stats) (err error) {
	for file, n := range map[string]*uint64{
		"cpuacct.usage": &s.CPU.Total, "cpuacct.usage_user": &s.CPU.User, "cpuacct.usage_sys": &s.CPU.System,
	} {
		if *n, err = b.readUint(file); err != nil {
			return err
		}
	}
	each, err := b.read("cpuacct.usage_percpu")
	if err != nil {
		return err
	}
	for f := range strings.FieldsSeq(each) {
		n, err := parseUint(f)
		if err != nil {
			return fmt.Errorf("parse cpuacct.usage_percpu: %w", err)
		}
		s.CPU.PerCPU = append(s.CPU.PerCPU, n)
	}
	return nil
}

func (b *branch) cpuThrottlingV1(s *Stats) error {
	text, err := b.read("cpu.stat")
	if err != nil {
		return b.optional(err)
	}
	m := parseKeyed(text)
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
	return nil
}

// unlimitedV1 is the least limit that v1 shows for "none": the largest multiple
// of a page in a signed long, with pages of up to 64 KiB.
const unlimitedV1 = 1<<63 - 1<<16

func (b *branch) memoryStatsV1(s *Stats) (err error) {
	m := &s.Memory
	for _, f := range []struct {
		file string
		n    *uint64
	}{
		{"memory.usage_in_bytes", &m.Usage},
		{"memory.limit_in_bytes", &m.Limit},
		{"memory.max_usage_in_bytes", &m.Peak},
		{"memory.failcnt", &m.Failures},
	} {
		if *f.n, err = b.readUint(f.file); err != nil {
			return err
		}
	}
	if m.Limit >= unlimitedV1 {
		m.Limit = Unlimited
	}
	// With equal limits of memory and of memory+swap it is the latter that is hit.
	swapFailures, err := b.readUint("memory.memsw.failcnt")
	if b.optional(err) != nil {
		return err
	}
	m.Failures += swapFailures
	text, err := b.read("memory.stat")
	if err != nil {
		return err
	}
	m.Detail = parseKeyed(text)
	m.Cache, m.InactiveFile, m.SwapUsage = m.Detail["total_cache"], m.Detail["total_inactive_file"], m.Detail["total_swap"]
	m.OOMKills, err = b.oomKills()
	return err
}

// ioStatsV1 reads the counters of the BFQ scheduler and of the throttling layer:
// lines "MAJOR:MINOR OPERATION NUMBER". A device has those of one or both, or, since
// Linux 6.10, none as long as it has neither BFQ nor any throttle.
func (b *branch) ioStatsV1(s *Stats) error {
	for _, f := range []struct {
		file  string
		field func(*IOStats, string) *uint64
	}{
		{"blkio.bfq.io_service_bytes_recursive", bytesField},
		{"blkio.throttle.io_service_bytes_recursive", bytesField},
		{"blkio.bfq.io_serviced_recursive", opsField},
		{"blkio.throttle.io_serviced_recursive", opsField},
	} {
		text, err := b.read(f.file)
		if err := b.optional(err); err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			w := strings.Fields(line)
			if len(w) != 3 {
				continue // the grand total
			}
			n, err := parseUint(w[2])
			d := s.device(w[0])
			if err != nil || d == nil {
				return fmt.Errorf("parse %s: malformed line %q", f.file, line)
			}
			if to := f.field(d, w[1]); to != nil {
				*to = max(*to, n)
			}
		}
	}
	return nil
}

func bytesField(d *IOStats, operation string) *uint64 {
	switch operation {
	case "Read":
		return &d.ReadBytes
	case "Write":
		return &d.WriteBytes
	case "Discard":
		return &d.DiscardBytes
	}
	return nil
}

func opsField(d *IOStats, operation string) *uint64 {
	switch operation {
	case "Read":
		return &d.ReadOps
	case "Write":
		return &d.WriteOps
	case "Discard":
		return &d.DiscardOps
	}
	return nil
}
