package cgroup

import (
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cpu compiles weight, quota and real-time shares. 0 means unset, as in runc,
// but for idle and burst. While a group is idle it has the least weight, and the
// kernel takes no other: shares are left out then.
func (c *compiler) cpu(p *specs.LinuxCPU) {
	realtime := value(p.RealtimeRuntime) != 0 || value(p.RealtimePeriod) != 0
	if value(p.Shares) == 0 && value(p.Quota) == 0 && value(p.Period) == 0 && p.Burst == nil && p.Idle == nil && !realtime {
		return
	}
	switch c.version("cpu", "cpu") {
	case 1:
		c.cpuV1(p)
		c.realtimeV1(p)
	case 2:
		if realtime {
			c.unsupported("cpu.realtimeRuntime, cpu.realtimePeriod", "cgroup v2 has no real-time shares")
		}
		c.cpuV2(p)
	}
}

// cpuV1: the kernel checks quota/period against the parent's and burst against
// quota at every step, hence reorder.
func (c *compiler) cpuV1(p *specs.LinuxCPU) {
	add := func(field, file, v string) {
		c.add(setting{controller: "cpu", field: field, file: file, value: v, reorder: true})
	}
	if p.Idle != nil { // first: the kernel takes no shares while it is 1
		add("cpu.idle", "cpu.idle", strconv.FormatInt(*p.Idle, 10))
	}
	if n := value(p.Shares); n != 0 && value(p.Idle) != 1 {
		add("cpu.shares", "cpu.shares", strconv.FormatUint(n, 10))
	}
	if n := value(p.Period); n != 0 {
		add("cpu.period", "cpu.cfs_period_us", strconv.FormatUint(n, 10))
	}
	if n := value(p.Quota); n != 0 {
		add("cpu.quota", "cpu.cfs_quota_us", strconv.FormatInt(max(n, -1), 10))
	}
	if p.Burst != nil {
		add("cpu.burst", "cpu.cfs_burst_us", strconv.FormatUint(*p.Burst, 10))
	}
}

func (c *compiler) realtimeV1(p *specs.LinuxCPU) {
	if n := value(p.RealtimePeriod); n != 0 {
		c.add(setting{controller: "cpu", field: "cpu.realtimePeriod", file: "cpu.rt_period_us",
			value: strconv.FormatUint(n, 10), reorder: true})
	}
	if n := value(p.RealtimeRuntime); n != 0 {
		c.add(setting{controller: "cpu", field: "cpu.realtimeRuntime", file: "cpu.rt_runtime_us",
			value: strconv.FormatInt(n, 10), reorder: true})
	}
}

// cpuV2 writes idle first: the kernel takes no weight while it is 1.
func (c *compiler) cpuV2(p *specs.LinuxCPU) {
	if p.Idle != nil {
		c.add(setting{controller: "cpu", field: "cpu.idle", file: "cpu.idle", value: strconv.FormatInt(*p.Idle, 10)})
	}
	if n := value(p.Shares); n != 0 && value(p.Idle) != 1 {
		c.add(setting{controller: "cpu", field: "cpu.shares", file: "cpu.weight",
			value: strconv.FormatUint(sharesToWeight(n), 10), reorder: true})
	}
	if p.Burst != nil {
		c.add(setting{controller: "cpu", field: "cpu.burst", file: "cpu.max.burst",
			value: strconv.FormatUint(*p.Burst, 10), reorder: true})
	}
	if v := c.cpuMax(value(p.Quota), value(p.Period)); v != "" {
		c.add(setting{controller: "cpu", field: "cpu.quota", file: "cpu.max", value: v, reorder: true})
	}
}

// cpuMax returns the value of cpu.max, "QUOTA PERIOD" in µs. The kernel keeps the
// period when it is left out; the quota has to be repeated.
func (c *compiler) cpuMax(quota int64, period uint64) string {
	if quota == 0 && period == 0 {
		return ""
	}
	v := "max"
	if quota > 0 {
		v = strconv.FormatInt(quota, 10)
	} else if quota == 0 && !c.fresh {
		now, err := c.g.branch("cpu").read("cpu.max")
		if err != nil {
			c.fail(err)
		}
		v, _, _ = strings.Cut(now, " ")
	}
	if period != 0 {
		v += " " + strconv.FormatUint(period, 10)
	}
	return v
}

// sharesToWeight converts v1's cpu.shares (2 to 262144, default 1024) to v2's
// cpu.weight (1 to 10000, default 100). The curve goes through both ends and both
// defaults; it is opencontainers/cgroups' and crun's since 2025, replacing a line
// under which the default 1024 became 39.
func sharesToWeight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (c *compiler) cpuset(p *specs.LinuxCPU) {
	if p.Cpus == "" && p.Mems == "" || c.version("cpuset", "cpu.cpus, cpu.mems") == 0 {
		return
	}
	if p.Cpus != "" {
		c.add(setting{controller: "cpuset", field: "cpu.cpus", file: "cpuset.cpus", value: p.Cpus})
	}
	if p.Mems != "" {
		c.add(setting{controller: "cpuset", field: "cpu.mems", file: "cpuset.mems", value: p.Mems})
	}
}
