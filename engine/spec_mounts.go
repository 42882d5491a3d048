package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultMounts are the file systems of every container.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: shmPath, Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
	}
}

const shmPath = "/dev/shm"

// specMounts lists a container's mounts in the order they are made: the
// defaults that no user mount replaces, then the user's and the /etc files, so
// that a mount inside another comes after it.
func specMounts(in *specSources) ([]specs.Mount, error) {
	user, err := userMounts(in)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range user {
		taken[m.Destination] = true
	}
	var list []specs.Mount
	for _, m := range defaultMounts() {
		if taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		if m.Destination == shmPath {
			if m = shmMount(in, m); m.Type == "" {
				continue
			}
		}
		adjustAccess(in, &m)
		list = append(list, m)
	}
	return append(list, user...), nil
}

// shmMount fits the /dev/shm mount to the IPC mode: none has none (an empty
// mount), host and container share another one.
func shmMount(in *specSources, m specs.Mount) specs.Mount {
	hc := in.rec.HostConfig
	switch {
	case hc.IpcMode.IsNone():
		return specs.Mount{}
	case in.shm != "":
		return specs.Mount{Destination: shmPath, Type: "bind", Source: in.shm, Options: []string{"rbind", "rprivate"}}
	}
	size := hc.ShmSize
	if size == 0 {
		size = in.shmSize
	}
	m.Options = append(m.Options, "size="+strconv.FormatInt(size, 10))
	return m
}

// adjustAccess makes default mounts writable for privileged containers, the
// cgroups for those that asked for it.
func adjustAccess(in *specSources, m *specs.Mount) {
	hc := in.rec.HostConfig
	if hc.Privileged && (m.Type == "sysfs" || m.Type == "cgroup") || in.sec.writableCgroups && m.Type == "cgroup" {
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
	}
}

// userMounts are the binds, volumes, tmpfs and /etc files by destination.
func userMounts(in *specSources) ([]specs.Mount, error) {
	tmpfs, err := tmpfsMounts(in.rec.HostConfig)
	if err != nil {
		return nil, err
	}
	var list []specs.Mount
	taken := map[string]bool{}
	for i := range in.rec.Mounts {
		m := bindMount(&in.rec.Mounts[i], in.mountSources)
		taken[m.Destination] = true
		list = append(list, m)
	}
	for _, m := range tmpfs {
		taken[m.Destination] = true
		list = append(list, specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: m.Options})
	}
	for name, source := range in.etc {
		dest := "/etc/" + name
		if taken[dest] {
			continue
		}
		opts := []string{"rbind", "rprivate"}
		if in.rec.HostConfig.ReadonlyRootfs {
			opts = append(opts, "ro")
		}
		list = append(list, specs.Mount{Destination: dest, Type: "bind", Source: source, Options: opts})
	}
	slices.SortFunc(list, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return list, nil
}

// bindMount writes a bind or volume in OCI's words.
func bindMount(m *mountPoint, sources map[string]string) specs.Mount {
	opts := []string{"rbind"}
	if m.NonRecursive {
		opts[0] = "bind"
	}
	if !m.RW {
		if m.ReadOnlyNonRecursive || m.NonRecursive {
			opts = append(opts, "ro")
		} else {
			opts = append(opts, "rro")
		}
	}
	opts = append(opts, string(m.Propagation))
	if m.Propagation == "" {
		opts[len(opts)-1] = string(mount.PropagationRPrivate)
	}
	source := m.Source
	if other, ok := sources[m.Destination]; ok {
		source = other
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: source, Options: opts}
}

// rootPropagation is what the root must be so that the binds' propagation can
// work: an event only passes through a root that is shared or slave itself.
func rootPropagation(mounts []mountPoint) string {
	root := ""
	for i := range mounts {
		switch mounts[i].Propagation {
		case mount.PropagationShared, mount.PropagationRShared:
			return "shared"
		case mount.PropagationSlave, mount.PropagationRSlave:
			root = "rslave"
		}
	}
	return root
}
