// Package bundle writes the OCI bundles that the runtimes are compared with.
package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/oci"
)

// version of the specification that the bundles state: the newest one that the
// crun of Debian 12 accepts. Nothing of the later ones is used.
const version = "1.0.2"

// Kind is one of the specifications compared.
type Kind struct {
	// Name is for tables and files.
	Name string
	// Title says in a few words what the container is like.
	Title string
	make  func(unified bool) (*specs.Spec, error)
}

// Default is what "runc spec" writes, without a terminal.
func Default() Kind { return Kind{"default", "default spec", defaultSpec} }

// HostNetwork is Default in the caller's network namespace.
func HostNetwork() Kind {
	return Kind{"host-network", "without network namespace", hostNetworkSpec}
}

// Docker is what Docker gives to a runtime for a container with limits.
func Docker() Kind {
	return Kind{"docker", "Docker-like with limits", dockerSpec}
}

// Write makes a bundle in dir: a config.json that runs args in the root
// filesystem rootfs, in a cgroup of that absolute path. unified says that the
// host's controllers are on cgroup v2.
func (k Kind) Write(dir, rootfs, cgroup string, unified bool, args ...string) error {
	spec, err := k.make(unified)
	if err != nil {
		return fmt.Errorf("make %s spec: %w", k.Name, err)
	}
	spec.Version = version
	spec.Root.Path = rootfs
	spec.Process.Args = args
	spec.Linux.CgroupsPath = cgroup
	raw, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode %s spec: %w", k.Name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644)
}

// defaultSpec has a cgroup namespace only where "runc spec" writes one.
func defaultSpec(unified bool) (*specs.Spec, error) {
	spec := oci.DefaultSpec()
	spec.Process.Terminal = false
	if !unified {
		dropNamespace(spec, specs.CgroupNamespace)
	}
	return spec, nil
}

func hostNetworkSpec(unified bool) (*specs.Spec, error) {
	spec, err := defaultSpec(unified)
	if err != nil {
		return nil, err
	}
	dropNamespace(spec, specs.NetworkNamespace)
	return spec, nil
}

func dropNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) {
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

// dockerCapabilities are a Docker container's (moby, oci/caps/defaults.go).
var dockerCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// dockerSpec is moby's oci.DefaultLinuxSpec with the flags
// --memory 256m --cpus 1 --pids-limit 256.
func dockerSpec(unified bool) (*specs.Spec, error) {
	spec, err := defaultSpec(unified)
	if err != nil {
		return nil, err
	}
	caps := dockerCapabilities
	spec.Root.Readonly = false
	spec.Process.NoNewPrivileges = false
	spec.Process.Rlimits = nil
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	spec.Mounts = dockerMounts()
	spec.Linux.MaskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	spec.Linux.Resources = dockerResources()
	spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec)
	return spec, err
}

func dockerMounts() []specs.Mount {
	mount := func(dest, kind, source, options string) specs.Mount {
		return specs.Mount{Destination: dest, Type: kind, Source: source, Options: strings.Split(options, ",")}
	}
	return []specs.Mount{
		mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
		mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
		mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
		mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
		mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
		mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
		mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
	}
}

func dockerResources() *specs.LinuxResources {
	memory, swap, pids := int64(256<<20), int64(512<<20), int64(256)
	quota, period := int64(100_000), uint64(100_000) // microseconds: one processor
	return &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: &memory, Swap: &swap},
		CPU:     &specs.LinuxCPU{Quota: &quota, Period: &period},
		Pids:    &specs.LinuxPids{Limit: &pids},
		Devices: dockerDevices(),
	}
}

// dockerDevices are null, zero, full, random, urandom, tty, console, ptmx, pts,
// fuse (refused) and mknod of any kind.
func dockerDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string, allow bool) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access, Major: &major, Minor: &minor}
		if minor < 0 {
			r.Minor = nil
		}
		if major < 0 {
			r.Major = nil
		}
		return r
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule("c", 1, 5, "rwm", true), rule("c", 1, 3, "rwm", true), rule("c", 1, 9, "rwm", true), rule("c", 1, 8, "rwm", true),
		rule("c", 5, 0, "rwm", true), rule("c", 5, 1, "rwm", true), rule("c", 10, 229, "rwm", false),
		rule("c", -1, -1, "m", true), rule("b", -1, -1, "m", true), rule("c", 136, -1, "rwm", true), rule("c", 5, 2, "rwm", true),
	}
}
