package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/resctrl"
)

// Update changes the limits of a container that has not ended: what change
// leaves nil (or 0 where 0 means unset) stays as it is. Device rules, when given,
// replace all there were. The container's recorded specification changes with
// them. On error neither has changed. The warnings name what has no effect.
func (c *Container) Update(change *specs.LinuxResources) (warnings []string, err error) {
	if st := c.Status(); st != specs.StateRunning && st != specs.StateCreated && st != statePaused {
		return nil, errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s, not running", c.ID, st))
	}
	spec, err := c.Spec()
	if err != nil {
		return nil, err
	}
	recorded := spec.Linux.Resources
	if recorded == nil {
		recorded = &specs.LinuxResources{}
	}
	merged := mergeResources(recorded, change)
	// Written before the act and put in place after it.
	if err := c.stageResources(merged); err != nil {
		return nil, err
	}
	g, err := c.Group()
	if err == nil {
		err = c.setLimits(g, effective(recorded, merged, change), merged, recorded)
	}
	dir := int(c.dir.Fd())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("update container %s: %w", c.ID, err), unlink(dir, stagedConfig))
	}
	if err := unix.Renameat(dir, stagedConfig, dir, "config.json"); err != nil {
		return nil, fmt.Errorf("update container %s: write record: %w", c.ID, err)
	}
	return cgroup.Ignored(change), nil
}

// UpdateResctrl changes the shares of the container's class of service; "" leaves
// one as it is.
func (c *Container) UpdateResctrl(l3, bandwidth string) error {
	if c.Resctrl == nil {
		return fmt.Errorf("update container %s: its shares of caches and bandwidth: %w: needs a container with linux.intelRdt", c.ID, errdefs.ErrUnsupported)
	}
	plan, err := resctrl.New(&specs.LinuxIntelRdt{L3CacheSchema: l3, MemBwSchema: bandwidth}, c.ID)
	if err != nil {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("update container %s: %w", c.ID, err))
	}
	if err := c.Resctrl.Write(plan.Schemata); err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	return nil
}

// stagedConfig is a changed config.json that is not yet in force.
const stagedConfig = "config.json.new"

func unlink(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// effective is what to set: the change, and beside a changed value those recorded
// ones that it is counted with.
func effective(recorded, merged, change *specs.LinuxResources) *specs.LinuxResources {
	res := *change
	if m := change.Memory; m != nil && recorded.Memory != nil {
		both := *m
		// The specification's swap is memory and swap together: v2 keeps the difference.
		if set(m.Limit) && !set(m.Swap) && *m.Limit != -1 {
			both.Swap = recorded.Memory.Swap
		}
		if set(m.Swap) && !set(m.Limit) {
			both.Limit = recorded.Memory.Limit
		}
		res.Memory = &both
	}
	if p := change.CPU; p != nil && p.Idle != nil && *p.Idle == 0 && !set(p.Shares) {
		both := *p
		both.Shares = merged.CPU.Shares // an idle group has lost them
		res.CPU = &both
	}
	// Engines send the rules a container was created with along with any change.
	// Somebody else may have allowed it more devices meanwhile (a GPU's): they stay.
	if reflect.DeepEqual(change.Devices, recorded.Devices) {
		res.Devices = nil
	}
	if len(res.Devices) > 0 {
		res.Devices = withDefaultDevices(res.Devices)
	}
	return &res
}

// set tells whether a limit is given: in them 0 means unset.
func set[T int64 | uint64 | uint16](p *T) bool { return p != nil && *p != 0 }

// replace takes the new value over the old, unless it is not set.
func replace[T int64 | uint64 | uint16](old **T, value *T) {
	if set(value) {
		*old = value
	}
}

// mergeResources is recorded with change in it; neither is changed.
func mergeResources(recorded, change *specs.LinuxResources) *specs.LinuxResources {
	res := *recorded
	if m := change.Memory; m != nil {
		res.Memory = mergeMemory(valueOf(res.Memory), m)
	}
	if p := change.CPU; p != nil {
		res.CPU = mergeCPU(valueOf(res.CPU), p)
	}
	if change.Pids != nil && change.Pids.Limit != nil {
		res.Pids = change.Pids
	}
	if b := change.BlockIO; b != nil {
		res.BlockIO = mergeBlockIO(valueOf(res.BlockIO), b)
	}
	for _, l := range change.HugepageLimits {
		res.HugepageLimits = upsert(res.HugepageLimits, l, func(o specs.LinuxHugepageLimit) bool { return o.Pagesize == l.Pagesize })
	}
	if n := change.Network; n != nil {
		merged := valueOf(res.Network)
		if n.ClassID != nil {
			merged.ClassID = n.ClassID
		}
		for _, p := range n.Priorities {
			merged.Priorities = upsert(merged.Priorities, p, func(o specs.LinuxInterfacePriority) bool { return o.Name == p.Name })
		}
		res.Network = &merged
	}
	res.Rdma = mergeMaps(res.Rdma, change.Rdma)
	res.Unified = mergeMaps(res.Unified, change.Unified)
	if len(change.Devices) > 0 {
		res.Devices = change.Devices
	}
	return &res
}

func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func mergeMaps[V any](old, change map[string]V) map[string]V {
	if len(change) == 0 {
		return old
	}
	merged := maps.Clone(old)
	if merged == nil {
		merged = map[string]V{}
	}
	maps.Copy(merged, change)
	return merged
}

// upsert replaces the entry that is the same thing as v, or adds v, in a copy.
func upsert[T any](list []T, v T, same func(T) bool) []T {
	out := append([]T(nil), list...)
	for i := range out {
		if same(out[i]) {
			out[i] = v
			return out
		}
	}
	return append(out, v)
}

func mergeMemory(m specs.LinuxMemory, change *specs.LinuxMemory) *specs.LinuxMemory {
	replace(&m.Limit, change.Limit)
	replace(&m.Reservation, change.Reservation)
	replace(&m.Swap, change.Swap)
	replace(&m.KernelTCP, change.KernelTCP)
	if set(change.Limit) && *change.Limit == -1 && !set(change.Swap) {
		m.Swap = change.Limit // unlimited memory includes swap
	}
	if change.Swappiness != nil {
		m.Swappiness = change.Swappiness
	}
	if change.DisableOOMKiller != nil {
		m.DisableOOMKiller = change.DisableOOMKiller
	}
	return &m
}

func mergeCPU(p specs.LinuxCPU, change *specs.LinuxCPU) *specs.LinuxCPU {
	replace(&p.Shares, change.Shares)
	replace(&p.Quota, change.Quota)
	replace(&p.Period, change.Period)
	replace(&p.RealtimeRuntime, change.RealtimeRuntime)
	replace(&p.RealtimePeriod, change.RealtimePeriod)
	if change.Burst != nil {
		p.Burst = change.Burst
	}
	if change.Idle != nil {
		p.Idle = change.Idle
	}
	if change.Cpus != "" {
		p.Cpus = change.Cpus
	}
	if change.Mems != "" {
		p.Mems = change.Mems
	}
	return &p
}

func mergeBlockIO(b specs.LinuxBlockIO, change *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	replace(&b.Weight, change.Weight)
	for _, w := range change.WeightDevice {
		b.WeightDevice = upsert(b.WeightDevice, w, func(o specs.LinuxWeightDevice) bool { return o.LinuxBlockIODevice == w.LinuxBlockIODevice })
	}
	for _, t := range []struct {
		list   *[]specs.LinuxThrottleDevice
		change []specs.LinuxThrottleDevice
	}{
		{&b.ThrottleReadBpsDevice, change.ThrottleReadBpsDevice},
		{&b.ThrottleWriteBpsDevice, change.ThrottleWriteBpsDevice},
		{&b.ThrottleReadIOPSDevice, change.ThrottleReadIOPSDevice},
		{&b.ThrottleWriteIOPSDevice, change.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.change {
			*t.list = upsert(*t.list, d, func(o specs.LinuxThrottleDevice) bool { return o.LinuxBlockIODevice == d.LinuxBlockIODevice })
		}
	}
	return &b
}

// stageResources writes the container's configuration with other resources. The
// rest stays as it is, fields that this version does not know included.
func (c *Container) stageResources(res *specs.LinuxResources) error {
	raw, err := ReadSmallFile(c.path + "/config.json")
	if err != nil {
		return err
	}
	if raw, err = replaceMember(raw, []string{"linux", "resources"}, res); err != nil {
		return fmt.Errorf("update container %s: config.json: %w", c.ID, err)
	}
	return c.writeSmallFile(stagedConfig, raw)
}

// present tells whether a member is there and no null.
func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// replaceMember sets the member at a path of a JSON object. Names are compared as
// package json does, without regard to case.
func replaceMember(object []byte, path []string, value any) ([]byte, error) {
	if len(path) == 0 {
		return json.Marshal(value)
	}
	members := map[string]json.RawMessage{}
	if present(object) {
		if err := json.Unmarshal(object, &members); err != nil {
			return nil, err
		}
	}
	name := path[0]
	for have := range members {
		if strings.EqualFold(have, name) {
			name = have
		}
	}
	inner, err := replaceMember(members[name], path[1:], value)
	if err != nil {
		return nil, err
	}
	members[name] = inner
	return json.Marshal(members)
}
