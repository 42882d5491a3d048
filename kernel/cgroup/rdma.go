package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// rdma compiles the limits of RDMA devices' handles and objects; a figure that is
// not given stays. The file is the same on both versions (cgroup-v1/rdma.rst).
func (c *compiler) rdma(limits map[string]specs.LinuxRdma) {
	for _, device := range slices.Sorted(maps.Keys(limits)) {
		field, l := "rdma."+device, limits[device]
		if !isWord(device) {
			c.invalid("rdma", strconv.Quote(device), "not the name of an RDMA device")
			return
		}
		if l.HcaHandles == nil && l.HcaObjects == nil {
			c.invalid(field, "{}", "neither hcaHandles nor hcaObjects")
			return
		}
		if c.version("rdma", field) == 0 {
			return
		}
		v := device
		if l.HcaHandles != nil {
			v += fmt.Sprintf(" hca_handle=%d", *l.HcaHandles)
		}
		if l.HcaObjects != nil {
			v += fmt.Sprintf(" hca_object=%d", *l.HcaObjects)
		}
		c.add(setting{controller: "rdma", field: field, file: "rdma.max", value: v, unset: device + " hca_handle=max hca_object=max"})
	}
}
