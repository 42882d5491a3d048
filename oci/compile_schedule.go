package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// When and where the command runs: scheduling policy, I/O priority, processors
// and memory nodes. All of it is inherited by what the command starts.

// schedule sets the policy of the processor and of the disks. It comes after
// the last clone, which a deadline policy forbids, and while every capability
// is held.
func (c *compiler) schedule(pr *specs.Process) {
	if s := pr.Scheduler; s != nil {
		attr := schedAttr(s)
		c.Call("set scheduler "+string(s.Policy), p.Setschedattr, p.Int(0), c.Data(attr, string(s.Policy)), p.Int(0))
	}
	if io := pr.IOPriority; io != nil {
		class, _ := ioClass(io.Class)
		c.Call("set I/O priority", p.IoprioSet, p.Flag(ioprioWhoProcess, "IOPRIO_WHO_PROCESS"), p.Int(0),
			p.Flag(class<<ioprioClassShift|uint64(io.Priority), string(io.Class)+"|"+strconv.Itoa(io.Priority)))
	}
}

// linux/ioprio.h
const (
	ioprioWhoProcess = 1
	ioprioClassShift = 13
)

func ioClass(name specs.IOPriorityClass) (uint64, bool) {
	switch name {
	case specs.IOPRIO_CLASS_RT:
		return 1, true
	case specs.IOPRIO_CLASS_BE:
		return 2, true
	case specs.IOPRIO_CLASS_IDLE:
		return 3, true
	}
	return 0, false
}

// schedAttr is the kernel's struct sched_attr (sched_setattr(2)). The
// specification has flags for the utilisation clamps but no values: they are 0.
func schedAttr(s *specs.Scheduler) []byte {
	policy, _ := schedPolicy(s.Policy)
	var flags uint64
	for _, f := range s.Flags {
		bit, _ := schedFlag(f)
		flags |= bit
	}
	b := make([]byte, unix.SizeofSchedAttr)
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(len(b)))
	le.PutUint32(b[4:], policy)
	le.PutUint64(b[8:], flags)
	le.PutUint32(b[16:], uint32(s.Nice))
	le.PutUint32(b[20:], uint32(s.Priority))
	le.PutUint64(b[24:], s.Runtime)
	le.PutUint64(b[32:], s.Deadline)
	le.PutUint64(b[40:], s.Period)
	return b
}

func schedPolicy(name specs.LinuxSchedulerPolicy) (uint32, bool) {
	switch name {
	case specs.SchedOther:
		return unix.SCHED_NORMAL, true
	case specs.SchedFIFO:
		return unix.SCHED_FIFO, true
	case specs.SchedRR:
		return unix.SCHED_RR, true
	case specs.SchedBatch:
		return unix.SCHED_BATCH, true
	case specs.SchedISO:
		return 4, true // reserved by the kernel, which has no such policy and says so
	case specs.SchedIdle:
		return unix.SCHED_IDLE, true
	case specs.SchedDeadline:
		return unix.SCHED_DEADLINE, true
	}
	return 0, false
}

func schedFlag(name specs.LinuxSchedulerFlag) (uint64, bool) {
	switch name {
	case specs.SchedFlagResetOnFork:
		return unix.SCHED_FLAG_RESET_ON_FORK, true
	case specs.SchedFlagReclaim:
		return unix.SCHED_FLAG_RECLAIM, true
	case specs.SchedFlagDLOverrun:
		return unix.SCHED_FLAG_DL_OVERRUN, true
	case specs.SchedFlagKeepPolicy:
		return unix.SCHED_FLAG_KEEP_POLICY, true
	case specs.SchedFlagKeepParams:
		return unix.SCHED_FLAG_KEEP_PARAMS, true
	case specs.SchedFlagUtilClampMin:
		return unix.SCHED_FLAG_UTIL_CLAMP_MIN, true
	case specs.SchedFlagUtilClampMax:
		return unix.SCHED_FLAG_UTIL_CLAMP_MAX, true
	}
	return 0, false
}

// checkSchedule refuses what the kernel would misunderstand or ignore.
func checkSchedule(pr *specs.Process) error {
	if pr.Scheduler != nil {
		if err := checkScheduler(pr.Scheduler); err != nil {
			return err
		}
	}
	if io := pr.IOPriority; io != nil {
		if _, ok := ioClass(io.Class); !ok {
			return invalid("process.ioPriority.class %q: must be IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE", io.Class)
		}
		if io.Priority < 0 || io.Priority > 7 {
			return invalid("process.ioPriority.priority %d: must be 0 to 7", io.Priority)
		}
	}
	if a := pr.ExecCPUAffinity; a != nil {
		for _, f := range []struct{ name, list string }{{"initial", a.Initial}, {"final", a.Final}} {
			if _, ok := parseList(f.list); !ok {
				return invalid("process.execCPUAffinity.%s %q: must be a list of processors like 0-3,7", f.name, f.list)
			}
		}
	}
	return nil
}

func checkScheduler(s *specs.Scheduler) error {
	if _, ok := schedPolicy(s.Policy); !ok {
		return invalid("process.scheduler.policy %q: unknown", s.Policy)
	}
	for _, f := range s.Flags {
		if _, ok := schedFlag(f); !ok {
			return invalid("process.scheduler.flags: unknown flag %q", f)
		}
	}
	realTime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return invalid("process.scheduler.nice %d: must be -20 to 19", s.Nice)
	case s.Priority != 0 && !realTime:
		return invalid("process.scheduler.priority: only for SCHED_FIFO and SCHED_RR")
	case realTime && (s.Priority < 1 || s.Priority > 99):
		return invalid("process.scheduler.priority %d: must be 1 to 99 for %s", s.Priority, s.Policy)
	case s.Policy != specs.SchedDeadline && (s.Runtime|s.Deadline|s.Period) != 0:
		return invalid("process.scheduler: runtime, deadline and period: only for SCHED_DEADLINE")
	}
	return nil
}

const processorsStep = "run on processors "

// finalCPUs is where an exec runs once it is in the container's cgroup.
func (c *compiler) finalCPUs(pr *specs.Process) {
	if a := pr.ExecCPUAffinity; a != nil && a.Final != "" {
		mask := listMask(a.Final)
		c.Call(processorsStep+a.Final, p.Setaffinity, p.Int(0), p.Int(len(mask)), c.Data(mask, a.Final))
	}
}

// startOn starts the interpreter on the processors of the list, "" for any: a
// new process has those of the thread that makes it, until its cgroup says
// otherwise.
func (r *Runner) startOn(list string, l *p.Launch) (pid int, pidfd *os.File, err error) {
	if list == "" {
		return r.interpreter.Start(l)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		before := unix.NewCPUSet(maxListed + 1)
		set := unix.NewCPUSet(maxListed + 1)
		eachListed(list, set.Set)
		if err = errors.Join(unix.SchedGetaffinityDynamic(0, before), unix.SchedSetaffinityDynamic(0, set)); err != nil {
			err = fmt.Errorf("%s%s: %w", processorsStep, list, err)
		} else {
			pid, pidfd, err = r.interpreter.Start(l)
		}
		if unix.SchedSetaffinityDynamic(0, before) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with this function
	}()
	<-done
	return pid, pidfd, err
}

// memoryPolicy says from which memory nodes the command's memory comes.
func (c *compiler) memoryPolicy() {
	m := c.spec.Linux.MemoryPolicy
	if m == nil {
		return
	}
	mode, _ := memoryMode(m.Mode)
	text := string(m.Mode)
	for _, f := range m.Flags {
		bit, _ := memoryFlag(f)
		mode |= bit
		text += "|" + string(f)
	}
	nodes, bits := p.Null, 0
	if m.Nodes != "" {
		mask := listMask(m.Nodes)
		// The kernel counts one less (set_mempolicy(2), "maxnode").
		nodes, bits = c.Data(mask, m.Nodes), 8*len(mask)+1
	}
	c.Call("set memory policy "+text, p.Setmempolicy, p.Flag(mode, text), nodes, p.Int(bits))
}

func memoryMode(name specs.MemoryPolicyModeType) (uint64, bool) {
	switch name {
	case specs.MpolDefault:
		return unix.MPOL_DEFAULT, true
	case specs.MpolPreferred:
		return unix.MPOL_PREFERRED, true
	case specs.MpolBind:
		return unix.MPOL_BIND, true
	case specs.MpolInterleave:
		return unix.MPOL_INTERLEAVE, true
	case specs.MpolLocal:
		return unix.MPOL_LOCAL, true
	case specs.MpolPreferredMany:
		return unix.MPOL_PREFERRED_MANY, true
	case specs.MpolWeightedInterleave:
		return unix.MPOL_WEIGHTED_INTERLEAVE, true
	}
	return 0, false
}

func memoryFlag(name specs.MemoryPolicyFlagType) (uint64, bool) {
	switch name {
	case specs.MpolFNumaBalancing:
		return unix.MPOL_F_NUMA_BALANCING, true
	case specs.MpolFRelativeNodes:
		return unix.MPOL_F_RELATIVE_NODES, true
	case specs.MpolFStaticNodes:
		return unix.MPOL_F_STATIC_NODES, true
	}
	return 0, false
}

func checkMemoryPolicy(m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	if _, ok := memoryMode(m.Mode); !ok {
		return invalid("linux.memoryPolicy.mode %q: unknown", m.Mode)
	}
	for _, f := range m.Flags {
		if _, ok := memoryFlag(f); !ok {
			return invalid("linux.memoryPolicy.flags: unknown flag %q", f)
		}
	}
	if _, ok := parseList(m.Nodes); !ok {
		return invalid("linux.memoryPolicy.nodes %q: must be a list of nodes like 0-3,7", m.Nodes)
	}
	switch m.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if m.Nodes != "" {
			return invalid("linux.memoryPolicy.nodes: %s takes none", m.Mode)
		}
	case specs.MpolPreferred: // with nodes or without
	default:
		if m.Nodes == "" {
			return invalid("linux.memoryPolicy.nodes: %s needs at least one", m.Mode)
		}
	}
	return nil
}

// maxListed is the highest processor or node a list may name: the kernel has
// far fewer of both.
const maxListed = 64<<10 - 1

// span is one part of a list, both ends included.
type span struct{ first, last int }

// parseList reads a list of numbers in the kernel's form: "0-3,7". "" is the
// empty list.
func parseList(list string) ([]span, bool) {
	if list == "" {
		return nil, true
	}
	var spans []span
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 32)
		b, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || a > b || b > maxListed {
			return nil, false
		}
		spans = append(spans, span{int(a), int(b)})
	}
	return spans, true
}

func eachListed(list string, do func(n int)) {
	spans, _ := parseList(list)
	for _, s := range spans {
		for n := s.first; n <= s.last; n++ {
			do(n)
		}
	}
}

// listMask is a checked list as the kernel's bit mask: little-endian, in whole
// words.
func listMask(list string) []byte {
	var mask []byte
	eachListed(list, func(n int) {
		for len(mask) <= n/8 {
			mask = append(mask, make([]byte, 8)...)
		}
		mask[n/8] |= 1 << (n % 8)
	})
	return mask
}
