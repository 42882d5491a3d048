package oci

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

func TestInsideOfADefaultContainer(t *testing.T) {
	needRoot(t)
	before := hostMounts(t)
	root := rootfs(t)
	for _, c := range []struct{ name, script, want string }{
		{"pid 1", "echo $$", "1"},
		{"hostname", "hostname", "berth"},
		{"root is read-only", "touch /x 2>/dev/null || echo ro", "ro"},
		{"no host mounts", "cut -d' ' -f5 /proc/self/mountinfo | sort | uniq -d; ls /..", "bin\ndev\netc\nproc\nroot\nsys\ntmp"},
		{"only stdio is open (3 is the listing itself)", "ls /proc/self/fd", "0\n1\n2\n3"},
		{"capabilities", "grep CapEff /proc/self/status", "CapEff:\t0000000020000420"},
		{"bounding set", "grep CapBnd /proc/self/status", "CapBnd:\t0000000020000420"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
		{"open files limit", "ulimit -n", "1024"},
		{"own network", "ls /sys/class/net", "lo"},
		{"masked directory", "ls /sys/firmware | wc -l", "0"},
		{"masked file", "cat /proc/timer_list | wc -c", "0"},
		{"read-only path", "echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo ro", "ro"},
		{"devices", "ls /dev", "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero"},
		{"devices work", "echo x >/dev/null && head -c 3 /dev/zero | wc -c", "3"},
		{"other devices are denied", "mknod /dev/sda b 8 0 2>/dev/null || echo no", "no"},
		{"umask", "umask", "0022"},
		{"session of its own", "cut -d' ' -f6 /proc/self/stat", "1"},
		{"cgroup namespace", "cut -d: -f3 /proc/self/cgroup | sort -u", "/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := mustRun(t, specFor(root, "sh", "-c", c.script)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if after := hostMounts(t); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
}

// rlimitSigpending is RLIMIT_SIGPENDING, which package unix lacks.
const rlimitSigpending = 11

func TestProcessSettings(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	umask, adj := uint32(0o027), 500
	for _, c := range []struct {
		name, script, want string
		set                func(*specs.Spec)
	}{
		{"user and groups", "id -u; id -g; id -G", "1000\n1001\n1001 7 8", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7, 8}}
		}},
		{"user has no capabilities", "grep -E 'Cap(Prm|Eff)' /proc/self/status | cut -f2 | sort -u", "0000000000000000", func(s *specs.Spec) {
			s.Process.User.UID = 1000
		}},
		{"ambient capabilities", "grep CapEff /proc/self/status", "CapEff:\t0000000000000400", func(s *specs.Spec) {
			s.Process.User.UID = 1000
			s.Process.Capabilities.Ambient = []string{"CAP_NET_BIND_SERVICE"}
			s.Process.Capabilities.Inheritable = []string{"CAP_NET_BIND_SERVICE"}
		}},
		{"umask", "umask", "0027", func(s *specs.Spec) { s.Process.User.Umask = &umask }},
		{"oom_score_adj", "cat /proc/self/oom_score_adj", "500", func(s *specs.Spec) { s.Process.OOMScoreAdj = &adj }},
		{"working directory is made", "pwd", "/srv/new/dir", func(s *specs.Spec) { s.Process.Cwd = "/srv/new/dir" }},
		{"environment", "echo $A", "b c", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=b c") }},
		{"domainname", "cat /proc/sys/kernel/domainname", "example.org", func(s *specs.Spec) { s.Domainname = "example.org" }},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni", "80\n1234", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmni": "1234"}
		}},
		{"limits it may not raise are kept", "grep pending /proc/self/limits | tr -s ' ' | cut -d' ' -f4", fmt.Sprint(ownHardLimit(rlimitSigpending)), func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_SIGPENDING", Hard: 1 << 21, Soft: 1 << 21}}
		}},
		{"device of its own", "ls -l /dev/net/tun | tr -s ' ' | cut -d' ' -f1,3-6", "crw-r----- 5 6 10, 200", func(s *specs.Spec) {
			mode, uid, gid := os.FileMode(0o640), uint32(5), uint32(6)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200, FileMode: &mode, UID: &uid, GID: &gid}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "limits it may not raise are kept" {
				if held, _ := thisHost(false); held.sysResource {
					c.want = "2097152"
				}
			}
			s := specFor(root, "sh", "-c", c.script)
			s.Root.Readonly = false
			c.set(s)
			if got := mustRun(t, s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, script, want string
		mount              specs.Mount
	}{
		{"directory", "cat /data/sub/f; echo x >/data/sub/g && echo rw", "contentrw",
			specs.Mount{Destination: "/data/sub", Source: src, Options: []string{"rbind"}}},
		{"read-only directory", "echo x 2>/dev/null >/data/g || echo ro; cat /data/f", "ro\ncontent",
			specs.Mount{Destination: "/data", Source: src, Options: []string{"bind", "ro", "nosuid"}}},
		{"file", "cat /etc/conf", "content",
			specs.Mount{Destination: "/etc/conf", Source: filepath.Join(src, "f"), Options: []string{"bind"}}},
		{"tmpfs", "echo x >/scratch/f; stat -f -c %T /scratch; grep ' /scratch ' /proc/self/mountinfo | cut -d' ' -f6", "tmpfs\nrw,nosuid,nodev,noexec,relatime",
			specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "size=64k"}}},
		{"recursive read-only", "grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1", "ro",
			specs.Mount{Destination: "/data", Source: src, Options: []string{"rbind", "rro"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := specFor(root, "sh", "-c", c.script)
			s.Root.Readonly = false
			s.Mounts = append(s.Mounts, c.mount)
			if got := mustRun(t, s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestUserNamespace(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map; ls /dev/null; cat /proc/self/setgroups; stat -c %u /proc/1")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	if got, want := mustRun(t, s), "0\n 0 100000 65536\n/dev/null\nallow\n0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSeccompFilterApplies(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "sh", "-c", "mkdir /tmp/x 2>&1; echo $?")
	s.Root.Readonly = false
	errno := uint(unix.EXDEV)
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
	for _, nnp := range []bool{true, false} {
		s.Process.NoNewPrivileges = nnp
		if got := mustRun(t, s); !strings.Contains(got, unix.EXDEV.Error()) && !strings.Contains(strings.ToLower(got), "cross-device") {
			t.Errorf("no_new_privs %t: %q", nnp, got)
		}
	}
}

func TestCommandErrors(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	write := func(name, content string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/notexec", "#!/bin/sh\n", 0o644)
	write("bin/garbage", "\x7fELF garbage", 0o755)
	write("bin/nointerp", "#!/no/such/interpreter\n", 0o755)
	for _, c := range []struct {
		args  []string
		class error
		text  string
	}{
		{[]string{"nosuch"}, ErrCommandNotFound, "nosuch"},
		{[]string{"/bin/nosuch"}, ErrCommandNotFound, "/bin/nosuch: no such file or directory"},
		{[]string{"notexec"}, ErrCommandNotExecutable, "permission denied"},
		{[]string{"/etc"}, ErrCommandNotExecutable, "permission denied"},
		{[]string{"/bin/garbage"}, ErrCommandNotExecutable, "exec format error"},
		{[]string{"nointerp"}, ErrCommandNotFound, "no such file or directory"},
	} {
		_, _, err := run(t, specFor(root, c.args...))
		if !errors.Is(err, c.class) || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%v: %v", c.args, err)
		}
		if errdefs.Hint(err) == "" {
			t.Errorf("%v: %v: no hint", c.args, err)
		}
	}
}

func TestWaitStatusIsTheCommands(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if _, ws, err := run(t, specFor(root, "sh", "-c", "exit 42")); err != nil || ws.ExitStatus() != 42 {
		t.Errorf("status %v, %v", ws, err)
	}
	s := specFor(root, "sh", "-c", "kill -9 $$")
	s.Linux.Namespaces = s.Linux.Namespaces[1:] // the host's pid namespace: pid 1 cannot kill itself
	if s.Linux.Namespaces[0].Type == specs.PIDNamespace {
		t.Fatal("the default specification has changed")
	}
	if _, ws, err := run(t, s); err != nil || !ws.Signaled() || ws.Signal() != unix.SIGKILL {
		t.Errorf("status %v, %v", ws, err)
	}
}

func TestTinyMemoryLimit(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "true")
	limit := int64(1 << 20)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	if got := mustRun(t, s); got != "" {
		t.Errorf("output %q", got)
	}
}

func TestNamespacesAreNew(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "sh", "-c", "cd /proc/self/ns; for n in cgroup ipc mnt net pid time uts; do readlink $n; done")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	inside := strings.Fields(mustRun(t, s))
	if len(inside) != 7 {
		t.Fatalf("got %q", inside)
	}
	for _, ns := range inside {
		kind, _, _ := strings.Cut(ns, ":")
		if host, err := os.Readlink("/proc/self/ns/" + kind); err != nil || host == ns {
			t.Errorf("%s is the host's (%v)", ns, err)
		}
	}
}

func TestNoMountNamespace(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	before := hostMounts(t)
	s := specFor(root, "sh", "-c", "ls /; cat /etc/mark")
	if err := os.WriteFile(filepath.Join(root, "etc/mark"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Root.Readonly = false
	s.Mounts, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.UTSNamespace}}
	if got, want := mustRun(t, s), "bin\ndev\netc\nroot\ntmp\ninside"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if after := hostMounts(t); after != before {
		t.Error("the host's mounts have changed")
	}
}

func TestIgnoredSignalsAreReset(t *testing.T) {
	needRoot(t)
	signal.Ignore(unix.SIGUSR1, unix.SIGQUIT)
	defer signal.Reset(unix.SIGUSR1, unix.SIGQUIT)
	if got, want := mustRun(t, specFor(rootfs(t), "grep", "SigIgn", "/proc/self/status")), "SigIgn:\t0000000000000000"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A container whose cgroup cannot be made ends where it waits for that, and its
// command never runs.
func TestPreparationFails(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "touch", "/ran")
	s.Root.Readonly = false
	failed := errors.New("no cgroup today")
	var waiting *Process
	pr, err := runner(t).Start(&StartRequest{
		ID: "test", Spec: s, Bundle: t.TempDir(),
		Prepare: func(pr *Process) error { waiting = pr; return failed },
	})
	if pr != nil || !errors.Is(err, failed) {
		t.Fatalf("%v, %v", pr, err)
	}
	if _, _, err := procStat(waiting.Pid); err == nil {
		t.Errorf("process %d is left", waiting.Pid)
	}
	if _, err := os.Lstat(s.Root.Path + "/ran"); err == nil {
		t.Error("the command ran")
	}
}
