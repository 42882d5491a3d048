package create

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Request is the request the flags make, for an image and the command's words.
func (o *Options) Request(image string, args []string) (*container.CreateRequest, error) {
	config, err := o.config(image, args)
	if err != nil {
		return nil, err
	}
	host, err := o.hostConfig()
	if err != nil {
		return nil, err
	}
	var binds map[string]struct{}
	if host.Binds, binds, err = volumesOf(o.volumes); err != nil {
		return nil, err
	}
	config.Volumes = binds
	if config.ExposedPorts, host.PortBindings, err = portsOf(o.publish, o.expose); err != nil {
		return nil, err
	}
	endpoints, err := o.endpointsOf()
	if err != nil {
		return nil, err
	}
	return &container.CreateRequest{
		Config:           config,
		HostConfig:       host,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: endpoints},
	}, nil
}

func (o *Options) config(image string, args []string) (*container.Config, error) {
	c := &container.Config{
		Image: image, Cmd: args, User: o.user, WorkingDir: o.workdir,
		Hostname: o.hostname, Domainname: o.domainname,
		Tty: o.tty, OpenStdin: o.stdin, StopSignal: o.stopSignal,
	}
	if err := o.attachTo(c); err != nil {
		return nil, err
	}
	if o.flags.Changed("entrypoint") {
		c.Entrypoint = []string{o.entrypoint}
	}
	if o.flags.Changed("stop-timeout") {
		c.StopTimeout = &o.stopTimeout
	}
	var err error
	if c.Env, err = Environment(o.envFile, o.env, o.lookupEnv); err != nil {
		return nil, err
	}
	if c.Labels, err = labelsOf(o.labelFile, o.labels); err != nil {
		return nil, err
	}
	c.Healthcheck, err = o.health()
	return c, err
}

// attachTo says which streams the command line attaches to.
func (o *Options) attachTo(c *container.Config) error {
	c.AttachStdout, c.AttachStderr = len(o.attach) == 0, len(o.attach) == 0
	for _, name := range o.attach {
		switch strings.ToLower(name) {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		default:
			return fmt.Errorf("invalid argument %q for --attach: valid streams are STDIN, STDOUT and STDERR", name)
		}
	}
	if o.stdin {
		c.AttachStdin = true
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return nil
}

func (o *Options) health() (*container.HealthConfig, error) {
	any := o.healthCmd != "" || o.healthRetries != 0 ||
		o.healthInterval != 0 || o.healthTimeout != 0 || o.healthStart != 0 || o.healthStartEvery != 0
	switch {
	case o.noHealthcheck && any:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case o.noHealthcheck:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !any:
		return nil, nil
	}
	if min(o.healthInterval, o.healthTimeout, o.healthStart, o.healthStartEvery) < 0 || o.healthRetries < 0 {
		return nil, errors.New("--health-* options cannot be negative")
	}
	h := &container.HealthConfig{
		Interval: o.healthInterval, Timeout: o.healthTimeout, Retries: o.healthRetries,
		StartPeriod: o.healthStart, StartInterval: o.healthStartEvery,
	}
	if o.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", o.healthCmd}
	}
	return h, nil
}

func (o *Options) hostConfig() (*container.HostConfig, error) {
	h := &container.HostConfig{
		AutoRemove: o.Remove, ContainerIDFile: o.CIDFile, NetworkMode: o.networks.mode(),
		VolumeDriver: o.volumeDriver, VolumesFrom: o.volumesFrom, Tmpfs: tmpfsOf(o.tmpfs), Mounts: o.mounts,
		CapAdd: capabilities(o.capAdd), CapDrop: capabilities(o.capDrop), Privileged: o.privileged, ReadonlyRootfs: o.readOnly,
		DNSOptions: o.dnsOpt, DNSSearch: o.dnsSearch, PublishAllPorts: o.publishAll, Links: o.links,
		GroupAdd: o.groupAdd, OomScoreAdj: o.oomScoreAdj, ShmSize: int64(o.shmSize),
		IpcMode: container.IpcMode(o.ipc), PidMode: container.PidMode(o.pid), UTSMode: container.UTSMode(o.uts),
		UsernsMode: container.UsernsMode(o.userns), CgroupnsMode: container.CgroupnsMode(o.cgroups),
		Sysctls: o.sysctls, Annotations: o.annotations, Runtime: o.runtime,
		Isolation: container.Isolation(o.isolation),
	}
	if o.flags.Changed("init") {
		h.Init = &o.init
	}
	if err := o.checkNamespaces(h); err != nil {
		return nil, err
	}
	var err error
	if h.RestartPolicy, err = ParseRestartPolicy(o.restart); err != nil {
		return nil, err
	}
	if o.Remove && !h.RestartPolicy.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if h.DNS, err = addresses(o.dns); err != nil {
		return nil, err
	}
	if h.ExtraHosts, err = extraHosts(o.addHost); err != nil {
		return nil, err
	}
	if h.LogConfig, err = o.logConfig(); err != nil {
		return nil, err
	}
	if h.StorageOpt, err = pairs(o.storageOpt, "storage"); err != nil {
		return nil, err
	}
	if err := o.security(h); err != nil {
		return nil, err
	}
	h.Resources, err = o.resources()
	return h, err
}

func (o *Options) checkNamespaces(h *container.HostConfig) error {
	for _, mode := range []struct {
		flag  string
		valid bool
	}{
		{"pid", h.PidMode.Valid()}, {"uts", h.UTSMode.Valid()},
		{"cgroupns", h.CgroupnsMode.Valid()}, {"ipc", h.IpcMode.Valid()},
	} {
		if !mode.valid {
			return fmt.Errorf("--%s: invalid mode %q", mode.flag, o.flags.Lookup(mode.flag).Value)
		}
	}
	return nil
}

func (o *Options) resources() (container.Resources, error) {
	r := container.Resources{
		Memory: int64(o.memory), MemoryReservation: int64(o.memoryReservation), MemorySwap: int64(o.memorySwap),
		NanoCPUs: int64(o.cpus), CPUShares: o.cpuShares, CPUPeriod: o.cpuPeriod, CPUQuota: o.cpuQuota,
		CPURealtimePeriod: o.rtPeriod, CPURealtimeRuntime: o.rtRuntime,
		CpusetCpus: o.cpusetCPUs, CpusetMems: o.cpusetMems, CgroupParent: o.cgroupParent,
		BlkioWeight: o.blkioWeight, BlkioWeightDevice: o.blkioDevices,
		BlkioDeviceReadBps: o.readBps.all, BlkioDeviceWriteBps: o.writeBps.all,
		BlkioDeviceReadIOps: o.readIOps.all, BlkioDeviceWriteIOps: o.writeIOps.all,
		DeviceCgroupRules: o.deviceRules, DeviceRequests: o.gpus, Ulimits: o.ulimits,
	}
	if o.swappiness < -1 || o.swappiness > 100 {
		return r, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", o.swappiness)
	}
	if o.flags.Changed("memory-swappiness") {
		r.MemorySwappiness = &o.swappiness
	}
	if o.flags.Changed("oom-kill-disable") {
		r.OomKillDisable = &o.oomKillDisable
	}
	if o.flags.Changed("pids-limit") {
		r.PidsLimit = &o.pidsLimit
	}
	return r, o.deviceMappings(&r)
}

// deviceMappings reads --device: HOST[:CONTAINER][:rwm] or a CDI device's
// name (vendor.com/class=name).
func (o *Options) deviceMappings(r *container.Resources) error {
	var cdi []string
	for _, v := range o.devices {
		if !strings.HasPrefix(v, "/") && strings.Contains(v, "=") {
			cdi = append(cdi, v)
			continue
		}
		parts := strings.Split(v, ":")
		d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
		switch {
		case len(parts) == 3:
			d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
		case len(parts) == 2 && validAccess(parts[1]):
			d.CgroupPermissions = parts[1]
		case len(parts) == 2:
			d.PathInContainer = parts[1]
		}
		if len(parts) > 3 || !strings.HasPrefix(d.PathOnHost, "/") || !strings.HasPrefix(d.PathInContainer, "/") || !validAccess(d.CgroupPermissions) {
			return fmt.Errorf("invalid device specification: %s", v)
		}
		r.Devices = append(r.Devices, d)
	}
	if cdi != nil {
		r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

func validAccess(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && len(s) <= 3
}

// ParseRestartPolicy reads no, always, unless-stopped or on-failure[:N].
func ParseRestartPolicy(v string) (container.RestartPolicy, error) {
	name, count, hasCount := strings.Cut(v, ":")
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if hasCount {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, container.ValidateRestartPolicy(p)
}

// capabilities spells capabilities as the kernel does: CAP_NET_ADMIN for net_admin.
func capabilities(names []string) []string {
	var all []string
	for _, name := range names {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func addresses(texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, text := range texts {
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("IP address is not correctly formatted: %s", text)
		}
		all = append(all, addr)
	}
	return all, nil
}

// extraHosts reads --add-host: HOST:IP or HOST=IP, IP possibly in brackets or
// host-gateway.
func extraHosts(flags []string) ([]string, error) {
	var all []string
	for _, v := range flags {
		host, ip, ok := strings.Cut(v, "=")
		if !ok {
			host, ip, ok = strings.Cut(v, ":")
		}
		if !ok || host == "" {
			return nil, fmt.Errorf("bad format for add-host: %q", v)
		}
		if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
			ip = ip[1 : len(ip)-1]
		}
		if _, err := netip.ParseAddr(ip); err != nil && ip != "host-gateway" {
			return nil, fmt.Errorf("invalid IP address in add-host: %q", ip)
		}
		all = append(all, host+":"+ip)
	}
	return all, nil
}

func (o *Options) logConfig() (container.LogConfig, error) {
	opts, err := pairs(o.logOpt, "logging")
	if err == nil && o.logDriver == "none" && len(opts) > 0 {
		err = errors.New("invalid logging opts for driver none")
	}
	return container.LogConfig{Type: o.logDriver, Config: opts}, err
}

func pairs(flags []string, what string) (map[string]string, error) {
	if len(flags) == 0 {
		return nil, nil
	}
	all := map[string]string{}
	for _, v := range flags {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return nil, fmt.Errorf("invalid %s option %q: want key=value", what, v)
		}
		all[key] = value
	}
	return all, nil
}

// security reads --security-opt. A seccomp profile is read here, since the
// engine may be on another host or see other files.
func (o *Options) security(h *container.HostConfig) error {
	for _, opt := range o.securityOpt {
		if opt == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok && opt != "no-new-privileges" {
			if key, value, ok = strings.Cut(opt, ":"); !ok {
				return fmt.Errorf("invalid --security-opt: %q", opt)
			}
		}
		if (key == "seccomp") && !slices.Contains([]string{"unconfined", "builtin"}, value) {
			profile, err := readProfile(value)
			if err != nil {
				return err
			}
			opt = "seccomp=" + profile
		}
		h.SecurityOpt = append(h.SecurityOpt, opt)
	}
	return nil
}

func readProfile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", path, errors.Unwrap(err))
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", path, err)
	}
	return b.String(), nil
}

// Update is the request the flags make.
func (l *Limits) Update() (*container.UpdateConfig, error) {
	o := &l.o
	upd := &container.UpdateConfig{Resources: container.Resources{
		Memory: int64(o.memory), MemoryReservation: int64(o.memoryReservation), MemorySwap: int64(o.memorySwap),
		NanoCPUs: int64(o.cpus), CPUShares: o.cpuShares, CPUPeriod: o.cpuPeriod, CPUQuota: o.cpuQuota,
		CPURealtimePeriod: o.rtPeriod, CPURealtimeRuntime: o.rtRuntime,
		CpusetCpus: o.cpusetCPUs, CpusetMems: o.cpusetMems,
		BlkioWeight: o.blkioWeight, BlkioWeightDevice: o.blkioDevices,
		BlkioDeviceReadBps: o.readBps.all, BlkioDeviceWriteBps: o.writeBps.all,
		BlkioDeviceReadIOps: o.readIOps.all, BlkioDeviceWriteIOps: o.writeIOps.all,
	}}
	if o.swappiness < -1 || o.swappiness > 100 {
		return nil, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", o.swappiness)
	}
	if o.flags.Changed("memory-swappiness") {
		upd.MemorySwappiness = &o.swappiness
	}
	if o.flags.Changed("pids-limit") {
		upd.PidsLimit = &o.pidsLimit
	}
	if o.restart == "" {
		return upd, nil
	}
	var err error
	upd.RestartPolicy, err = ParseRestartPolicy(o.restart)
	return upd, err
}
