package seccomp

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	mobyprofile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// dockerProfile is Docker's default profile for a container with these capabilities.
func dockerProfile(t testing.TB, caps ...string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := mobyprofile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: caps},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var allArches = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM}

func TestDockerProfileMeansWhatItSays(t *testing.T) {
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_SYSLOG", "CAP_BPF"}} {
		p := dockerProfile(t, caps...)
		f := check(t, p, runtime.GOARCH)
		t.Logf("caps %v: %d instructions, unknown %v", caps, len(f.Insns), f.Unknown)
		if len(f.Unknown) != 0 {
			t.Errorf("table lacks %v", f.Unknown)
		}
		p.Architectures = allArches
		for _, goarch := range []string{"amd64", "386", "arm64", "arm"} {
			check(t, p, goarch)
		}
		p.Architectures = nil
		for _, goarch := range []string{"amd64", "386", "arm64", "arm"} {
			check(t, p, goarch)
		}
	}
}

func on(action specs.LinuxSeccompAction, names string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: strings.Fields(names), Action: action, Args: args}
}

func cond(index uint, op specs.LinuxSeccompOperator, values ...uint64) specs.LinuxSeccompArg {
	c := specs.LinuxSeccompArg{Index: index, Op: op, Value: values[0]}
	if len(values) > 1 {
		c.ValueTwo = values[1]
	}
	return c
}

var operators = []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
	specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}

var edgeValues = []uint64{0, 1, 2, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0x100000000, 0x100000001,
	0x7fffffff00000000, 0x8000000000000000, 0xffffffff00000000, 0xffffffff00000001, 0xfffffffffffffffe, ^uint64(0)}

func TestEveryOperatorAtEveryEdge(t *testing.T) {
	for _, op := range operators {
		for _, v := range edgeValues {
			for _, w := range []uint64{0, v, 0xff, 0xff00000000, ^uint64(0)} {
				p := &specs.LinuxSeccomp{
					DefaultAction: specs.ActErrno, Architectures: allArches,
					Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "personality", cond(3, op, v, w))},
				}
				f, err := compileFor(p, "amd64")
				if err != nil {
					t.Fatal(err)
				}
				compareArguments(t, p, f, "personality", 3)
				if op != specs.OpMaskedEqual {
					break
				}
			}
		}
	}
}

// compareArguments runs one syscall with all edge values of one argument.
func compareArguments(t *testing.T, p *specs.LinuxSeccomp, f *Filter, name string, index int) {
	t.Helper()
	run, ref := newRunner(t, f), newReference(p, specs.ArchX86_64)
	row := syscallTable[lookup(name, -1)]
	for _, at := range []struct{ audit, nr uint32 }{
		{unix.AUDIT_ARCH_X86_64, uint32(row.nr[abiX86_64])},
		{unix.AUDIT_ARCH_X86_64, uint32(row.nr[abiX86_64]) | x32Bit},
		{unix.AUDIT_ARCH_I386, uint32(row.nr[abiI386])},
		{unix.AUDIT_ARCH_AARCH64, uint32(row.nr[abiARM64])},
	} {
		for _, v := range edgeValues {
			for _, v := range around(v) {
				c := call{audit: at.audit, nr: at.nr}
				c.args[index] = v
				if got, want := run.run(t, c), ref.action(c); got != want {
					t.Fatalf("%+v\n%v: filter returns %#x, profile says %#x", p.Syscalls, c, got, want)
				}
			}
		}
	}
}

func TestHandMadeProfiles(t *testing.T) {
	errno := func(n uint) *uint { return &n }
	withErrno := func(s specs.LinuxSyscall, n uint) specs.LinuxSyscall { s.ErrnoRet = &n; return s }
	for name, p := range map[string]*specs.LinuxSeccomp{
		"nothing named":    {DefaultAction: specs.ActErrno},
		"everything fails": {DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(13), Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "exit_group")}},
		"all actions": {DefaultAction: specs.ActKillProcess, Syscalls: []specs.LinuxSyscall{
			on(specs.ActAllow, "read"), on(specs.ActKill, "write"), on(specs.ActKillThread, "open"),
			on(specs.ActTrap, "close"), on(specs.ActLog, "stat"), on(specs.ActNotify, "fstat"),
			withErrno(on(specs.ActTrace, "poll"), 7), withErrno(on(specs.ActErrno, "lseek"), 0),
			on(specs.ActErrno, "mmap"), on(specs.ActTrace, "mprotect"), on(specs.ActKillProcess, "munmap"),
		}},
		"blocklist": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			on(specs.ActErrno, "mount umount2 ptrace"), on(specs.ActKill, "socket", cond(0, specs.OpEqualTo, 40)),
		}},
		"permissive defaults get no ENOSYS": {DefaultAction: specs.ActTrace, Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "read")}},
		"log":                               {DefaultAction: specs.ActLog, Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "read")}},
		"notify":                            {DefaultAction: specs.ActNotify, Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "read")}},
		"unconditional wins, either order": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActTrap, "read"), on(specs.ActAllow, "read", cond(0, specs.OpEqualTo, 1)),
			on(specs.ActAllow, "write", cond(0, specs.OpEqualTo, 1)), on(specs.ActTrap, "write"), on(specs.ActLog, "write"),
		}},
		"empty mask is no condition": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActAllow, "read", cond(0, specs.OpMaskedEqual, 0, 5)),
			on(specs.ActAllow, "write", cond(0, specs.OpMaskedEqual, 0xff00000000, 0x100000000)),
			on(specs.ActTrap, "write", cond(0, specs.OpEqualTo, 3)),
			on(specs.ActAllow, "close", cond(0, specs.OpMaskedEqual, 0), cond(1, specs.OpEqualTo, 2)),
			on(specs.ActAllow, "open", cond(0, specs.OpMaskedEqual, 0), cond(0, specs.OpEqualTo, 2)),
		}},
		"redundant rules change nothing": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActErrno, "read"), on(specs.ActAllow, "read", cond(0, specs.OpEqualTo, 1)),
			on(specs.ActErrno, "seccomp"),
		}},
		"first match": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActTrap, "ioctl", cond(1, specs.OpEqualTo, 0x5412)),
			on(specs.ActLog, "ioctl", cond(1, specs.OpGreaterThan, 0x5400)),
			on(specs.ActAllow, "ioctl", cond(1, specs.OpLessThan, 0x5413)),
			on(specs.ActKill, "ioctl", cond(1, specs.OpMaskedEqual, 0xf0, 0x50)),
			on(specs.ActKillProcess, "ioctl", cond(1, specs.OpMaskedEqual, 0xf0, 0x60)),
		}},
		"and, or": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActAllow, "pread64 pwrite64", cond(0, specs.OpLessThan, 3), cond(2, specs.OpLessEqual, 0x100000000), cond(3, specs.OpNotEqual, 0)),
			on(specs.ActAllow, "pread64", cond(5, specs.OpGreaterEqual, 9), cond(5, specs.OpEqualTo, 4), cond(1, specs.OpEqualTo, 2)),
			on(specs.ActTrap, "pread64", cond(4, specs.OpGreaterThan, 1<<40)),
		}},
		"multiplexed, conditional permit": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActAllow, "socket", cond(0, specs.OpLessThan, 38)), on(specs.ActAllow, "connect bind accept send shmat semtimedop"),
		}},
		"multiplexed, conditional restrict": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			on(specs.ActErrno, "socket", cond(0, specs.OpEqualTo, 38)), on(specs.ActTrap, "shmat", cond(2, specs.OpMaskedEqual, 0x4000, 0x4000)),
			on(specs.ActLog, "send", cond(3, specs.OpEqualTo, 1)), on(specs.ActErrno, "msgget"),
		}},
		"multiplexer named": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			on(specs.ActTrap, "socket"), on(specs.ActAllow, "socketcall"), on(specs.ActAllow, "ipc", cond(0, specs.OpLessEqual, 4)),
		}},
		"only apart numbers": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "set_tls cacheflush execve preadv2")}},
		"holes":              {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{on(specs.ActAllow, "read open stat lstat lseek mprotect brk rt_sigprocmask pread64 readv access sched_yield msync madvise dup2")}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, arches := range [][]specs.Arch{nil, {specs.ArchX86, specs.ArchX32}, allArches, {specs.ArchX32}, {specs.ArchMIPS}} {
				p.Architectures = arches
				check(t, p, "amd64")
				check(t, p, "arm64")
			}
		})
	}
}

// far is a profile whose argument checks exceed what one conditional jump can skip.
func far(rules int) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86}}
	for i := range uint64(rules) {
		p.Syscalls = append(p.Syscalls, on(specs.ActAllow, "ioctl fcntl", cond(1, specs.OpEqualTo, i*7), cond(2, specs.OpNotEqual, i<<33)))
		if i%3 == 0 {
			p.Syscalls = append(p.Syscalls, on(specs.ActAllow, "prctl keyctl", cond(0, specs.OpEqualTo, i*i), cond(3, specs.OpLessThan, i)))
		}
		if i%2 == 0 {
			p.Syscalls = append(p.Syscalls, on(specs.ActTrap, "futex", cond(0, specs.OpEqualTo, i<<32|i)))
		}
	}
	return p
}

func TestLongJumps(t *testing.T) {
	f := check(t, far(150), "amd64")
	jumps := 0
	for _, i := range f.Insns {
		if i.Code == opJump {
			jumps++
		}
	}
	if len(f.Insns) < 1000 || jumps == 0 {
		t.Errorf("%d instructions, %d long jumps: the test tests nothing", len(f.Insns), jumps)
	}
}

func TestTooLong(t *testing.T) {
	_, err := compileFor(far(500), "amd64")
	if !errors.Is(err, errdefs.ErrUnsupported) || err == nil || !strings.Contains(err.Error(), "the kernel takes 4096") {
		t.Errorf("error %v", err)
	}
}

func TestInvalidProfiles(t *testing.T) {
	one := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{s}}
	}
	number := func(n uint) *uint { return &n }
	for _, c := range []struct {
		p     *specs.LinuxSeccomp
		class error
		text  string
	}{
		{&specs.LinuxSeccomp{}, errdefs.ErrInvalid, `compile seccomp profile: default action: action "" is unknown`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: number(1)}, errdefs.ErrInvalid, "takes no errnoRet"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: number(4096)}, errdefs.ErrInvalid, "errnoRet 4096 is above 4095"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActTrace, DefaultErrnoRet: number(1 << 16)}, errdefs.ErrInvalid, "above 65535"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: number(1<<32 + 1)}, errdefs.ErrInvalid, "above 4095"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}}, errdefs.ErrInvalid, `architecture "SCMP_ARCH_VAX" is unknown`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_X"}}, errdefs.ErrUnsupported, `flag "SECCOMP_FILTER_FLAG_X"`},
		{one(specs.LinuxSyscall{Action: specs.ActAllow}), errdefs.ErrInvalid, "syscalls entry 0: no syscall is named"},
		{one(on("ALLOW", "read")), errdefs.ErrInvalid, `action "ALLOW" is unknown`},
		{one(on(specs.ActAllow, "read", cond(6, specs.OpEqualTo, 0))), errdefs.ErrInvalid, "argument index 6 is above 5"},
		{one(on(specs.ActAllow, "read", cond(0, "==", 0))), errdefs.ErrInvalid, `operator "==" is unknown`},
	} {
		f, err := Compile(c.p)
		if f != nil || !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: error %v, want %q of class %v", c.p, err, c.text, c.class)
		}
	}
	if _, err := compileFor(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "s390x"); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("s390x: error %v", err)
	}
	if f, err := Compile(nil); f != nil || err != nil {
		t.Errorf("nil profile: %v, %v", f, err)
	}
}

func TestFlagsNotifyAndUnknown(t *testing.T) {
	const (
		tsync, log, spec, listener, esrch, killable = 1, 2, 4, 8, 16, 32
	)
	type flags = []specs.LinuxSeccompFlag
	for _, c := range []struct {
		flags  flags
		notify bool
		want   uint32
	}{
		{nil, false, spec},
		{nil, true, spec | listener},
		{flags{}, false, 0},
		{flags{"SECCOMP_FILTER_FLAG_LOG"}, false, log},
		{flags{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, false, tsync | esrch | spec},
		{flags{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, false, 0},
		{flags{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, true, listener | killable},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.flags,
			Syscalls: []specs.LinuxSyscall{on(specs.ActErrno, "zzz mount aaa zzz")}}
		if c.notify {
			p.Syscalls = append(p.Syscalls, on(specs.ActNotify, "mknod"))
		}
		f, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if f.Flags != c.want || f.Notify != c.notify {
			t.Errorf("%v, notify %v: flags %#x notify %v, want %#x", c.flags, c.notify, f.Flags, f.Notify, c.want)
		}
		if !slices.Equal(f.Unknown, []string{"aaa", "zzz"}) {
			t.Errorf("unknown %v", f.Unknown)
		}
	}
}

func BenchmarkCompileDocker(b *testing.B) {
	p := dockerProfile(b)
	b.ReportAllocs()
	for b.Loop() {
		f, err := Compile(p)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(f.Insns)), "insns")
	}
}
