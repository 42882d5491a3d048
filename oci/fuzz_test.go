package oci

import (
	"encoding/json"
	"io"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seeds are configurations to begin with.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	full := DefaultSpec()
	full.Process.OOMScoreAdj = new(int)
	full.Process.ConsoleSize = &specs.Box{Height: 20, Width: 80}
	full.Process.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}}
	full.Mounts = append(full.Mounts,
		specs.Mount{Destination: "/a/../../b/./c", Source: "data", Options: []string{"rbind", "ro", "rnoexec", "rslave"}},
		specs.Mount{Destination: "/proc/cpuinfo", Source: "/etc/passwd", Type: "bind", Options: []string{"bind"}},
		specs.Mount{Destination: "rel", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "mode=700", "noatime"}})
	full.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/../x", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/fuse", Type: "b"}}
	full.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel/shmmax": "1", "net/ipv4/conf/eth0.1/forwarding": "1"}
	full.Linux.MaskedPaths = append(full.Linux.MaskedPaths, "/../../etc", "//x")
	full.Linux.RootfsPropagation = "rslave"
	full.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	shared := DefaultSpec()
	shared.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}, {Type: specs.UserNamespace, Path: "/x"}}
	shared.Linux.MaskedPaths, shared.Linux.ReadonlyPaths, shared.Root.Readonly = nil, nil, false
	shared.Hostname = ""
	var out [][]byte
	for _, s := range []*specs.Spec{DefaultSpec(), full, shared} {
		b, err := json.Marshal(s)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, b)
	}
	return append(out, []byte(`{}`), []byte(`{"ociVersion":"1.0.0","root":{"path":"/"},"linux":null,"process":{"args":["a"],"cwd":"/"}}`))
}

// FuzzCompile: whatever a config.json says, it is refused or becomes a program
// that stays in its root.
func FuzzCompile(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(checkConfig)
}

// FuzzSpec is the same for configurations made of the input, which gets further
// than changing the text of one.
func FuzzSpec(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("every byte is a choice of what comes next"))
	seed := make([]byte, 300)
	for i := range seed {
		seed[i] = byte(i*i + i>>3)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := json.Marshal((&choices{data}).spec())
		if err != nil {
			t.Skip("no JSON has this")
		}
		checkConfig(t, b)
	})
}

func checkConfig(t *testing.T, config []byte) {
	spec, err := ParseSpec(config)
	if err != nil {
		return
	}
	plan, err := Compile(spec, "/bundle")
	if err != nil {
		return
	}
	if err := confined(plan, rootPathOf(spec, "/bundle")); err != nil {
		t.Errorf("%v\n%s", err, config)
	}
	if err := plan.Explain(io.Discard); err != nil {
		t.Error(err)
	}
	in := &compileInput{spec: spec, host: anyHost()}
	if exec, err := compileExec(in, spec.Process, inherited{name: "init"}, 1); err == nil {
		if _, err := exec.Program.Encode(); err != nil {
			t.Error(err)
		}
	}
}

// choices makes decisions from fuzz input; after its end each is the first.
type choices struct{ data []byte }

func (c *choices) next(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *choices) of(list ...string) string { return list[c.next(len(list))] }

func (c *choices) path() string {
	return c.of("/a", "/", "a", "", "..", "/..", "../../x", "/a/../../b", "/a/./b//c", "/proc", "/proc/self", "/proc/cpuinfo",
		"/proc/sys/kernel", "/dev", "/dev/pts", "/dev/../etc", "/dev/console", "/sys", "/sys/fs/cgroup", "/.", "//", "/a\x00b", "/tmp", "/etc/passwd")
}

func (c *choices) mount() specs.Mount {
	m := specs.Mount{Destination: c.path(), Source: c.path(),
		Type: c.of("tmpfs", "", "bind", "none", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "overlay", "nosuch")}
	for range c.next(5) {
		m.Options = append(m.Options, c.of("ro", "rw", "bind", "rbind", "rro", "rnosuid", "noexec", "atime", "noatime", "shared", "rslave", "unbindable",
			"idmap", "ridmap", "tmpcopyup", "size=1", "=", "a=b=c", "source=/", "remount", "newinstance", "", "rr", "r", "mode=777", "a\x00"))
	}
	return m
}

func (c *choices) spec() *specs.Spec {
	s := DefaultSpec()
	s.Root = &specs.Root{Path: c.of("rootfs", "/", "/r", "../r", ""), Readonly: c.next(2) == 1}
	s.Hostname, s.Domainname = c.of("h", "", "a\x00"), c.of("", "d")
	s.Process.Args = []string{c.of("sh", "/bin/sh", "./x", "a/../b", "")}
	s.Process.Cwd = c.path()
	s.Process.Terminal = c.next(2) == 1
	s.Process.NoNewPrivileges = c.next(2) == 1
	s.Process.User = specs.User{UID: uint32(c.next(3)), AdditionalGids: make([]uint32, c.next(3))}
	s.Process.ApparmorProfile = c.of("", "p", "unconfined")
	if c.next(3) == 1 {
		adj := c.next(3) - 1
		s.Process.OOMScoreAdj = &adj
	}
	if c.next(2) == 1 {
		s.Mounts = nil
	}
	for range c.next(4) {
		s.Mounts = append(s.Mounts, c.mount())
	}
	c.linux(s.Linux)
	return s
}

func (c *choices) linux(l *specs.Linux) {
	for range c.next(3) {
		l.Devices = append(l.Devices, specs.LinuxDevice{Path: c.path(), Type: c.of("c", "b", "p", "u", ""), Major: int64(c.next(3)) - 1})
	}
	for range c.next(3) {
		l.MaskedPaths = append(l.MaskedPaths, c.path())
		l.ReadonlyPaths = append(l.ReadonlyPaths, c.path())
	}
	for range c.next(3) {
		if l.Sysctl == nil {
			l.Sysctl = map[string]string{}
		}
		l.Sysctl[c.of("net.ipv4.ip_forward", "net/../kernel/core_pattern", "net/x", "kernel.shmmax", "kernel/domainname", "fs.mqueue.msg_max",
			"net..x", "fs/mqueue/../x", "kernel.core_pattern", "/net", "")] = c.of("1", "")
	}
	l.RootfsPropagation = c.of("", "rslave", "shared", "private", "unbindable", "x")
	if c.next(3) == 1 {
		l.Namespaces = nil
		for range c.next(8) {
			n := specs.LinuxNamespace{Type: namespaceFlags[c.next(len(namespaceFlags))].kind, Path: c.of("", "/proc/1/ns/x", "x")}
			l.Namespaces = append(l.Namespaces, n)
		}
	}
	if c.next(3) == 1 {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(c.next(2)), Size: 1}}
		l.UIDMappings, l.GIDMappings = ids, ids
	}
	if c.next(3) == 1 {
		l.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: c.of("", "/l"),
			Syscalls: []specs.LinuxSyscall{{Names: []string{c.of("mkdir", "sendmsg", "read")}, Action: specs.ActNotify}}}
	}
}
