package engine

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// runtimeName is what HostConfig.Runtime says when nothing else was asked for.
const runtimeName = "berth-oci"

// defaultHostConfig copies the request's host config and fills in what it
// leaves open. The copy is deep where checks change it.
func (e *Engine) defaultHostConfig(req *container.HostConfig) *container.HostConfig {
	hc := container.HostConfig{}
	if req != nil {
		hc = *req
	}
	if hc.NetworkMode == "" || hc.NetworkMode.IsDefault() {
		hc.NetworkMode = network.NetworkBridge
	}
	if hc.IpcMode.IsEmpty() {
		hc.IpcMode = container.IPCModePrivate
	}
	if hc.UsernsMode == "" && e.cfg.Userns != usernsHost {
		hc.UsernsMode = container.UsernsMode(e.cfg.Userns)
	}
	if hc.CgroupnsMode.IsEmpty() {
		// On cgroup v1 Docker's default shows the host's cgroup names.
		hc.CgroupnsMode = container.CgroupnsModeHost
		if e.host.unified && !hc.Privileged {
			hc.CgroupnsMode = container.CgroupnsModePrivate
		}
	}
	if hc.ShmSize == 0 {
		hc.ShmSize = e.cfg.DefaultShmSize
	}
	if hc.RestartPolicy.Name == "" {
		hc.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if hc.Init == nil && e.cfg.Init {
		hc.Init = &e.cfg.Init
	}
	if hc.Runtime == "" {
		hc.Runtime = runtimeName
	}
	if hc.LogConfig.Type == "" {
		hc.LogConfig.Type = e.cfg.LogDriver
	}
	if hc.LogConfig.Type == e.cfg.LogDriver {
		merged := maps.Clone(e.cfg.LogOptions)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, hc.LogConfig.Config)
		hc.LogConfig.Config = merged
	}
	hc.StorageOpt = e.storageOptions(hc.StorageOpt)
	hc.CapAdd, hc.CapDrop = slices.Clone(hc.CapAdd), slices.Clone(hc.CapDrop)
	return &hc
}

// nameHost fills in the host name: another container's with its network, whose address
// it stands for; the engine host's own where its network or UTS namespace is shared;
// else the short id.
func (e *Engine) nameHost(cfg *container.Config, hc *container.HostConfig, id string) error {
	if cfg.Hostname != "" {
		return checkHostname(cfg.Hostname)
	}
	if hc.NetworkMode.IsContainer() && !hc.UTSMode.IsHost() {
		other, err := e.containers.get(hc.NetworkMode.ConnectedContainer())
		if err != nil {
			return err
		}
		shared := other.snapshot().Config
		cfg.Hostname, cfg.Domainname = shared.Hostname, shared.Domainname
		return nil
	}
	if !hc.NetworkMode.IsHost() && !hc.UTSMode.IsHost() {
		cfg.Hostname = short(id)
		return nil
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read host name: %w", err)
	}
	cfg.Hostname = name
	return nil
}

// checkHostname keeps to what sethostname(2) and /etc/hosts can take.
func checkHostname(name string) error {
	if len(name) > 63 || strings.ContainsAny(name, " \t\n\x00/") {
		return invalidf("invalid hostname %q", name)
	}
	return nil
}
