// Package fullspec has a specification that uses everything berth-oci supports
// on every host: what the tests of failures break, step by step. Whoever adds a
// field to the runtime adds it here.
package fullspec

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Fill sets all fields of s, a default specification: the root file system, which
// has a shell at /bin/sh, the cgroup and the command. source is a directory of
// the host with a file "file" in it, for bind mounts; hook is a program of the
// host that succeeds.
func Fill(s *specs.Spec, rootfs, cgroupsPath, source, hook string, args ...string) *specs.Spec {
	s.Root = &specs.Root{Path: rootfs, Readonly: true}
	s.Domainname = "example.org"
	s.Annotations = map[string]string{"org.example.key": "value"}
	process(s.Process, args)
	mounts(s, source)
	hooks(s, hook)
	linux(s.Linux, cgroupsPath)
	return s
}

func process(p *specs.Process, args []string) {
	umask, adj := uint32(0o027), 500
	p.Terminal = false
	p.Args = args
	p.Cwd = "/work/dir"
	p.User = specs.User{UID: 0, GID: 0, Umask: &umask, AdditionalGids: []uint32{5, 6}}
	p.OOMScoreAdj = &adj
	p.NoNewPrivileges = false
	p.Rlimits = []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: 256, Hard: 512}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NPROC", Soft: 1000, Hard: 1000},
	}
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID"}
	p.Capabilities = &specs.LinuxCapabilities{
		Bounding: caps, Permitted: caps, Effective: caps,
		Inheritable: []string{"CAP_NET_BIND_SERVICE"}, Ambient: []string{"CAP_NET_BIND_SERVICE"},
	}
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
}

func mounts(s *specs.Spec, source string) {
	add := func(dest, kind, source string, options ...string) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: kind, Source: source, Options: options})
	}
	add("/data", "bind", source, "rbind", "ro", "nosuid", "nodev", "noexec", "rprivate")
	add("/etc/conf", "bind", source+"/file", "bind", "ro")
	add("/scratch", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", "size=1m")
	add("/scratch/nested/deep", "tmpfs", "tmpfs", "ro")
	add("/data2", "bind", source, "rbind", "rro", "rslave")
}

func hooks(s *specs.Spec, path string) {
	timeout := 60
	hook := []specs.Hook{{Path: path, Args: []string{path}, Env: []string{"A=b"}, Timeout: &timeout}}
	s.Hooks = &specs.Hooks{
		CreateRuntime: hook, CreateContainer: hook, Poststart: hook, Poststop: hook,
		StartContainer: []specs.Hook{{Path: "/bin/true", Args: []string{"true"}}},
	}
}

func linux(l *specs.Linux, cgroupsPath string) {
	l.CgroupsPath = cgroupsPath
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	l.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234"}
	l.RootfsPropagation = "private"
	l.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal}
	l.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
	mode, id := os.FileMode(0o640), uint32(5)
	l.Devices = []specs.LinuxDevice{{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200, FileMode: &mode, UID: &id, GID: &id}}
	errno := uint(38)
	l.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"swapon", "reboot"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
	memory, swap, pids, shares, quota, period := int64(64<<20), int64(64<<20), int64(50), uint64(512), int64(50000), uint64(100000)
	tun := int64(10)
	l.Resources = &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: &memory, Swap: &swap},
		Pids:    &specs.LinuxPids{Limit: &pids},
		CPU:     &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period, Cpus: "0"},
		Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &tun, Access: "rw"}},
	}
}
