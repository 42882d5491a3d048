package cgroup

import (
	"fmt"
	"strconv"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// memory compiles the memory limits. In all of them 0 means unset, as in runc.
func (c *compiler) memory(m *specs.LinuxMemory) {
	c.refuseMemory(m)
	if m.Limit == nil && m.Reservation == nil && m.Swap == nil && m.Swappiness == nil && !value(m.DisableOOMKiller) && value(m.KernelTCP) == 0 {
		return
	}
	c.checkSize("memory.limit", m.Limit)
	c.checkSize("memory.reservation", m.Reservation)
	c.checkSize("memory.swap", m.Swap)
	c.checkSize("memory.kernelTCP", m.KernelTCP)
	switch c.version("memory", "memory") {
	case 1:
		c.memoryV1(m)
	case 2:
		c.memoryV2(m)
	}
}

func (c *compiler) checkSize(field string, n *int64) {
	if value(n) < -1 {
		c.invalid(field, *n, "neither a size nor -1")
	}
}

// Ignored lists the fields which have no effect because no kernel knows them any
// more, in words for a warning. The specification lets a runtime ignore them.
func Ignored(res *specs.LinuxResources) []string {
	//lint:ignore SA1019 the field is read to tell of it, not to use it
	if res == nil || res.Memory == nil || value(res.Memory.Kernel) == 0 {
		return nil
	}
	return []string{"memory.kernel: Linux has no separate limit of kernel memory since 5.16"}
}

// refuseMemory refuses what no supported kernel has any more.
func (c *compiler) refuseMemory(m *specs.LinuxMemory) {
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		c.unsupported("memory.useHierarchy", "Linux always accounts memory hierarchically since 5.11")
	}
}

// memoryV1 knows that the kernel wants limit <= memory+swap limit at every
// moment: whichever of the two must go first, the other is tried again.
func (c *compiler) memoryV1(m *specs.LinuxMemory) {
	swap := value(m.Swap)
	noSwapLimit := value(m.Limit) == -1 && swap == 0 // unlimited memory includes swap, as in runc
	if n := value(m.Limit); n != 0 {
		c.add(setting{controller: "memory", field: "memory.limit", file: "memory.limit_in_bytes",
			value: limit(n, false), reorder: true})
	}
	if noSwapLimit {
		swap = -1
	}
	if swap != 0 {
		c.add(setting{controller: "memory", field: "memory.swap", file: "memory.memsw.limit_in_bytes",
			value: limit(swap, false), reorder: true, optional: noSwapLimit})
	}
	if n := value(m.Reservation); n != 0 {
		c.add(setting{controller: "memory", field: "memory.reservation", file: "memory.soft_limit_in_bytes", value: limit(n, false)})
	}
	if n := value(m.KernelTCP); n != 0 {
		c.add(setting{controller: "memory", field: "memory.kernelTCP", file: "memory.kmem.tcp.limit_in_bytes", value: limit(n, false)})
	}
	if value(m.DisableOOMKiller) {
		c.add(setting{controller: "memory", field: "memory.disableOOMKiller", file: "memory.oom_control", value: "1"})
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
		if *m.Swappiness > 100 {
			c.invalid("memory.swappiness", *m.Swappiness, "not between 0 and 100")
		}
		c.add(setting{controller: "memory", field: "memory.swappiness", file: "memory.swappiness",
			value: strconv.FormatUint(*m.Swappiness, 10)})
	}
}

func (c *compiler) memoryV2(m *specs.LinuxMemory) {
	if value(m.DisableOOMKiller) {
		c.unsupported("memory.disableOOMKiller", "cgroup v2 cannot, needs cgroup v1")
	}
	if value(m.KernelTCP) != 0 {
		c.unsupported("memory.kernelTCP", "cgroup v2 counts socket buffers as memory, needs cgroup v1")
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
		c.unsupported("memory.swappiness", "cgroup v2 has it for the whole host only")
	}
	if s, ok := c.swapV2(value(m.Swap), value(m.Limit)); ok {
		// A kernel without swap neither limits nor needs to forbid it.
		c.add(setting{controller: "memory", field: "memory.swap", file: "memory.swap.max", value: s, optional: s == "0" || s == "max"})
	}
	if n := value(m.Limit); n != 0 {
		c.add(setting{controller: "memory", field: "memory.limit", file: "memory.max", value: limit(n, true)})
	}
	if n := value(m.Reservation); n != 0 {
		c.add(setting{controller: "memory", field: "memory.reservation", file: "memory.low", value: limit(n, true)})
	}
}

// swapV2 returns the value of memory.swap.max. The spec's figure is memory and
// swap together, v2's is swap alone. ok is false when it is not to be touched.
func (c *compiler) swapV2(swap, memory int64) (string, bool) {
	if memory == -1 && swap == 0 {
		return "max", true // unlimited memory includes swap, as in runc
	}
	if swap == 0 {
		return "", false
	}
	if swap == -1 {
		return "max", true
	}
	if memory == 0 {
		memory = c.currentMemoryLimit()
	}
	switch {
	case memory == -1:
		return strconv.FormatInt(swap, 10), true
	case memory == 0:
		c.invalid("memory.swap", swap, "counts memory and swap together, which needs memory.limit")
	case swap < memory:
		c.invalid("memory.swap", swap, fmt.Sprintf("counts memory and swap together, so it cannot be below memory.limit (%d)", memory))
	}
	return strconv.FormatInt(swap-memory, 10), true
}

// currentMemoryLimit returns the v2 limit in force, 0 when there is none to read.
func (c *compiler) currentMemoryLimit() int64 {
	if c.fresh {
		return 0
	}
	n, err := c.g.branch("memory").readUint("memory.max")
	if err != nil {
		c.fail(err)
		return 0
	}
	if n == Unlimited {
		return -1
	}
	return int64(n)
}

// checkUsage carries out memory.checkBeforeUpdate on v2, where the kernel would
// start to kill at once. On v1 the kernel itself refuses a limit below the use.
func (g *Group) checkUsage(res *specs.LinuxResources) error {
	if res == nil || res.Memory == nil || !value(res.Memory.CheckBeforeUpdate) || value(res.Memory.Limit) <= 0 {
		return nil
	}
	b := g.branch("memory")
	if b == nil || !b.v2 {
		return nil
	}
	used, err := b.readUint("memory.current")
	if err != nil {
		return classify(err)
	}
	if want := uint64(*res.Memory.Limit); used > want {
		return fmt.Errorf("set memory.limit of cgroup %s to %d: it uses %d now: %w", g.path, want, used, errdefs.ErrConflict)
	}
	return nil
}
