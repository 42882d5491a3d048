// Package systemd keeps a container's cgroup in a transient scope of systemd's
// service manager, for hosts on which systemd is to be the only one that makes
// cgroups: systemd.io/CGROUP_DELEGATION. The scope is delegated: what is below its
// cgroup, and the limits that systemd has no property for, are the caller's.
//
// It speaks D-Bus itself, the few messages this takes. A library for all of it
// would cost a command its start-up time whether it is used or not.
package systemd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// Scope names a transient scope.
type Scope struct {
	Slice string // "system.slice"
	Unit  string // "berth-ID.scope"
	// User: it is of the calling user's manager, not of the system's.
	User bool
}

// ParsePath reads a cgroupsPath of the form "slice:prefix:name", as runc has it:
// the unit is prefix-name.scope. No slice is the manager's usual one.
func ParsePath(path string, user bool) (*Scope, error) {
	f := strings.Split(path, ":")
	if len(f) != 3 {
		return nil, errdefs.WithHint(
			errdefs.As(errdefs.ErrInvalid, fmt.Errorf("linux.cgroupsPath %q: with --systemd-cgroup it has the form slice:prefix:name", path)),
			"Give such a path, or leave out --systemd-cgroup.")
	}
	s := &Scope{Slice: f[0], Unit: f[2] + ".scope", User: user}
	if f[1] != "" {
		s.Unit = f[1] + "-" + s.Unit
	}
	if s.Slice == "" {
		if s.Slice = "system.slice"; user {
			s.Slice = "user.slice"
		}
	}
	if f[2] == "" || !isUnitName(s.Unit) {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("linux.cgroupsPath %q: %q is no name of a unit", path, s.Unit))
	}
	if _, err := slicePath(s.Slice); err != nil {
		return nil, fmt.Errorf("linux.cgroupsPath %q: %w", path, err)
	}
	return s, nil
}

// isUnitName: systemd.unit(5), "String Escaping for Inclusion in Unit Names".
func isUnitName(s string) bool {
	ok := len(s) <= 255
	for _, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		ok = ok && (letter || digit || strings.IndexByte(`:-_.\`, c) >= 0)
	}
	return ok
}

// slicePath is a slice's cgroup below the manager's: "a-b.slice" is below
// "a.slice" (systemd.slice(5)).
func slicePath(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if slice == "-.slice" {
		return "", nil
	}
	if !ok || name == "" || !isUnitName(slice) {
		return "", errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%q is no name of a slice", slice))
	}
	path, prefix := "", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%q is no name of a slice", slice))
		}
		path += "/" + prefix + part + ".slice"
		prefix += part + "-"
	}
	return path, nil
}

// CgroupPath is where the scope's cgroup will be, from the root of the hierarchy.
func (c *Conn) CgroupPath(s *Scope) (string, error) {
	root, err := c.property("ControlGroup")
	if err != nil {
		return "", fmt.Errorf("find systemd's cgroup: %w", err)
	}
	slice, err := slicePath(s.Slice)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(root, "/") + slice + "/" + s.Unit, nil
}

// property reads a string of the manager's properties.
func (c *Conn) property(name string) (string, error) {
	m, err := c.call(&call{managerName, managerPath, "org.freedesktop.DBus.Properties", "Get", "ss", func(e *encoder) {
		e.string(managerFace)
		e.string(name)
	}})
	if err != nil {
		return "", err
	}
	if sig := m.body.signature(); sig != "s" {
		return "", fmt.Errorf("%w: property %s is of type %q", errMalformed, name, sig)
	}
	s := m.body.string()
	return s, m.body.err
}

// Start makes the scope around the process pid and returns when that is in it. A
// unit that exists is an [errdefs.ErrConflict].
func (c *Conn) Start(s *Scope, description string, pid int, limits []Property) error {
	properties := append([]Property{
		text("Description", description),
		text("Slice", s.Slice),
		flag("Delegate", true),
		flag("DefaultDependencies", false),
		flag("CPUAccounting", true), flag("MemoryAccounting", true), flag("IOAccounting", true), flag("TasksAccounting", true),
		// The device program is the container's own: the manager's would be a second.
		text("DevicePolicy", "auto"),
		// Nothing is left of it when it fails, or it would stand in the way of the next.
		text("CollectMode", "inactive-or-failed"),
		{"PIDs", "au", func(e *encoder) { e.array(4, func() { e.uint32(uint32(pid)) }) }},
	}, limits...)
	m, err := c.manage("StartTransientUnit", "ssa(sv)a(sa(sv))", func(e *encoder) {
		e.string(s.Unit)
		e.string("fail")
		encodeProperties(e, properties)
		e.array(8, func() {})
	})
	if err != nil {
		if errors.Is(err, errdefs.ErrConflict) {
			err = errdefs.WithHint(err, "Another container has this unit: give each its own cgroupsPath.")
		}
		return fmt.Errorf("start %s: %w", s.Unit, err)
	}
	return c.done(m, "start", s)
}

// done waits for the job that a method has begun.
func (c *Conn) done(m *message, verb string, s *Scope) error {
	job := m.body.string()
	if m.body.err != nil {
		return m.body.err
	}
	result, err := c.waitJob(job)
	if err == nil && result != "done" && result != "skipped" {
		err = fmt.Errorf("the job's result is %q", result)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, s.Unit, err)
	}
	return nil
}

// Set changes properties of the running scope, until it ends.
func (c *Conn) Set(s *Scope, limits []Property) error {
	if len(limits) == 0 {
		return nil
	}
	_, err := c.manage("SetUnitProperties", "sba(sv)", func(e *encoder) {
		e.string(s.Unit)
		e.bool(true)
		encodeProperties(e, limits)
	})
	if err != nil {
		return fmt.Errorf("change %s: %w", s.Unit, err)
	}
	return nil
}

// Stop ends the scope and forgets it. One that is gone is no error.
func (c *Conn) Stop(s *Scope) error {
	m, err := c.manage("StopUnit", "ss", func(e *encoder) {
		e.string(s.Unit)
		e.string("replace")
	})
	if err == nil {
		err = c.done(m, "stop", s)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("stop %s: %w", s.Unit, err)
	}
	_, err = c.manage("ResetFailedUnit", "s", func(e *encoder) { e.string(s.Unit) })
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("forget %s: %w", s.Unit, err)
	}
	return nil
}
