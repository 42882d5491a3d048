package oci

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/berth-containers/berth/kernel/caps"
	"github.com/berth-containers/berth/kernel/seccomp"
)

// Features says what of the specification this runtime does (features.md). It is
// found out, not written down: every candidate is put into a configuration, and
// is a feature when that compiles.
func Features() (*features.Features, error) {
	linux, err := linuxFeatures()
	if err != nil {
		return nil, err
	}
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         hookFeatures(),
		MountOptions:  mountFeatures(),
		Linux:         linux,
		// What an image's author should not decide about.
		PotentiallyUnsafeConfigAnnotations: []string{LandlockAnnotation},
	}, nil
}

// accepted tells whether the default configuration compiles with a change.
func accepted(change func(*specs.Spec)) bool {
	s := DefaultSpec()
	change(s)
	_, err := Compile(s, "/")
	return err == nil
}

func acceptedFlag(change func(*specs.Spec)) *bool {
	ok := accepted(change)
	return &ok
}

// always is for what the compiler does not see: cgroups are another package's.
func always() *bool {
	yes := true
	return &yes
}

func hookFeatures() []string {
	hook := []specs.Hook{{Path: "/hook"}}
	var names []string
	for _, h := range []struct {
		name  string
		hooks specs.Hooks
	}{
		//lint:ignore SA1019 deprecated, and still in use
		{"prestart", specs.Hooks{Prestart: hook}},
		{"createRuntime", specs.Hooks{CreateRuntime: hook}},
		{"createContainer", specs.Hooks{CreateContainer: hook}},
		{"startContainer", specs.Hooks{StartContainer: hook}},
		{"poststart", specs.Hooks{Poststart: hook}},
		{"poststop", specs.Hooks{Poststop: hook}},
	} {
		if accepted(func(s *specs.Spec) { s.Hooks = &h.hooks }) {
			names = append(names, h.name)
		}
	}
	return names
}

// mountOptionNames are the options of the specification (config.md, "Linux mount
// options").
func mountOptionNames() []string {
	names := append([]string{"bind", "rbind", "defaults", "silent", "loud", "remount", "tmpcopyup", "idmap", "ridmap", "iversion", "noiversion"},
		filesystemFlags()...)
	for _, name := range []string{"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "relatime",
		"norelatime", "noatime", "atime", "strictatime", "nostrictatime", "nosymfollow", "symfollow",
		"shared", "slave", "private", "unbindable"} {
		names = append(names, name, "r"+name)
	}
	return names
}

// filesystemFlags go to the filesystem as they are, and are known to all of them
// (vfs_parse_sb_flag in the kernel's fs/fs_context.c).
func filesystemFlags() []string {
	return []string{"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}
}

// mountFeatures are the options that are not left to the filesystem's liking.
func mountFeatures() []string {
	var names []string
	for _, name := range mountOptionNames() {
		m := specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "/", Options: []string{name}}
		if name == "idmap" || name == "ridmap" {
			m.Type = "bind"
		}
		o, err := parseMountOptions(&m)
		if err != nil || slices.Contains(o.super, name) && !slices.Contains(filesystemFlags(), name) {
			continue
		}
		if accepted(func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }) || accepted(func(s *specs.Spec) {
			m.UIDMappings, m.GIDMappings = oneID(), oneID()
			s.Mounts = append(s.Mounts, m)
		}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func oneID() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}
}

func linuxFeatures() (*features.Linux, error) {
	last, err := caps.Last()
	if err != nil {
		return nil, err
	}
	l := &features.Linux{
		Capabilities: caps.All(last).Names(),
		Cgroup:       &features.Cgroup{V1: always(), V2: always(), Systemd: always(), SystemdUser: always(), Rdma: always()},
		Seccomp:      seccompFeatures(),
		Apparmor: &features.Apparmor{Enabled: acceptedFlag(func(s *specs.Spec) {
			s.Process.ApparmorProfile = "profile"
		})},
		Selinux: &features.Selinux{Enabled: acceptedFlag(func(s *specs.Spec) {
			s.Process.SelinuxLabel, s.Linux.MountLabel = "a:b:c:s0", "a:b:c:s0"
		})},
		IntelRdt: &features.IntelRdt{
			Enabled:    acceptedFlag(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"} }),
			Schemata:   acceptedFlag(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}} }),
			Monitoring: acceptedFlag(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{EnableMonitoring: true} }),
		},
		MemoryPolicy:    memoryPolicyFeatures(),
		MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: acceptedFlag(idMapped)}},
		NetDevices: &features.NetDevices{Enabled: acceptedFlag(func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "eth0"}}
		})},
	}
	for _, n := range namespaceFlags {
		l.Namespaces = append(l.Namespaces, string(n.kind))
	}
	slices.Sort(l.Namespaces)
	return l, nil
}

func idMapped(s *specs.Spec) {
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/", UIDMappings: oneID(), GIDMappings: oneID()})
}

func seccompFeatures() *features.Seccomp {
	known, supported := seccomp.Flags()
	return &features.Seccomp{
		Enabled:        acceptedFlag(func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow} }),
		Actions:        texts(seccomp.Actions()),
		Operators:      texts(seccomp.Operators()),
		Archs:          texts(seccomp.Architectures()),
		KnownFlags:     texts(known),
		SupportedFlags: texts(supported),
	}
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

func memoryPolicyFeatures() *features.MemoryPolicy {
	m := &features.MemoryPolicy{}
	with := func(p specs.LinuxMemoryPolicy) bool {
		return accepted(func(s *specs.Spec) { s.Linux.MemoryPolicy = &p })
	}
	for _, mode := range []specs.MemoryPolicyModeType{specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave,
		specs.MpolLocal, specs.MpolPreferredMany, specs.MpolWeightedInterleave} {
		if with(specs.LinuxMemoryPolicy{Mode: mode}) || with(specs.LinuxMemoryPolicy{Mode: mode, Nodes: "0"}) {
			m.Modes = append(m.Modes, string(mode))
		}
	}
	for _, flag := range []specs.MemoryPolicyFlagType{specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes} {
		if with(specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{flag}}) {
			m.Flags = append(m.Flags, string(flag))
		}
	}
	return m
}
