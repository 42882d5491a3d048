package engine

import (
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

// ipcSysctls are the kernel's parameters of an IPC namespace
// (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
	"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// checkSysctls lets through what belongs to a namespace that is not the host's,
// by Docker's rules; anything else would change the host.
func checkSysctls(hc *container.HostConfig) error {
	for key := range hc.Sysctls {
		name := strings.ReplaceAll(key, "/", ".")
		var shared bool
		var flag string
		switch {
		case strings.HasPrefix(name, "net."):
			shared, flag = hc.NetworkMode.IsHost(), "--network=host"
		case strings.HasPrefix(name, "fs.mqueue."), slices.Contains(ipcSysctls, name):
			shared, flag = hc.IpcMode.IsHost(), "--ipc=host"
		case name == "kernel.domainname":
			shared, flag = hc.UTSMode.IsHost(), "--uts=host"
		case name == "kernel.hostname":
			return errdefs.WithHint(invalidf("sysctl %s cannot be set", key), "use --hostname")
		default:
			return errdefs.WithHint(invalidf("sysctl %s is not separate: setting it would change the host", key),
				"allowed are net.*, fs.mqueue.*, kernel.domainname and "+strings.Join(ipcSysctls, ", "))
		}
		if shared {
			return errdefs.WithHint(invalidf("sysctl %s is not allowed with %s: it would change the host", key, flag), "leave one of the two out")
		}
	}
	return nil
}
