package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"
)

// checkConfig refuses configs that are wrong or not done.
func checkConfig(cfg *container.Config) error {
	if err := checkHealth(cfg.Healthcheck); err != nil {
		return err
	}
	if cfg.StopSignal != "" {
		if _, err := signal.ParseSignal(cfg.StopSignal); err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
	}
	for _, kv := range cfg.Env {
		if strings.HasPrefix(kv, "=") || kv == "" || strings.ContainsRune(kv, 0) {
			return invalidf("invalid environment variable: %q", kv)
		}
	}
	for _, a := range append(slices.Clone(cfg.Entrypoint), cfg.Cmd...) {
		if strings.ContainsRune(a, 0) {
			return invalidf("invalid command: %q has a NUL character", a)
		}
	}
	return cleanWorkingDir(cfg)
}

// refuseHostConfig names what is asked for and not done yet.
func refuseHostConfig(hc *container.HostConfig) error {
	for _, f := range []struct {
		set  bool
		flag string
	}{
		{len(hc.Links) > 0, "--link"},
		{hc.Cgroup != "", "a cgroup shared with another container"},
		{hc.VolumeDriver != "" && hc.VolumeDriver != "local", "--volume-driver " + hc.VolumeDriver},
		{!hc.Isolation.IsDefault(), fmt.Sprintf("--isolation %s", hc.Isolation)},
		{!slices.Contains([]string{runtimeName, "runc", "io.containerd.runc.v2"}, hc.Runtime), "--runtime " + hc.Runtime},
	} {
		if f.set {
			return errUnsupported(f.flag)
		}
	}
	return nil
}

// checkHostConfig checks everything about the host config but limits and
// mounts.
func checkHostConfig(cfg *container.Config, hc *container.HostConfig) error {
	if err := refuseHostConfig(hc); err != nil {
		return err
	}
	if err := container.ValidateRestartPolicy(hc.RestartPolicy); err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	switch {
	case hc.AutoRemove && !hc.RestartPolicy.IsNone():
		return invalidf("conflicting options: automatic removal (--rm) and a restart policy")
	case !hc.IpcMode.Valid():
		return invalidf("invalid IPC mode: %s", hc.IpcMode)
	case !hc.PidMode.Valid():
		return invalidf("invalid PID mode: %s", hc.PidMode)
	case !hc.UTSMode.Valid():
		return invalidf("invalid UTS mode: %s", hc.UTSMode)
	case !hc.CgroupnsMode.Valid():
		return invalidf("invalid cgroup namespace mode: %s", hc.CgroupnsMode)
	case hc.UTSMode.IsHost() && cfg.Hostname != "":
		return invalidf("conflicting options: hostname and the UTS mode")
	case hc.ShmSize < 0:
		return invalidf("shm size can not be less than 0")
	case hc.OomScoreAdj < -1000 || hc.OomScoreAdj > 1000:
		return invalidf("invalid value %d, range for oom score adj is [-1000, 1000]", hc.OomScoreAdj)
	}
	if err := checkUserns(hc); err != nil {
		return err
	}
	if err := checkCgroupParent(hc.CgroupParent); err != nil {
		return err
	}
	if err := checkExtraHosts(hc.ExtraHosts); err != nil {
		return err
	}
	if err := checkPorts(hc); err != nil {
		return err
	}
	return checkLogConfig(hc.LogConfig)
}

// checkCgroupParent keeps the parent inside the hierarchy and to cgroupfs
// paths.
func checkCgroupParent(parent string) error {
	if slices.Contains(strings.Split(parent, "/"), "..") || strings.ContainsAny(parent, ":\x00") {
		return invalidf("invalid cgroup parent %q", parent)
	}
	return nil
}

// checkExtraHosts checks --add-host entries: name:address or name=address.
func checkExtraHosts(list []string) error {
	for _, entry := range list {
		if _, _, err := splitExtraHost(entry); err != nil {
			return err
		}
	}
	return nil
}

// checkPorts checks the published ports by themselves; whether they are free
// is known at start.
func checkPorts(hc *container.HostConfig) error {
	if len(hc.PortBindings) > 0 && hc.NetworkMode.IsContainer() {
		return invalidf("conflicting options: port publishing and the container type network mode")
	}
	for port, bindings := range hc.PortBindings {
		if port.Num() == 0 || !slices.Contains([]network.IPProtocol{network.TCP, network.UDP, network.SCTP}, port.Proto()) {
			return invalidf("invalid port specification: %q", port)
		}
		for _, b := range bindings {
			if err := checkHostPort(b.HostPort); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkHostPort accepts empty, a number, or a range of numbers.
func checkHostPort(s string) error {
	if s == "" {
		return nil
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	a, err1 := strconv.ParseUint(lo, 10, 16)
	b, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || a > b {
		return invalidf("invalid port specification: %q", s)
	}
	return nil
}

// checkNetworkMode refuses settings that make no sense with the mode, and
// networks there are not.
func checkNetworkMode(cfg *container.Config, hc *container.HostConfig, nc *network.NetworkingConfig) error {
	mode := hc.NetworkMode
	if mode.IsContainer() {
		switch {
		case cfg.Hostname != "":
			return invalidf("conflicting options: hostname and the network mode")
		case len(hc.DNS)+len(hc.DNSSearch)+len(hc.DNSOptions) > 0:
			return invalidf("conflicting options: dns and the network mode")
		case len(hc.ExtraHosts) > 0:
			return invalidf("conflicting options: custom host-to-IP mapping and the network mode")
		}
	}
	if mode.IsUserDefined() {
		// Not ErrNotFound: at a create, docker takes that for a missing image.
		return errdefs.WithHint(invalidf("network %s not found", mode), "there are bridge, host, none and container:NAME")
	}
	if nc == nil {
		return nil
	}
	for name, ep := range nc.EndpointsConfig {
		if name != string(mode) && !(mode.IsBridge() && name == network.NetworkDefault) {
			return errUnsupported(fmt.Sprintf("a second network (%s) besides %s", name, mode))
		}
		if ep != nil && !mode.IsBridge() && (len(ep.MacAddress) > 0 || ep.IPAMConfig != nil) {
			return invalidf("conflicting options: an address (--ip, --mac-address) and the network mode %s", mode)
		}
		if ep != nil && (len(ep.Links) > 0 || len(ep.Aliases) > 0 || len(ep.DriverOpts) > 0) {
			return errUnsupported("links, aliases and driver options on the network " + name)
		}
	}
	return nil
}
