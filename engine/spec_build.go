package engine

import (
	"path"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// specSources is everything an OCI spec is made from. Building it is pure:
// the kernel and the disk have been asked before.
type specSources struct {
	rec  *record
	host *hostFacts
	// user is the resolved user of the process.
	user processUser
	// parent is the cgroup the container's own is made below.
	parent string
	// shmSize is the size of /dev/shm in bytes when the container names none.
	shmSize int64
	// netns, pidns and ipcns are paths of namespaces to join; empty makes a
	// new one unless the mode is host.
	netns, pidns, ipcns string
	// userns is the container's own user namespace; nil: the host's.
	userns *userns
	// shm is the host directory bound at /dev/shm; empty mounts a tmpfs.
	shm string
	// mountSources are what is bound at a destination in place of the mount
	// point's own source.
	mountSources map[string]string
	// etc are the host's paths of files bound at /etc/NAME.
	etc map[string]string
	// hostDevices are the host's device nodes, only for privileged containers.
	hostDevices []specs.LinuxDevice
	// devices are those of --device, resolved; cdi names the CDI devices.
	devices []device
	cdi     []string
	sec     securityOptions
	// appArmor is the profile to run under; empty names none.
	appArmor string
}

// buildSpec makes the OCI spec of a container as Docker makes it.
func buildSpec(in *specSources) (*specs.Spec, error) {
	hc := in.rec.HostConfig
	mounts, err := specMounts(in)
	if err != nil {
		return nil, err
	}
	process, err := specProcess(in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: "rootfs", Readonly: hc.ReadonlyRootfs},
		Process:     process,
		Mounts:      mounts,
		Annotations: hc.Annotations,
		Linux: &specs.Linux{
			Namespaces:        specNamespaces(in),
			Sysctl:            specSysctls(in),
			CgroupsPath:       path.Join(in.parent, in.rec.ID),
			Resources:         specResources(&hc.Resources),
			MaskedPaths:       maskedPaths(in),
			ReadonlyPaths:     readonlyPaths(in),
			RootfsPropagation: rootPropagation(in.rec.Mounts),
		},
	}
	s.Process.SelinuxLabel, s.Linux.MountLabel = in.rec.Labels.shown()
	if !hc.UTSMode.IsHost() {
		s.Hostname, s.Domainname = in.rec.Config.Hostname, in.rec.Config.Domainname
	}
	if err := addDevices(s, in); err != nil {
		return nil, err
	}
	in.userns.mapSpec(s, in)
	if s.Linux.Seccomp, err = seccompProfile(s, &in.sec, hc.Privileged, in.host); err != nil {
		return nil, err
	}
	if s.Linux.Seccomp != nil && guarded(in) {
		guardQuota(s.Linux.Seccomp)
	}
	return s, nil
}

// specProcess makes the init process.
func specProcess(in *specSources) (*specs.Process, error) {
	cfg, hc := in.rec.Config, in.rec.HostConfig
	caps, err := capabilities(in.host.caps, hc.CapAdd, hc.CapDrop, hc.Privileged)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Args:            append([]string{in.rec.Path}, in.rec.Args...),
		Cwd:             firstNonEmpty(cfg.WorkingDir, "/"),
		Env:             withHome(environment(cfg), in.user.home),
		Terminal:        cfg.Tty,
		User:            in.user.User,
		Capabilities:    capabilitySets(caps, in.user.UID),
		Rlimits:         rlimits(hc),
		NoNewPrivileges: in.sec.noNewPrivileges,
		OOMScoreAdj:     &hc.OomScoreAdj,
		ApparmorProfile: in.appArmor,
	}
	p.User.Umask = hc.Umask
	if cfg.Tty && hc.ConsoleSize[0]*hc.ConsoleSize[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: hc.ConsoleSize[0], Width: hc.ConsoleSize[1]}
	}
	return p, nil
}

// rlimits writes the ulimits in OCI's words. They were checked and clamped at
// creation.
func rlimits(hc *container.HostConfig) []specs.POSIXRlimit {
	var list []specs.POSIXRlimit
	for _, u := range hc.Ulimits {
		list = append(list, specs.POSIXRlimit{
			Type: rlimitName(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
		})
	}
	return list
}

// defaultMasked are the paths hidden in every unprivileged container: host
// secrets and side channels that procfs and sysfs show any root.
var defaultMasked = []string{
	"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
	"/sys/devices/virtual/powercap",
}

// defaultReadonly are the parts of /proc that could change the host.
var defaultReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func maskedPaths(in *specSources) []string {
	hc := in.rec.HostConfig
	switch {
	case hc.MaskedPaths != nil:
		return hc.MaskedPaths
	case hc.Privileged:
		return nil
	}
	return append(append([]string{}, defaultMasked...), in.host.maskedCPUs...)
}

func readonlyPaths(in *specSources) []string {
	hc := in.rec.HostConfig
	switch {
	case hc.ReadonlyPaths != nil:
		return hc.ReadonlyPaths
	case hc.Privileged:
		return nil
	}
	return defaultReadonly
}
