package cgroup

import "fmt"

// Balance is what is left to say of a group whose processes have ended: little
// enough to be read at the end of every container. What a kernel does not count
// is 0.
type Balance struct {
	// CPU, ThrottledTime are nanoseconds; see [CPUStats].
	CPU, Periods, ThrottledPeriods, ThrottledTime uint64
	// MemoryPeak is in bytes; v1, and v2 since Linux 5.19.
	MemoryPeak uint64
	// MemoryFailures counts how often the memory limit was hit, OOMKills is as
	// [Group.OOMKills] has it: kills without a failure were the host's need.
	MemoryFailures, OOMKills uint64
	// ForksRefused counts the processes and threads that were one too many;
	// since Linux 4.8.
	ForksRefused uint64
}

// Balance reads it. A group that is gone has nothing to say.
func (g *Group) Balance() (Balance, error) {
	var s Balance
	for _, part := range []figures[Balance]{
		{"cpuacct", func(b *branch, s *Balance) (err error) { s.CPU, err = b.readUint("cpuacct.usage"); return err }, nil},
		{"cpu", (*branch).cpuBalance, (*branch).cpuBalance},
		{"memory", (*branch).memoryBalanceV1, (*branch).memoryBalanceV2},
		{"pids", (*branch).pidsBalance, (*branch).pidsBalance},
	} {
		if err := part.read(g, &s); err != nil && !gone(err) {
			return s, fmt.Errorf("read balance of cgroup %s: %w", g.path, classify(err))
		}
	}
	return s, nil
}

func (b *branch) cpuBalance(s *Balance) error {
	text, err := b.read("cpu.stat")
	if err != nil {
		return err
	}
	figure := func(key string) uint64 { n, _ := keyed(text, key); return n }
	s.Periods, s.ThrottledPeriods = figure("nr_periods"), figure("nr_throttled")
	if b.v2 {
		s.CPU, s.ThrottledTime = 1000*figure("usage_usec"), 1000*figure("throttled_usec")
	} else {
		s.ThrottledTime = figure("throttled_time")
	}
	return nil
}

func (b *branch) memoryBalanceV1(s *Balance) (err error) {
	if s.OOMKills, err = b.oomKills(); err != nil {
		return err
	}
	if s.MemoryPeak, err = b.readUint("memory.max_usage_in_bytes"); err != nil {
		return err
	}
	if s.MemoryFailures, err = b.readUint("memory.failcnt"); err != nil {
		return err
	}
	// With equal limits of memory and of memory+swap it is the latter that is hit.
	swap, err := b.readUint("memory.memsw.failcnt")
	s.MemoryFailures += swap
	return b.optional(err)
}

func (b *branch) memoryBalanceV2(s *Balance) error {
	events, err := b.read("memory.events")
	if err != nil {
		return err
	}
	s.MemoryFailures, _ = keyed(events, "max")
	s.OOMKills, _ = keyed(events, "oom_kill")
	s.MemoryPeak, err = b.readUint("memory.peak")
	return err
}

func (b *branch) pidsBalance(s *Balance) (err error) {
	s.ForksRefused, _, err = b.readKey("pids.events", "max")
	return err
}
