package cgroup

import (
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// io compiles weights and throttles of block devices.
func (c *compiler) io(io *specs.LinuxBlockIO) {
	if value(io.LeafWeight) != 0 {
		c.unsupported("blockIO.leafWeight", "Linux has none since 5.0")
	}
	for _, d := range io.WeightDevice {
		if value(d.LeafWeight) != 0 {
			c.unsupported("blockIO.weightDevice.leafWeight", "Linux has none since 5.0")
		}
	}
	c.ioWeights(io)
	c.ioThrottles(io)
}

// ioWeights prefers the BFQ scheduler's weights and takes CFQ's (v1) or iocost's
// (v2) where BFQ is not.
func (c *compiler) ioWeights(io *specs.LinuxBlockIO) {
	if n := value(io.Weight); n != 0 {
		c.ioWeight("blockIO.weight", "", n)
	}
	for _, d := range io.WeightDevice {
		if n := value(d.Weight); n != 0 {
			c.ioWeight("blockIO.weightDevice", fmt.Sprintf("%d:%d ", d.Major, d.Minor), n)
		}
	}
}

// ioWeight compiles one weight; device is "MAJOR:MINOR " or empty for all.
func (c *compiler) ioWeight(field, device string, n uint16) {
	if n < 10 || n > 1000 {
		c.invalid(field, n, "not between 10 and 1000")
		return
	}
	plain := device + strconv.Itoa(int(n))
	suffix, unset := "", ""
	if device != "" {
		suffix, unset = "_device", device+"default"
	}
	switch c.ioVersion(field) {
	case 1:
		c.add(setting{controller: "blkio", field: field, file: "blkio.bfq.weight" + suffix, value: plain, unset: unset,
			otherwise: &setting{controller: "blkio", field: field, file: "blkio.weight" + suffix, value: plain, unset: unset}})
	case 2:
		c.add(setting{controller: "io", field: field, file: "io.bfq.weight", value: plain, unset: unset,
			otherwise: &setting{controller: "io", field: field, file: "io.weight",
				value: device + strconv.Itoa(ioWeightV2(n)), unset: unset}})
	}
}

// ioWeightV2 stretches v1's 10..1000 to v2's 1..10000.
func ioWeightV2(n uint16) int { return 1 + (int(n)-10)*9999/990 }

// ioVersion is version for the controller that v1 calls blkio and v2 io.
func (c *compiler) ioVersion(field string) int {
	if b := c.g.branch("blkio"); b != nil {
		return 1
	}
	return c.version("io", field)
}

func (c *compiler) ioThrottles(io *specs.LinuxBlockIO) {
	for _, t := range []struct {
		field, v1, v2 string
		devices       []specs.LinuxThrottleDevice
	}{
		{"blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", io.ThrottleReadBpsDevice},
		{"blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", io.ThrottleWriteBpsDevice},
		{"blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", io.ThrottleReadIOPSDevice},
		{"blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", io.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			switch c.ioVersion(t.field) {
			case 1:
				c.add(setting{controller: "blkio", field: t.field, file: t.v1,
					value: fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), unset: fmt.Sprintf("%d:%d 0", d.Major, d.Minor)})
			case 2:
				c.add(setting{controller: "io", field: t.field, file: "io.max",
					value: fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, t.v2, ioRate(d.Rate)),
					unset: fmt.Sprintf("%d:%d rbps=max wbps=max riops=max wiops=max", d.Major, d.Minor)})
			}
		}
	}
}

// ioRate: the 0 that lifts a throttle on v1 is an error in io.max.
func ioRate(n uint64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatUint(n, 10)
}
