package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ContainerUpdate changes limits and the restart policy; of a running
// container at once. Zero fields stay as they are.
func (e *Engine) ContainerUpdate(ctx context.Context, ref string, upd *container.UpdateConfig) (container.UpdateResponse, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return container.UpdateResponse{}, err
	}
	if err := c.lock(ctx); err != nil {
		return container.UpdateResponse{}, err
	}
	defer c.unlock()
	if st := c.rec.State.Status; st == stateRemoving || st == stateDead {
		return container.UpdateResponse{}, invalidf("container %s is %s and cannot be updated", short(c.id), st)
	}
	warnings, err := e.update(c, upd)
	if warnings == nil {
		warnings = []string{}
	}
	return container.UpdateResponse{Warnings: warnings}, err
}

// update does it. The caller holds act. The record comes first; if the kernel
// refuses a limit, the old record is put back.
func (e *Engine) update(c *ctr, upd *container.UpdateConfig) ([]string, error) {
	old := c.rec.HostConfig
	hc := *old
	if err := refuseUpdate(&upd.Resources); err != nil {
		return nil, err
	}
	mergeLimits(&hc.Resources, &upd.Resources)
	if upd.RestartPolicy.Name != "" {
		if err := container.ValidateRestartPolicy(upd.RestartPolicy); err != nil {
			return nil, invalidf("%w", err)
		}
		if hc.AutoRemove && !upd.RestartPolicy.IsNone() {
			return nil, invalidf("restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		hc.RestartPolicy = upd.RestartPolicy
	}
	warnings, err := checkResources(&hc.Resources, e.host, true)
	if err != nil {
		return warnings, err
	}
	if err := c.update(func(r *record) { r.HostConfig, r.State.Apply = &hc, r.State.active() }); err != nil {
		return warnings, err
	}
	fault.Here(fault.UpdateRecord)
	if err := e.applyLimits(c); err != nil {
		if undo := c.update(func(r *record) { r.HostConfig, r.State.Apply = old, false }); undo != nil {
			e.log.Error("undo update", "container", c.id, "err", undo)
		}
		return warnings, fmt.Errorf("update container %s: %w", short(c.id), err)
	}
	if c.rec.State.Apply {
		if err := c.update(func(r *record) { r.State.Apply = false }); err != nil {
			return warnings, err
		}
	}
	fault.Here(fault.UpdateDone)
	e.emitContainer(c.rec, events.ActionUpdate, nil)
	return warnings, nil
}

// applyLimits writes a running container's limits to its cgroup.
func (e *Engine) applyLimits(c *ctr) error {
	if !c.rec.State.active() {
		return nil
	}
	g, err := e.cgroup(c.rec)
	if err != nil {
		return err
	}
	defer g.Close()
	res := specResources(&c.rec.HostConfig.Resources)
	return g.Set(&specs.LinuxResources{Memory: res.Memory, CPU: res.CPU, Pids: res.Pids, BlockIO: res.BlockIO})
}

// mergeLimits puts what upd says over r. Setting one way to say a CPU limit
// ends the other.
func mergeLimits(r, upd *container.Resources) {
	set := func(to *int64, v int64) {
		if v != 0 {
			*to = v
		}
	}
	if upd.NanoCPUs != 0 {
		r.CPUPeriod, r.CPUQuota = 0, 0
	}
	if upd.CPUPeriod != 0 || upd.CPUQuota != 0 {
		r.NanoCPUs = 0
	}
	set(&r.NanoCPUs, upd.NanoCPUs)
	set(&r.CPUShares, upd.CPUShares)
	set(&r.CPUPeriod, upd.CPUPeriod)
	set(&r.CPUQuota, upd.CPUQuota)
	set(&r.CPURealtimePeriod, upd.CPURealtimePeriod)
	set(&r.CPURealtimeRuntime, upd.CPURealtimeRuntime)
	set(&r.Memory, upd.Memory)
	set(&r.MemorySwap, upd.MemorySwap)
	set(&r.MemoryReservation, upd.MemoryReservation)
	r.CpusetCpus = firstNonEmpty(upd.CpusetCpus, r.CpusetCpus)
	r.CpusetMems = firstNonEmpty(upd.CpusetMems, r.CpusetMems)
	if upd.PidsLimit != nil {
		r.PidsLimit = upd.PidsLimit
	}
	if upd.MemorySwappiness != nil {
		r.MemorySwappiness = upd.MemorySwappiness
	}
	mergeBlockIO(r, upd)
}

// mergeBlockIO sets the weights and rates of the devices upd names; those of
// others stay. A rate of 0 lifts the limit.
func mergeBlockIO(r, upd *container.Resources) {
	if upd.BlkioWeight != 0 {
		r.BlkioWeight = upd.BlkioWeight
	}
	for _, d := range upd.BlkioWeightDevice {
		r.BlkioWeightDevice = slices.DeleteFunc(slices.Clone(r.BlkioWeightDevice), func(o *blkiodev.WeightDevice) bool { return o.Path == d.Path })
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, d)
	}
	for _, l := range []struct {
		to  *[]*blkiodev.ThrottleDevice
		upd []*blkiodev.ThrottleDevice
	}{
		{&r.BlkioDeviceReadBps, upd.BlkioDeviceReadBps}, {&r.BlkioDeviceWriteBps, upd.BlkioDeviceWriteBps},
		{&r.BlkioDeviceReadIOps, upd.BlkioDeviceReadIOps}, {&r.BlkioDeviceWriteIOps, upd.BlkioDeviceWriteIOps},
	} {
		for _, d := range l.upd {
			*l.to = slices.DeleteFunc(slices.Clone(*l.to), func(o *blkiodev.ThrottleDevice) bool { return o.Path == d.Path })
			*l.to = append(*l.to, d)
		}
	}
}

// refuseUpdate names what is fixed when a container is made. (Docker takes
// these and does nothing with them.)
func refuseUpdate(upd *container.Resources) error {
	for _, f := range []struct {
		set  bool
		name string
	}{
		{len(upd.Devices) > 0, "Devices (--device)"},
		{len(upd.DeviceRequests) > 0, "DeviceRequests (--gpus)"},
		{len(upd.DeviceCgroupRules) > 0, "DeviceCgroupRules (--device-cgroup-rule)"},
		{len(upd.Ulimits) > 0, "Ulimits (--ulimit)"},
		{upd.CgroupParent != "", "CgroupParent (--cgroup-parent)"},
		{upd.OomKillDisable != nil, "OomKillDisable (--oom-kill-disable)"},
	} {
		if f.set {
			return errdefs.WithHint(invalidf("%s of a container cannot be changed", f.name), "make the container anew with the new value")
		}
	}
	return nil
}
