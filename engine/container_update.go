package engine

import (
	"context"
	"fmt"

	"github.com/berth-containers/berth/fault"
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
	if err := c.update(func(r *record) { r.HostConfig = &hc }); err != nil {
		return warnings, err
	}
	fault.Here(fault.UpdateRecord)
	if err := e.applyLimits(c); err != nil {
		if undo := c.update(func(r *record) { r.HostConfig = old }); undo != nil {
			e.log.Error("undo update", "container", c.id, "err", undo)
		}
		return warnings, fmt.Errorf("update container %s: %w", short(c.id), err)
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
	if upd.BlkioWeight != 0 {
		r.BlkioWeight = upd.BlkioWeight
	}
	if len(upd.DeviceRequests) > 0 {
		r.DeviceRequests = upd.DeviceRequests // refused by the check
	}
}
