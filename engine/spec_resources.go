package engine

import (
	"os"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cfsPeriod is the scheduler period in microseconds that --cpus is a share of.
const cfsPeriod = 100000

// specResources writes checked limits in OCI's words; devices are added apart.
func specResources(r *container.Resources) *specs.LinuxResources {
	return &specs.LinuxResources{
		Memory:  memoryResources(r),
		CPU:     cpuResources(r),
		Pids:    pidsResources(r),
		BlockIO: blockIOResources(r),
	}
}

func memoryResources(r *container.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{DisableOOMKiller: r.OomKillDisable}
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwap > 0 || r.MemorySwap == -1 && r.Memory > 0 {
		m.Swap = &r.MemorySwap
	}
	if r.MemorySwappiness != nil {
		v := uint64(*r.MemorySwappiness)
		m.Swappiness = &v
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpuResources(r *container.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		v := uint64(r.CPUShares)
		c.Shares = &v
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cfsPeriod), r.NanoCPUs*cfsPeriod/1e9
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod != 0 {
		v := uint64(r.CPUPeriod)
		c.Period = &v
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod != 0 {
		v := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &v
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

// pidsResources maps Docker's 0 and -1 to OCI's -1: no limit.
func pidsResources(r *container.Resources) *specs.LinuxPids {
	if r.PidsLimit == nil {
		return nil
	}
	limit := *r.PidsLimit
	if limit <= 0 {
		limit = -1
	}
	return &specs.LinuxPids{Limit: &limit}
}

// blockIOResources looks the devices' numbers up; paths that are no devices
// were refused at creation.
func blockIOResources(r *container.Resources) *specs.LinuxBlockIO {
	b := &specs.LinuxBlockIO{
		ThrottleReadBpsDevice:   throttles(r.BlkioDeviceReadBps),
		ThrottleWriteBpsDevice:  throttles(r.BlkioDeviceWriteBps),
		ThrottleReadIOPSDevice:  throttles(r.BlkioDeviceReadIOps),
		ThrottleWriteIOPSDevice: throttles(r.BlkioDeviceWriteIOps),
	}
	if r.BlkioWeight != 0 {
		b.Weight = &r.BlkioWeight
	}
	for _, d := range r.BlkioWeightDevice {
		if major, minor, err := deviceNumber(d.Path); err == nil {
			w := specs.LinuxWeightDevice{Weight: &d.Weight}
			w.Major, w.Minor = major, minor
			b.WeightDevice = append(b.WeightDevice, w)
		}
	}
	if b.Weight == nil && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+len(b.ThrottleWriteBpsDevice)+
		len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0 {
		return nil
	}
	return b
}

func throttles(list []*blkiodev.ThrottleDevice) []specs.LinuxThrottleDevice {
	var out []specs.LinuxThrottleDevice
	for _, d := range list {
		if major, minor, err := deviceNumber(d.Path); err == nil {
			t := specs.LinuxThrottleDevice{Rate: d.Rate}
			t.Major, t.Minor = major, minor
			out = append(out, t)
		}
	}
	return out
}

// deviceNumber is the number of the block device at path.
func deviceNumber(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, errdefs.As(errdefs.ErrInvalid, &os.PathError{Op: "stat", Path: path, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, invalidf("%s is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
