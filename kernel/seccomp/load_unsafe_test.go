package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// load installs a filter on the calling thread, for good.
func load(insns []unix.SockFilter, flags uint32) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	const setModeFilter = 1
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(insns)
	if errno != 0 {
		return fmt.Errorf("load seccomp filter: %w", errno)
	}
	return nil
}

const childProfile, childProgram = "BERTH_SECCOMP_PROFILE", "BERTH_SECCOMP_PROGRAM"

// TestMain lets the test binary be the child that confines itself and becomes
// another program.
func TestMain(m *testing.M) {
	if text := os.Getenv(childProfile); text != "" {
		fmt.Println(becomeConfined(text, os.Getenv(childProgram)))
		os.Exit(125)
	}
	os.Exit(m.Run())
}

func becomeConfined(profile, program string) error {
	runtime.LockOSThread()
	var p specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(profile), &p); err != nil {
		return err
	}
	f, err := Compile(&p)
	if err != nil {
		return err
	}
	// A kill by SIGSYS would leave a core file.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	if err := load(f.Insns, f.Flags); err != nil {
		return err
	}
	return unix.Exec(program, []string{program}, nil)
}

// run64 is an x86-64 program that makes one call and exits with the errno, 0 for none.
func run64(nr uint32, args [3]uint32) []byte {
	code := []byte{0xb8} // mov eax, nr
	code = binary.LittleEndian.AppendUint32(code, nr)
	for i, op := range []byte{0xbf, 0xbe, 0xba} { // mov edi, esi, edx
		code = binary.LittleEndian.AppendUint32(append(code, op), args[i])
	}
	code = append(code, 0x0f, 0x05) // syscall
	return append(code,
		0x31, 0xff, // xor edi, edi
		0x85, 0xc0, // test eax, eax
		0x0f, 0x48, 0xf8, // cmovs edi, eax
		0xf7, 0xdf, // neg edi
		0xb8, 60, 0, 0, 0, // mov eax, exit
		0x0f, 0x05)
}

// run32 is the same for i386.
func run32(nr uint32, args [3]uint32) []byte {
	code := []byte{0xb8} // mov eax, nr
	code = binary.LittleEndian.AppendUint32(code, nr)
	for i, op := range []byte{0xbb, 0xb9, 0xba} { // mov ebx, ecx, edx
		code = binary.LittleEndian.AppendUint32(append(code, op), args[i])
	}
	return append(code, 0xcd, 0x80, // int 0x80
		0x31, 0xdb, // xor ebx, ebx
		0x85, 0xc0, // test eax, eax
		0x0f, 0x48, 0xd8, // cmovs ebx, eax
		0xf7, 0xdb, // neg ebx
		0xb8, 1, 0, 0, 0, // mov eax, exit
		0xcd, 0x80)
}

// runARM64 is the same for arm64.
func runARM64(nr uint32, args [3]uint32) []byte {
	var code []byte
	word := func(w uint32) { code = binary.LittleEndian.AppendUint32(code, w) }
	set := func(register, value uint32) { // movz, movk
		word(0x52800000 | value&0xffff<<5 | register)
		word(0x72a00000 | value>>16<<5 | register)
	}
	set(8, nr)
	for i, v := range args {
		set(uint32(i), v)
	}
	word(0xd4000001) // svc 0
	word(0xf100001f) // cmp x0, 0
	word(0xcb0003e1) // neg x1, x0
	word(0x9a9fb020) // csel x0, x1, xzr, lt
	set(8, 93)       // exit
	word(0xd4000001)
	return code
}

// native is an executable for this machine that makes one call.
func native(t *testing.T, nr uint32, args [3]uint32) []byte {
	t.Helper()
	switch runtime.GOARCH {
	case "amd64":
		return elf(run64(nr, args), true)
	case "arm64":
		program := elf(runARM64(nr, args), true)
		program[18] = 183 // EM_AARCH64
		return program
	}
	t.Skip("no machine code for " + runtime.GOARCH)
	return nil
}

// elf wraps code in the smallest executable file.
func elf(code []byte, wide bool) []byte {
	const base = 0x400000
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if !wide {
		const start = 52 + 32
		b = append(b, 2, 0, 3, 0, 1, 0, 0, 0)
		for _, v := range []uint32{base + start, 52, 0, 0} {
			b = le.AppendUint32(b, v)
		}
		b = append(b, 52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0)
		for _, v := range []uint32{1, 0, base, base, uint32(start + len(code)), uint32(start + len(code)), 5, 0x1000} {
			b = le.AppendUint32(b, v)
		}
		return append(b, code...)
	}
	const start = 64 + 56
	b[4] = 2
	b = append(b, 2, 0, 62, 0, 1, 0, 0, 0)
	for _, v := range []uint64{base + start, 64, 0} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, 0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint32(le.AppendUint32(b, 1), 5)
	for _, v := range []uint64{0, base, base, uint64(start + len(code)), uint64(start + len(code)), 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}

const killed = -1

// confined makes a call under a profile and returns its errno, or killed for SIGSYS.
func confined(t *testing.T, p *specs.LinuxSeccomp, program []byte) int {
	t.Helper()
	profile, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{childProfile + "=" + string(profile), childProgram + "=" + path}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && status.Signal() == unix.SIGSYS:
		return killed
	case status.Signaled() || status.ExitStatus() == 125:
		t.Fatalf("child: %v: %s", err, out)
	}
	return status.ExitStatus()
}

func needX86(t *testing.T) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the programs are x86 machine code")
	}
}

// runsI386 tries whether the kernel is built and booted with i386 emulation.
func runsI386(t *testing.T) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	const getpid = 20
	if err := os.WriteFile(path, elf(run32(getpid, [3]uint32{}), false), 0o755); err != nil {
		t.Fatal(err)
	}
	err := exec.Command(path).Run()
	if err != nil && !errors.Is(err, unix.ENOEXEC) {
		t.Fatal(err)
	}
	return err == nil
}

func TestKernelObeysDockerProfile(t *testing.T) {
	needX86(t)
	i386 := runsI386(t)
	p := dockerProfile(t)
	native := dockerProfile(t)
	native.Architectures = nil
	const (
		getpid64, mount64, unshare64, clone64, clone364, personality64, socket64 = 39, 165, 272, 56, 435, 135, 41
		getpid32, mount32, socketcall, socket32                                  = 20, 21, 102, 359
		enosys, eperm, efault                                                    = int(unix.ENOSYS), int(unix.EPERM), int(unix.EFAULT)
		newUser                                                                  = unix.CLONE_NEWUSER
	)
	for name, c := range map[string]struct {
		p       *specs.LinuxSeccomp
		program []byte
		want    int
	}{
		"allowed":                       {p, elf(run64(getpid64, [3]uint32{}), true), 0},
		"forbidden":                     {p, elf(run64(mount64, [3]uint32{}), true), eperm},
		"unshare":                       {p, elf(run64(unshare64, [3]uint32{newUser}), true), eperm},
		"clone with namespace":          {p, elf(run64(clone64, [3]uint32{newUser | uint32(unix.SIGCHLD)}), true), eperm},
		"clone3 has its own errno":      {p, elf(run64(clone364, [3]uint32{}), true), enosys},
		"personality allowed":           {p, elf(run64(personality64, [3]uint32{0xffffffff}), true), 0},
		"personality forbidden":         {p, elf(run64(personality64, [3]uint32{0x40000}), true), eperm},
		"socket allowed":                {p, elf(run64(socket64, [3]uint32{unix.AF_UNIX, unix.SOCK_STREAM}), true), 0},
		"socket forbidden":              {p, elf(run64(socket64, [3]uint32{unix.AF_VSOCK, unix.SOCK_STREAM}), true), eperm},
		"newer than the profile":        {p, elf(run64(500, [3]uint32{}), true), enosys},
		"number -1":                     {native, elf(run64(0xffffffff, [3]uint32{}), true), enosys},
		"x32, forbidden call":           {p, elf(run64(x32Bit|mount64, [3]uint32{}), true), eperm},
		"x32, not listed":               {native, elf(run64(x32Bit|getpid64, [3]uint32{}), true), killed},
		"i386, allowed":                 {p, elf(run32(getpid32, [3]uint32{}), false), 0},
		"i386, forbidden":               {p, elf(run32(mount32, [3]uint32{}), false), eperm},
		"i386, socket forbidden":        {p, elf(run32(socket32, [3]uint32{unix.AF_VSOCK, unix.SOCK_STREAM}), false), eperm},
		"i386, profile lets socketcall": {p, elf(run32(socketcall, [3]uint32{1, 0}), false), efault},
		"i386 from x86-64 code":         {p, elf(run32(mount32, [3]uint32{}), true), eperm},
		"i386, not listed":              {native, elf(run32(getpid32, [3]uint32{}), true), killed},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "i386") && !i386 {
				t.Skip("the kernel runs no i386 code")
			}
			if got := confined(t, c.p, c.program); got != c.want {
				t.Errorf("result %d, want %d", got, c.want)
			}
		})
	}
}

func TestKernelObeysDockerProfileOnARM64(t *testing.T) {
	if runtime.GOARCH != "arm64" {
		t.Skip("not an arm64 machine")
	}
	const enosys, eperm = int(unix.ENOSYS), int(unix.EPERM)
	for name, c := range map[string]struct {
		nr   uint32
		args [3]uint32
		want int
	}{
		"allowed":                  {unix.SYS_GETPID, [3]uint32{}, 0},
		"forbidden":                {unix.SYS_MOUNT, [3]uint32{}, eperm},
		"unshare":                  {unix.SYS_UNSHARE, [3]uint32{unix.CLONE_NEWUSER}, eperm},
		"clone with namespace":     {unix.SYS_CLONE, [3]uint32{unix.CLONE_NEWUSER | uint32(unix.SIGCHLD)}, eperm},
		"clone3 has its own errno": {unix.SYS_CLONE3, [3]uint32{}, enosys},
		"personality allowed":      {unix.SYS_PERSONALITY, [3]uint32{0xffffffff}, 0},
		"personality forbidden":    {unix.SYS_PERSONALITY, [3]uint32{0x40000}, eperm},
		"socket allowed":           {unix.SYS_SOCKET, [3]uint32{unix.AF_UNIX, unix.SOCK_STREAM}, 0},
		"socket forbidden":         {unix.SYS_SOCKET, [3]uint32{unix.AF_VSOCK, unix.SOCK_STREAM}, eperm},
		"newer than the profile":   {500, [3]uint32{}, enosys},
	} {
		t.Run(name, func(t *testing.T) {
			if got := confined(t, dockerProfile(t), native(t, c.nr, c.args)); got != c.want {
				t.Errorf("result %d, want %d", got, c.want)
			}
		})
	}
}

func TestKernelTakesEveryFlagAndAction(t *testing.T) {
	ret := uint(77)
	for _, flags := range [][]specs.LinuxSeccompFlag{nil, {specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, flagTSync}} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: flags, Syscalls: []specs.LinuxSyscall{
			on(specs.ActKillProcess, "mount"), on(specs.ActKillThread, "umount2"), on(specs.ActLog, "ptrace"),
			on(specs.ActTrace, "swapon"), {Names: []string{"swapoff"}, Action: specs.ActErrno, ErrnoRet: &ret}, on(specs.ActTrap, "reboot"),
		}}
		for nr, want := range map[uint32]int{
			unix.SYS_MOUNT: killed, unix.SYS_UMOUNT2: killed, unix.SYS_REBOOT: killed,
			unix.SYS_SWAPON: int(unix.ENOSYS), unix.SYS_SWAPOFF: 77, unix.SYS_GETPID: 0,
		} {
			if got := confined(t, p, native(t, nr, [3]uint32{})); got != want {
				t.Errorf("flags %v, call %d: result %d, want %d", flags, nr, got, want)
			}
		}
	}
}

func TestKernelTakesLongPrograms(t *testing.T) {
	// Turned round, so that the thread can still end.
	p := far(200)
	p.DefaultAction = specs.ActAllow
	for i := range p.Syscalls {
		p.Syscalls[i].Action = specs.ActErrno
	}
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Insns) < 2000 {
		t.Fatalf("only %d instructions", len(f.Insns))
	}
	if err := onThread(func() error { return load(f.Insns, f.Flags) }); err != nil {
		t.Error(err)
	}
}

// onThread runs do on a thread that ends with it, and with it the thread's filter.
func onThread(do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		result <- do()
	}()
	return <-result
}

// linear is the same filter as a chain: one comparison after the other, the
// architecture chosen first, every allowed number of the tree found again.
func linear(b *testing.B, p *specs.LinuxSeccomp) []unix.SockFilter {
	b.Helper()
	f, err := Compile(p)
	if err != nil {
		b.Fatal(err)
	}
	run := newRunner(b, f)
	prog := []unix.SockFilter{{Code: opLoad, K: offsetArch}}
	for _, m := range []struct{ audit, base uint32 }{{unix.AUDIT_ARCH_X86_64, 0}, {unix.AUDIT_ARCH_I386, 0}} {
		chain := []unix.SockFilter{{Code: opLoad, K: offsetNr}}
		for nr := range uint32(regularSlots) {
			if run.run(b, call{audit: m.audit, nr: nr}) == unix.SECCOMP_RET_ALLOW {
				chain = append(chain, unix.SockFilter{Code: opJeq, K: nr, Jf: 1}, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ALLOW})
			}
		}
		chain = append(chain, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ERRNO | 1})
		prog = append(prog, unix.SockFilter{Code: opJeq, K: m.audit, Jt: 1}, unix.SockFilter{Code: opJump, K: uint32(len(chain))})
		prog = append(prog, chain...)
	}
	return append(prog, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_KILL_PROCESS})
}

func benchmarkLoad(b *testing.B, insns []unix.SockFilter, flags uint32) {
	var total time.Duration
	for b.Loop() {
		err := onThread(func() error {
			start := time.Now()
			err := load(insns, flags)
			total += time.Since(start)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "load-ns/op")
	b.ReportMetric(float64(len(insns)), "insns")
}

func BenchmarkLoadTree(b *testing.B) {
	f, err := Compile(dockerProfile(b))
	if err != nil {
		b.Fatal(err)
	}
	benchmarkLoad(b, f.Insns, f.Flags)
}

func BenchmarkLoadLinear(b *testing.B) {
	benchmarkLoad(b, linear(b, dockerProfile(b)), unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
}

// BenchmarkLoadNothing is the cost of loading as such.
func BenchmarkLoadNothing(b *testing.B) {
	benchmarkLoad(b, []unix.SockFilter{{Code: opRet, K: unix.SECCOMP_RET_ALLOW}}, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
}
