package oci

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// A process of the container that waits for execs must not get hold of anything
// of theirs: not their binary, not their descriptors, not their memory.
func TestContainerCannotLookIntoExecs(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) {
		// Docker's, as far as they matter here. (CAP_SYS_PTRACE would let it look.)
		all := []string{"CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SYS_CHROOT"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		s.Process.Args = []string{"sh", "-c",
			"i=0; while :; do for p in /proc/[0-9]*; do readlink $p/exe $p/fd/* 2>/dev/null; done; done | grep -v -E '^(/bin/|/dev/null|pipe:|/proc/)' >/tmp/seen"}
		s.Root.Readonly = false
	})
	for range 50 {
		if _, _, err := s.exec(s.process("true")); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := os.ReadFile(filepath.Join(s.req.Spec.Root.Path, "tmp/seen"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(seen)), "\n") {
		if line != "" && !strings.HasPrefix(line, "/memfd:berth-init") {
			t.Errorf("the container saw %s", line)
		}
	}
	if strings.Contains(string(seen), self) {
		t.Errorf("the container saw the host's %s", self)
	}
}

// The same for a container whose pid namespace others join, as in a pod: while one
// is set up, nothing of the host is to be had by way of its process.
func TestContainerCannotLookIntoOnesThatJoin(t *testing.T) {
	host := hostDirectory(t)
	s := startSleeper(t, func(s *specs.Spec) {
		all := []string{"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SETUID", "CAP_SYS_CHROOT"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		s.Process.Args = []string{"sh", "-c", "while :; do cat /proc/[0-9]*/root" + host.Name() + "/bait /proc/[0-9]*/cwd/bait /proc/[0-9]*/fd/*/bait" +
			" /proc/[0-9]*/root/mark >>/tmp/seen; done 2>/dev/null"}
		s.Root.Readonly = false
		write(t, s.Root.Path, "mark", "+")
	})
	spec := *s.req.Spec
	linux, process := *spec.Linux, *spec.Process
	spec.Linux, spec.Process = &linux, &process
	linux.CgroupsPath += "-joined"
	linux.Namespaces = append([]specs.LinuxNamespace{}, linux.Namespaces...)
	for i := range linux.Namespaces {
		if n := &linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = fmt.Sprintf("/proc/%d/ns/pid", s.init.Pid)
		}
	}
	process.Args = []string{"true"}
	process.Cwd = "/"
	a := attack(t, &spec)
	for range 50 {
		if _, err := a.try(nil); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := os.ReadFile(filepath.Join(s.req.Spec.Root.Path, "tmp/seen"))
	if err != nil {
		t.Fatal(err)
	}
	if rest := strings.ReplaceAll(string(seen), "+", ""); rest != "" || len(seen) == 0 {
		t.Errorf("the container read %q of the host (%d looks)", rest, len(seen))
	}
}

// CVE-2016-9962 for a container that may trace: nothing can be hidden from it, so
// that a process which joins it must not be there to be seen before it has no more
// rights than the container's.
func TestExecsAreSeenConfined(t *testing.T) {
	const own = "CapEff:\t0000000000080420" // with CAP_SYS_PTRACE
	s := startSleeper(t, func(s *specs.Spec) {
		list := []string{"CAP_SYS_PTRACE", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: list, Permitted: list, Effective: list}
		s.Process.Args = []string{"sh", "-c", "while :; do grep -h -s -E 'CapEff' /proc/[0-9]*/status >>/tmp/seen; done"}
		s.Root.Readonly = false
	})
	pr := s.process("true")
	pr.Capabilities = s.req.Spec.Process.Capabilities
	for range 20 {
		// It dawdles where it still has every right.
		if _, err := s.try(pr, dawdle, nil); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := os.ReadFile(filepath.Join(s.req.Spec.Root.Path, "tmp/seen"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range wholeLines(t, seen) {
		if line != own {
			t.Fatalf("the container saw a process with %s, it has %s itself", line, own)
		}
	}
}

// The same for a container that joins the pid namespace of one that may trace.
func TestOnesThatJoinAreSeenConfined(t *testing.T) {
	needRoot(t)
	if !procOfNamespace() {
		t.Skip("the kernel mounts proc only for the pid namespace one is in (Linux 6.17)")
	}
	const own = "CapEff:\t0000000000080420" // with CAP_SYS_PTRACE
	s := startSleeper(t, func(s *specs.Spec) {
		list := []string{"CAP_SYS_PTRACE", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: list, Permitted: list, Effective: list}
		s.Process.Args = []string{"sh", "-c", "while :; do grep -h -s -E 'CapEff' /proc/[0-9]*/status >>/tmp/seen; done"}
		s.Root.Readonly = false
	})
	joins := func(terminal bool, args ...string) *specs.Spec {
		spec := *s.req.Spec
		linux, process := *spec.Linux, *spec.Process
		spec.Linux, spec.Process = &linux, &process
		linux.CgroupsPath += "-joined"
		linux.Namespaces = append([]specs.LinuxNamespace{}, linux.Namespaces...)
		setNamespace(&spec, specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", s.init.Pid))
		process.Args, process.Terminal, process.Cwd = args, terminal, "/"
		return &spec
	}
	for _, terminal := range []bool{false, true} {
		a := attack(t, joins(terminal, "sh", "-c", "test $$ -gt 1 && test -d /proc/$$/fd && readlink /proc/self/ns/pid && head -c 1 /proc/1/comm && ps -o pid,sid | grep -q \"^ *$$ *$$\" && echo leads"))
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.init.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			// It dawdles where it still has every right.
			out, err := a.try(dawdle)
			if out = strings.ReplaceAll(out, "\r", ""); err != nil || out != want+"\nsleads" {
				t.Fatalf("terminal %t: %q, %v", terminal, out, err)
			}
		}
		if err := a.g.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := os.ReadFile(filepath.Join(s.req.Spec.Root.Path, "tmp/seen"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range wholeLines(t, seen) {
		if line != own {
			t.Fatalf("the container saw a process with %s, it has %s itself", line, own)
		}
	}
}

// wholeLines are those of a file that is being written: the last may be half one.
func wholeLines(t *testing.T, text []byte) []string {
	t.Helper()
	whole := string(text[:bytes.LastIndexByte(text, '\n')+1])
	if whole == "" {
		t.Fatal("the container saw nothing: this test tests nothing")
	}
	return strings.Split(strings.TrimSpace(whole), "\n")
}

// dawdle makes one call of the set-up take 20 ms.
func dawdle(prog *p.Program, op *p.Op) {
	if op.Sys == p.Umask {
		time := make([]byte, 16)
		binary.LittleEndian.PutUint64(time[8:], 20e6)
		op.Sys, op.Args = p.Sys{Nr: unix.SYS_NANOSLEEP, Name: "nanosleep"}, [6]p.Arg{prog.Data(time, "20 ms")}
	}
}

// CVE-2022-29162: the inheritable set was not empty, so that any program with an
// inheritable file capability gained it.
func TestNothingIsInheritable(t *testing.T) {
	needRoot(t)
	// This thread's is full, and children begin with it.
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Inheritable, data[1].Inheritable = data[0].Permitted, data[1].Permitted
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	const none = "CapInh:\t0000000000000000"
	a := attack(t, specFor(rootfs(t), "grep", "CapInh", "/proc/self/status"))
	if out, err := a.try(nil); err != nil || out != none {
		t.Errorf("init: %q, %v", out, err)
	}
	if out, err := a.try(keepCapabilities); err != nil || out == none {
		t.Errorf("a naive runtime gives none either (%q, %v): this test tests nothing", out, err)
	}
	s := startSleeper(t, nil)
	if out, err := s.try(s.process("grep", "CapInh", "/proc/self/status"), nil, nil); err != nil || out != none {
		t.Errorf("exec: %q, %v", out, err)
	}
}

// keepCapabilities leaves the sets as they were inherited.
func keepCapabilities(_ *p.Program, op *p.Op) {
	if op.Sys == p.Capset {
		op.Sys, op.Args = p.Umask, [6]p.Arg{p.Int(0o022)}
	}
}

// CVE-2023-25809, CVE-2022-0492: the host's cgroups were there to be written.
func TestOnlyOwnCgroupsAreMounted(t *testing.T) {
	needRoot(t)
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprintf("user namespace %t", user), func(t *testing.T) {
			s := specFor(rootfs(t), "sh", "-c",
				"grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f4 | sort -u; "+
					"for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x && echo made $d; echo /x >$d/release_agent && echo wrote $d; done 2>/dev/null; true")
			s.Linux.Namespaces = s.Linux.Namespaces[:len(s.Linux.Namespaces)-1] // the host's cgroup namespace
			if user {
				inUserNamespace(t, s)
			}
			if got := mustRun(t, s); got != s.Linux.CgroupsPath {
				t.Errorf("mounted %s, want the container's own, %s", got, s.Linux.CgroupsPath)
			}
		})
	}
}

// inUserNamespace gives a container a user namespace of its own.
func inUserNamespace(t *testing.T, s *specs.Spec) {
	t.Helper()
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	if err := os.Chmod(filepath.Dir(s.Root.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(s.Root.Path, 100000, 100000); err != nil {
		t.Fatal(err)
	}
}

// To setresuid(2) and its like, -1 means "as it is": root.
func TestNoUserMeansRoot(t *testing.T) {
	for field, set := range map[string]func(*specs.User){
		"process.user.uid":            func(u *specs.User) { u.UID = math.MaxUint32 },
		"process.user.gid":            func(u *specs.User) { u.GID = math.MaxUint32 },
		"process.user.additionalGids": func(u *specs.User) { u.AdditionalGids = []uint32{5, math.MaxUint32} },
	} {
		s := specFor("/nonexistent", "true")
		set(&s.Process.User)
		if err := check(s); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s 4294967295: %v", field, err)
		}
		if _, err := compileExec(&compileInput{spec: specFor("/nonexistent", "true"), host: anyHost()}, s.Process, inherited{}, 1); err == nil {
			t.Errorf("exec: %s 4294967295 was accepted", field)
		}
	}
}
