package oci

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/caps"
	"github.com/berth-containers/berth/kernel/lsm"
)

// needLandlock skips where the kernel has no Landlock that can be used.
func needLandlock(t *testing.T) {
	t.Helper()
	needRoot(t)
	if lsm.Landlock() < landlockABI {
		t.Skip("the kernel has no Landlock, or one that cannot allow renaming")
	}
}

func noMounts() *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"execve", "write"}, Action: specs.ActAllow}},
	}
}

func TestWhoGetsALandlockLayer(t *testing.T) {
	ask := func(value string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Annotations = map[string]string{LandlockAnnotation: value} }
	}
	unprivileged := func(s *specs.Spec) { s.Linux.Seccomp = noMounts() }
	but := func(set func(*specs.Spec)) func(*specs.Spec) {
		return func(s *specs.Spec) { unprivileged(s); set(s) }
	}
	namespace := func(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			for i := range s.Linux.Namespaces {
				if s.Linux.Namespaces[i].Type == kind {
					s.Linux.Namespaces[i].Path = path
				}
			}
		}
	}
	for _, c := range []struct {
		name       string
		abi        int
		set        func(*specs.Spec)
		init, exec landlockLevel
		err        error
	}{
		{"nobody filters system calls", 7, func(*specs.Spec) {}, landlockOff, landlockOff, nil},
		{"unprivileged", 7, unprivileged, landlockMounts, landlockOff, nil},
		{"oldest kernel that can", 2, unprivileged, landlockMounts, landlockOff, nil},
		{"renames would fail", 1, unprivileged, landlockOff, landlockOff, nil},
		{"no Landlock", 0, unprivileged, landlockOff, landlockOff, nil},
		{"switched off", 7, but(ask("off")), landlockOff, landlockOff, nil},
		{"may mount", 7, but(func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_SYS_ADMIN"} }), landlockOff, landlockOff, nil},
		{"AppArmor", 7, but(func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }), landlockOff, landlockOff, nil},
		{"unconfined", 7, but(func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" }), landlockOff, landlockOff, nil},
		{"SELinux", 7, but(func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }), landlockOff, landlockOff, nil},
		{"the pid namespace of a neighbour", 7, but(namespace(specs.PIDNamespace, "/x")), landlockOff, landlockOff, nil},
		{"the mount namespace of a neighbour", 7, but(namespace(specs.MountNamespace, "/x")), landlockOff, landlockOff, nil},
		{"mounts pass the filter", 7, but(func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"mount"}, Action: specs.ActAllow})
		}), landlockOff, landlockOff, nil},
		{"all but mounts pass the filter", 7, func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}}}
		}, landlockMounts, landlockOff, nil},
		{"some mounts pass the filter", 7, func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
				Names: []string{"mount"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo}}}}}
		}, landlockOff, landlockOff, nil},
		{"asked for", 7, ask("default"), landlockMounts, landlockOff, nil},
		{"asked for, strict", 7, ask("strict"), landlockStrict, landlockStrict, nil},
		{"asked for without Landlock", 0, ask("strict"), 0, 0, errdefs.ErrUnsupported},
		{"no such level", 7, ask("on"), 0, 0, errdefs.ErrInvalid},
	} {
		s := specFor("/nonexistent", "true")
		c.set(s)
		host := anyHost()
		host.landlock = func() int { return c.abi }
		initPlan, err := compile(&compileInput{spec: s, bundle: "/", host: host})
		if !errors.Is(err, c.err) || err != nil && (c.err == nil || !strings.Contains(err.Error(), LandlockAnnotation)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		execPlan, err := compileExec(&compileInput{spec: s, host: host}, s.Process, inherited{name: "init"}, 1)
		if err != nil {
			t.Errorf("%s: exec: %v", c.name, err)
			continue
		}
		if got := levelOf(initPlan); got != c.init {
			t.Errorf("%s: init has %d, want %d", c.name, got, c.init)
		}
		if got := levelOf(execPlan); got != c.exec {
			t.Errorf("%s: exec has %d, want %d", c.name, got, c.exec)
		}
	}
}

// levelOf reads from a plan which layer it makes.
func levelOf(plan *Plan) landlockLevel {
	var b strings.Builder
	_ = plan.Explain(&b)
	switch {
	case strings.Contains(b.String(), "{REFER|WRITE_FILE}"):
		return landlockStrict
	case strings.Contains(b.String(), "landlock_restrict_self"):
		return landlockMounts
	}
	return landlockOff
}

// powerful is a container that could do everything the layer denies: every
// capability, nothing masked, nothing read-only.
func powerful(root, layer string, script string) *specs.Spec {
	s := specFor(root, "sh", "-c", script)
	all := []string{}
	for n := range caps.Cap(unix.CAP_LAST_CAP + 1) {
		all = append(all, n.String())
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
	s.Process.NoNewPrivileges = false
	s.Root.Readonly = false
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	for i := range s.Mounts {
		if strings.HasPrefix(s.Mounts[i].Destination, "/sys") {
			s.Mounts[i].Options = s.Mounts[i].Options[:3] // without ro, relatime
		}
	}
	s.Annotations = map[string]string{LandlockAnnotation: layer}
	return s
}

// Each act succeeds without a layer, so that it is the layer that denies it.
func TestLandlockLayers(t *testing.T) {
	needLandlock(t)
	root := rootfs(t)
	volume := t.TempDir()
	for _, d := range []string{"data/a", "data/b"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A link does not make /proc a part of the image.
	if err := os.Symlink("/proc", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	const cgroups = "for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do [ -e $f ] && : 3<>$f && break; done"
	for _, c := range []struct {
		name, script          string
		deniedDefault, denied bool // by strict
	}{
		{"mount", "mount -t tmpfs x /tmp", true, true},
		{"bind", "mount -o bind /etc /tmp", true, true},
		{"remount", "mount -o remount,rw /proc", true, true},
		{"unmount", "umount /dev/shm", true, true},
		{"mount in a user namespace", "unshare -Urm mount -t tmpfs x /tmp", true, true},
		{"kernel parameter", "echo x >/proc/sys/kernel/domainname", false, true},
		{"kernel parameter through a link", "echo x >/link/sys/kernel/domainname", false, true},
		{"sysrq-trigger", ": 3>/proc/sysrq-trigger", false, true},
		{"kcore", ": 3>/proc/kcore", false, true},
		{"/sys", ": 3>/sys/kernel/profiling", false, true},
		{"/sys/module", ": 3>/sys/module/kernel/parameters/panic", false, true},
		{"a process's own settings", "echo 1 >/proc/self/coredump_filter", false, true},
		{"a new file in /", "echo x >/new", false, true},
		{"own cgroup", cgroups, false, false},
		{"reading /proc and /sys", "cat /proc/sys/kernel/hostname /proc/self/status /sys/kernel/profiling", false, false},
		{"files", "echo x >/tmp/x; rm /tmp/x; echo x >>/etc/y; mkdir -p /data/n; echo x >/data/n/f", false, false},
		{"devices", "echo x >/dev/null; echo x >/dev/shm/x; echo x >/dev/stdout; echo x >/proc/self/fd/1", false, false},
		{"volume", "mkdir -p /vol/a /vol/b; echo x >/vol/a/f; mv /vol/a/f /vol/b/f; ln /vol/b/f /vol/a/g; rm -r /vol/a /vol/b", false, false},
		{"renames and links", "echo x >/data/a/f; mv /data/a/f /data/b/f; ln /data/b/f /data/a/g; mv /data/a/g /h; mv /h /data/a/h; mv /data/b /data/a/b; mv /data/a/b /data/b", false, false},
		{"node", "mknod /tmp/null c 1 3; rm /tmp/null", false, false},
	} {
		if _, path, ok := strings.Cut(c.script, ": 3>"); ok {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				t.Logf("%s: the kernel has no such file", c.name)
				continue
			}
		}
		for layer, denied := range map[string]bool{"off": false, "default": c.deniedDefault, "strict": c.denied} {
			s := powerful(root, layer, "set -e; "+c.script)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Source: volume, Options: []string{"bind"}})
			out, ws, err := run(t, s)
			if err != nil {
				t.Fatal(err)
			}
			if got := ws.ExitStatus() != 0; got != denied {
				t.Errorf("%s, layer %s: denied %t, want %t: %s", c.name, layer, got, denied, out)
			}
			if err := os.Remove(filepath.Join(root, "new")); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
}

// The layer needs no privilege of the command's, and costs it none.
func TestLandlockAsAnyUser(t *testing.T) {
	needLandlock(t)
	root := rootfs(t)
	for _, nnp := range []bool{true, false} {
		for _, uid := range []uint32{0, 1000} {
			s := specFor(root, "sh", "-c", "grep -E 'CapEff|NoNewPrivs' /proc/self/status | cut -f2")
			s.Annotations = map[string]string{LandlockAnnotation: "strict"}
			s.Process.NoNewPrivileges, s.Process.User.UID = nnp, uid
			want := map[uint32]string{0: "0000000020000420", 1000: "0000000000000000"}[uid] + map[bool]string{true: "\n1", false: "\n0"}[nnp]
			if got := mustRun(t, s); got != want {
				t.Errorf("user %d, no_new_privs %t: %q", uid, nnp, got)
			}
		}
	}
}

func TestLandlockInAUserNamespace(t *testing.T) {
	needLandlock(t)
	root := rootfs(t)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	for layer, want := range map[string]string{"off": "mounted", "default": "denied", "strict": "denied"} {
		s := powerful(root, layer, "mount -t tmpfs x /tmp 2>/dev/null && echo mounted || echo denied")
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		if got := mustRun(t, s); got != want {
			t.Errorf("%s: %s", layer, got)
		}
	}
}

// An exec has no default layer, and so can look at who has; not the other way
// round. Two strict layers keep each other apart.
func TestLandlockAndExecs(t *testing.T) {
	needLandlock(t)
	for layer, want := range map[string]string{"off": "look mount\nlook", "default": "look mount\nno", "strict": "\nno"} {
		t.Run(layer, func(t *testing.T) {
			s := startSleeper(t, func(s *specs.Spec) {
				for _, fifo := range []string{"ask", "answer"} {
					if err := unix.Mkfifo(filepath.Join(s.Root.Path, fifo), 0o666); err != nil {
						t.Fatal(err)
					}
				}
				*s = *powerful(s.Root.Path, layer, "read p </ask; l=$(readlink /proc/$p/exe); (echo ${l:+look}${l:-no} | cut -c-4) >/answer; exec sleep 1000")
			})
			out, _, err := s.exec(s.process("sh", "-c",
				"l=$(readlink /proc/1/exe); m=$(mount -t tmpfs x /tmp 2>/dev/null && echo mount); echo ${l:+look} $m; echo $$ >/ask; cat </answer"))
			if err != nil || out != strings.TrimSpace(want) {
				t.Errorf("%v, %q, want %q", err, out, want)
			}
		})
	}
}
