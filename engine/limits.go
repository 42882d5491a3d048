package engine

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// minMemory is the least memory limit, as Docker's: below it a container
// hardly starts.
const minMemory = 6 << 20

// checkResources checks limits by Docker's rules. What this host cannot do is
// taken out of r with a warning where Docker does so, refused where Docker
// refuses. update says that r changes an existing container.
func checkResources(r *container.Resources, h *hostFacts, update bool) ([]string, error) {
	if err := refuseResources(r); err != nil {
		return nil, err
	}
	var warnings []string
	warn := func(s string) { warnings = append(warnings, s) }
	if err := checkMemory(r, h, update, warn); err != nil {
		return warnings, err
	}
	if err := checkCPU(r, h, warn); err != nil {
		return warnings, err
	}
	if r.PidsLimit != nil && !h.controllers["pids"] {
		if *r.PidsLimit > 0 {
			warn("this host has no pids cgroup controller; the pids limit is discarded")
		}
		r.PidsLimit = nil
	}
	return warnings, checkBlockIO(r, h, warn)
}

// refuseResources names what is not done yet.
func refuseResources(r *container.Resources) error {
	for _, f := range []struct {
		set  bool
		name string
	}{
		{r.CPUCount != 0 || r.CPUPercent != 0, "--cpu-count and --cpu-percent (Windows only)"},
		{r.IOMaximumIOps != 0 || r.IOMaximumBandwidth != 0, "--io-maxiops and --io-maxbandwidth (Windows only)"},
	} {
		if f.set {
			return errUnsupported(f.name)
		}
	}
	return nil
}

func checkMemory(r *container.Resources, h *hostFacts, update bool, warn func(string)) error {
	if r.Memory != 0 && r.Memory < minMemory {
		return errdefs.WithHint(invalidf("minimum memory limit allowed is 6MB"), "give --memory at least 6m")
	}
	if !h.controllers["memory"] && (r.Memory > 0 || r.MemorySwap > 0 || r.MemoryReservation > 0) {
		warn("this host has no memory cgroup controller; memory limits are discarded")
		r.Memory, r.MemorySwap, r.MemoryReservation, r.MemorySwappiness = 0, 0, 0, nil
	}
	if r.MemorySwap > 0 && !h.swapLimit {
		warn("this host cannot limit swap; memory is limited without it")
	}
	if r.Memory > 0 && !h.swapLimit {
		r.MemorySwap = -1
	}
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory // as much swap as memory, Docker's default
	}
	switch {
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errdefs.WithHint(invalidf("minimum memoryswap limit should be larger than memory limit"),
			"give --memory-swap too: memory and swap together, or -1")
	case r.Memory == 0 && r.MemorySwap > 0 && !update:
		return invalidf("a memoryswap limit needs a memory limit")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return invalidf("invalid memory swappiness %d: valid range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return invalidf("minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return invalidf("minimum memory limit can not be less than memory reservation limit")
	}
	checkMemoryV1Only(r, h, warn)
	return nil
}

// checkMemoryV1Only drops what cgroup v2 has no word for.
func checkMemoryV1Only(r *container.Resources, h *hostFacts, warn func(string)) {
	if r.MemorySwappiness != nil && (h.unified || *r.MemorySwappiness == -1) {
		if *r.MemorySwappiness != -1 {
			warn("cgroup v2 has no memory swappiness; it is discarded")
		}
		r.MemorySwappiness = nil
	}
	if r.OomKillDisable != nil && h.unified {
		if *r.OomKillDisable {
			warn("cgroup v2 cannot disable the OOM killer; --oom-kill-disable is discarded")
		}
		r.OomKillDisable = nil
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		warn("the OOM killer is disabled for the container but no memory limit is set: the host can run out of memory")
	}
}

func checkCPU(r *container.Resources, h *hostFacts, warn func(string)) error {
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return invalidf("conflicting options: cpus and cpu-period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return invalidf("conflicting options: cpus and cpu-quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(h.cpus)*1e9:
		return invalidf("range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", h.cpus)
	case r.CPUShares < 0:
		return invalidf("invalid CPU shares (%d): must not be negative", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalidf("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalidf("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	if err := checkRealtime(r, h); err != nil {
		return err
	}
	if !h.controllers["cpu"] && (r.NanoCPUs != 0 || r.CPUShares != 0 || r.CPUPeriod != 0 || r.CPUQuota != 0) {
		warn("this host has no cpu cgroup controller; CPU limits are discarded")
		r.NanoCPUs, r.CPUShares, r.CPUPeriod, r.CPUQuota = 0, 0, 0, 0
	}
	if !h.controllers["cpuset"] && (r.CpusetCpus != "" || r.CpusetMems != "") {
		warn("this host has no cpuset cgroup controller; the cpuset is discarded")
		r.CpusetCpus, r.CpusetMems = "", ""
	}
	if err := checkList(r.CpusetCpus, h.cpus); err != nil {
		return fmt.Errorf("invalid value %q for cpuset cpus: %w", r.CpusetCpus, err)
	}
	if err := checkList(r.CpusetMems, 0); err != nil {
		return fmt.Errorf("invalid value %q for cpuset mems: %w", r.CpusetMems, err)
	}
	return nil
}

// checkRealtime checks the real-time shares, which only the cpu controller of
// cgroup v1 has, in kernels made for it (CONFIG_RT_GROUP_SCHED).
func checkRealtime(r *container.Resources, h *hostFacts) error {
	switch {
	case r.CPURealtimePeriod == 0 && r.CPURealtimeRuntime == 0:
		return nil
	case !h.realtime:
		return errdefs.WithHint(errUnsupported("--cpu-rt-period and --cpu-rt-runtime"),
			"they need cgroup v1 and a kernel with CONFIG_RT_GROUP_SCHED")
	case r.CPURealtimePeriod < 0 || r.CPURealtimeRuntime < 0:
		return invalidf("CPU real-time period and runtime must not be negative")
	case r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return invalidf("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	return nil
}

// checkList checks a cpuset list such as 0-2,4 against the number there are;
// 0 leaves the number to the kernel.
func checkList(list string, count int) error {
	if list == "" {
		return nil
	}
	for _, part := range strings.Split(list, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, err := strconv.ParseUint(lo, 10, 16)
		if err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
		b, err := strconv.ParseUint(hi, 10, 16)
		if err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
		if a > b {
			return invalidf("range %s is backwards", part)
		}
		if count > 0 && b >= uint64(count) {
			return invalidf("CPU %d is not available: there are %d", b, count)
		}
	}
	return nil
}

func checkBlockIO(r *container.Resources, h *hostFacts, warn func(string)) error {
	if r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return invalidf("range of blkio weight is from 10 to 1000")
	}
	any := r.BlkioWeight != 0 || len(r.BlkioWeightDevice)+len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+
		len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0
	if any && !h.controllers["blkio"] {
		warn("this host has no block I/O cgroup controller; block I/O limits are discarded")
		r.BlkioWeight, r.BlkioWeightDevice = 0, nil
		r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = nil, nil, nil, nil
	}
	if (r.BlkioWeight != 0 || len(r.BlkioWeightDevice) > 0) && h.controllers["blkio"] && !h.weights {
		warn("this kernel has no block I/O weights (no scheduler with weights is built in); they are discarded")
		r.BlkioWeight, r.BlkioWeightDevice = 0, nil
	}
	return checkBlockDevices(r)
}

// checkBlockDevices refuses settings for what is no block device.
func checkBlockDevices(r *container.Resources) error {
	for _, d := range r.BlkioWeightDevice {
		if d.Weight != 0 && (d.Weight < 10 || d.Weight > 1000) {
			return invalidf("range of blkio weight is from 10 to 1000, not %d (%s)", d.Weight, d.Path)
		}
		if _, _, err := deviceNumber(d.Path); err != nil {
			return err
		}
	}
	for _, list := range [][]*blkiodev.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps} {
		for _, d := range list {
			if _, _, err := deviceNumber(d.Path); err != nil {
				return err
			}
		}
	}
	return nil
}
