package cgroup

import (
	"fmt"
	"strings"
)

// cpuStatsV2 reads cpu.stat, in microseconds. Every cgroup has it; the periods
// need the controller.
func (b *branch) cpuStatsV2(s *Stats) error {
	text, err := b.read("cpu.stat")
	if err != nil {
		return err
	}
	m := parseKeyed(text)
	s.CPU = CPUStats{
		Total: 1000 * m["usage_usec"], User: 1000 * m["user_usec"], System: 1000 * m["system_usec"],
		Periods: m["nr_periods"], ThrottledPeriods: m["nr_throttled"], ThrottledTime: 1000 * m["throttled_usec"],
	}
	return nil
}

func (b *branch) memoryStatsV2(s *Stats) (err error) {
	m := &s.Memory
	if m.Usage, err = b.readUint("memory.current"); err != nil {
		return b.optional(err)
	}
	if m.Limit, err = b.readUint("memory.max"); err != nil {
		return err
	}
	for file, n := range map[string]*uint64{"memory.peak": &m.Peak, "memory.swap.current": &m.SwapUsage} {
		if *n, err = b.readUint(file); b.optional(err) != nil {
			return err
		}
	}
	text, err := b.read("memory.stat")
	if err != nil {
		return err
	}
	m.Detail = parseKeyed(text)
	m.Cache, m.InactiveFile = m.Detail["file"], m.Detail["inactive_file"]
	events, err := b.read("memory.events")
	if err != nil {
		return err
	}
	m.Failures, _ = keyed(events, "max")
	m.OOMKills, _ = keyed(events, "oom_kill")
	return nil
}

// ioStatsV2 reads io.stat: lines "MAJOR:MINOR KEY=NUMBER ...".
func (b *branch) ioStatsV2(s *Stats) error {
	text, err := b.read("io.stat")
	if err != nil {
		return b.optional(err)
	}
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue // a device without statistics
		}
		d := s.device(w[0])
		if d == nil {
			return fmt.Errorf("parse io.stat: malformed line %q", line)
		}
		for _, pair := range w[1:] {
			key, text, _ := strings.Cut(pair, "=")
			if n, err := parseUint(text); err == nil {
				d.set(key, n)
			}
		}
	}
	return nil
}

// set takes one counter of io.stat; keys of other layers (iocost) are left out.
func (d *IOStats) set(key string, n uint64) {
	switch key {
	case "rbytes":
		d.ReadBytes = n
	case "wbytes":
		d.WriteBytes = n
	case "rios":
		d.ReadOps = n
	case "wios":
		d.WriteOps = n
	case "dbytes":
		d.DiscardBytes = n
	case "dios":
		d.DiscardOps = n
	}
}
