package oci

import (
	"errors"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/systemd"
)

// planCgroup finds the container's place: the specification's cgroupsPath, or one
// named after the container below the caller's own cgroup. In a scope of systemd
// the manager is connected, and the caller closes it.
func (c *Container) planCgroup(spec *specs.Spec, inScope bool) (*cgroup.Group, *systemd.Conn, error) {
	path := spec.Linux.CgroupsPath
	if inScope {
		return c.planScope(path)
	}
	if path == "" {
		path = c.ID
	}
	g, err := cgroup.Plan(path)
	return g, nil, err
}

func (c *Container) planScope(path string) (*cgroup.Group, *systemd.Conn, error) {
	if path == "" {
		path = ":berth:" + c.ID
	}
	user := !IsHostRoot() // root of a user namespace is an ordinary user to the host's systemd
	if mode, err := cgroup.HostMode(); err != nil || user && mode != cgroup.Unified {
		if err == nil { // the manager of a user has no part of cgroup v1
			err = errdefs.WithHint(
				errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("--systemd-cgroup: not supported: needs cgroup v2 without root, this host is %s", mode)),
				"Leave out --systemd-cgroup, or set the caller's cgroup driver to cgroupfs.")
		}
		return nil, nil, err
	}
	scope, err := systemd.ParsePath(path, user)
	if err != nil {
		return nil, nil, err
	}
	manager, err := systemd.Connect(user)
	if err != nil {
		return nil, nil, fmt.Errorf("--systemd-cgroup: %w", err)
	}
	path, err = manager.CgroupPath(scope)
	if err == nil {
		var g *cgroup.Group
		if g, err = cgroup.Plan(path); err == nil {
			c.Scope = scope
			return g, manager, nil
		}
	}
	manager.Close()
	return nil, nil, fmt.Errorf("--systemd-cgroup: %w", err)
}

// enterScope has systemd make the scope around the process, which waits, and sets
// the limits that systemd does not know.
func (c *Container) enterScope(manager *systemd.Conn, spec *specs.Spec, pr *Process) error {
	res := Resources(spec)
	if c.Scope.User {
		res.Devices = nil // for the host's root; an ordinary user opens no more than it may anyway
	}
	values, err := c.group.Values(res, true)
	if err != nil {
		return err
	}
	limits, err := properties(values)
	if err != nil {
		return err
	}
	if err := manager.Start(c.Scope, "container "+c.ID, pr.Pid, limits); err != nil {
		return err
	}
	c.made = true
	if err := c.group.Adopt(res); err != nil {
		return err
	}
	// Of cgroup v1 systemd manages some controllers only.
	return c.group.Add(pr.Pid)
}

// properties are those of the limits that systemd manages.
func properties(values []cgroup.Value) ([]systemd.Property, error) {
	var limits []systemd.Property
	for _, v := range values {
		if v.File == "cpu.cfs_quota_us" { // one property of two files
			v = cgroup.Value{File: "cpu.max", Value: strings.Replace(v.Value, "-1", "max", 1) + " " + periodOf(values)}
		}
		p, err := systemd.Limits(v.File, v.Value)
		if err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: %w", v.File, err))
		}
		limits = append(limits, p...)
	}
	return limits, nil
}

// periodOf is the period that a quota of cgroup v1 is for, the kernel's when none
// is written.
func periodOf(values []cgroup.Value) string {
	for _, v := range values {
		if v.File == "cpu.cfs_period_us" {
			return v.Value
		}
	}
	return "100000"
}

// leaveScope ends the container's scope, if it has one. Without systemd, or when
// that has forgotten it, there is none to end.
func (c *Container) leaveScope() error {
	if c.Scope == nil {
		return nil
	}
	manager, err := systemd.Connect(c.Scope.User)
	if errors.Is(err, errdefs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	defer manager.Close()
	return manager.Stop(c.Scope)
}

// setLimits changes the limits by res, which makes them all. When one is refused
// they are as recorded.
func (c *Container) setLimits(g *cgroup.Group, res, all, recorded *specs.LinuxResources) error {
	if c.Scope == nil {
		return g.Set(res)
	}
	// Systemd's first: it writes its own figures when it reloads its units. And it
	// does so now, to files that are not changed too, rounded as it keeps them.
	values, err := g.Values(res, false)
	if err != nil {
		return err
	}
	limits, err := properties(values)
	if err != nil {
		return err
	}
	before, err := properties(g.Current(values))
	if err != nil {
		return err
	}
	manager, err := systemd.Connect(c.Scope.User)
	if err != nil {
		return err
	}
	defer manager.Close()
	if err := manager.Set(c.Scope, limits); err != nil {
		return err
	}
	written := *all
	written.Devices = res.Devices
	if err := g.Set(&written); err != nil {
		old := *recorded
		old.Devices = nil
		return errors.Join(err, manager.Set(c.Scope, before), g.Set(&old))
	}
	return nil
}
