package engine

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The sysctls Docker sets in a container's own network namespace: ping and
// ports below 1024 without a capability.
const (
	sysctlPing  = "net.ipv4.ping_group_range"
	sysctlPorts = "net.ipv4.ip_unprivileged_port_start"
)

// specNamespaces lists the namespaces a container gets of its own or joins. A
// host mode is the absence of an entry.
func specNamespaces(in *specSources) []specs.LinuxNamespace {
	hc := in.rec.HostConfig
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(kind specs.LinuxNamespaceType, host bool, path string) {
		if !host {
			list = append(list, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	add(specs.NetworkNamespace, hc.NetworkMode.IsHost(), in.netns)
	add(specs.UTSNamespace, hc.UTSMode.IsHost(), "")
	add(specs.PIDNamespace, hc.PidMode.IsHost(), in.pidns)
	add(specs.IPCNamespace, hc.IpcMode.IsHost(), in.ipcns)
	add(specs.CgroupNamespace, hc.CgroupnsMode.IsHost(), "")
	return list
}

// specSysctls are the defaults with the request's over them.
func specSysctls(in *specSources) map[string]string {
	hc := in.rec.HostConfig
	ctls := map[string]string{}
	if !hc.NetworkMode.IsHost() && !hc.NetworkMode.IsContainer() {
		if in.host.sysctls[sysctlPing] {
			ctls[sysctlPing] = "0 2147483647"
		}
		if in.host.sysctls[sysctlPorts] {
			ctls[sysctlPorts] = "0"
		}
	}
	maps.Copy(ctls, hc.Sysctls)
	if len(ctls) == 0 {
		return nil
	}
	return ctls
}
