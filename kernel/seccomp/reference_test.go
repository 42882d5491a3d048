package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is a struct seccomp_data.
type call struct {
	audit uint32
	nr    uint32
	args  [6]uint64
}

func (c call) String() string {
	return fmt.Sprintf("arch %#x nr %#x args %#x", c.audit, c.nr, c.args)
}

// encode lays the call out for x/net/bpf, whose loads are big-endian.
func (c call) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b[:0], c.nr)
	b = binary.BigEndian.AppendUint32(b, c.audit)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, arg := range c.args {
		b = binary.BigEndian.AppendUint32(b, uint32(arg))
		b = binary.BigEndian.AppendUint32(b, uint32(arg>>32))
	}
	return b
}

// machineRunner runs a filter in the BPF machine of x/net. That one has no
// notion of more than 31 bits in the returned value, so returns are made by index.
type machineRunner struct {
	vm   *bpf.VM
	rets []uint32
	buf  []byte
}

func newRunner(t testing.TB, f *Filter) *machineRunner {
	t.Helper()
	r := &machineRunner{}
	insns := make([]bpf.Instruction, len(f.Insns))
	for i, raw := range f.Insns {
		if raw.Code == opRet {
			at := slices.Index(r.rets, raw.K)
			if at < 0 {
				at = len(r.rets)
				r.rets = append(r.rets, raw.K)
			}
			raw.K = uint32(at)
		}
		insns[i] = bpf.RawInstruction{Op: raw.Code, Jt: raw.Jt, Jf: raw.Jf, K: raw.K}.Disassemble()
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatalf("invalid program: %v", err)
	}
	r.vm = vm
	return r
}

func (r *machineRunner) run(t testing.TB, c call) uint32 {
	r.buf = c.encode(r.buf)
	n, err := r.vm.Run(r.buf)
	if err != nil {
		t.Fatalf("run for %v: %v", c, err)
	}
	return r.rets[n]
}

// reference says what a profile means a second time: naively, and with none of
// the compiler's code but the table of numbers.
type reference struct {
	p       *specs.LinuxSeccomp
	deflt   uint32
	listed  map[specs.Arch]bool
	entries map[specs.Arch]map[uint32][]entry
	newest  map[specs.Arch]uint32 // plus one; 0 for none
}

// entry is one rule of the profile that speaks of a number.
type entry struct {
	args   []specs.LinuxSeccompArg
	ret    uint32
	sub    uint32 // of a multiplexer, with the mask it is compared under
	masked uint64
}

var columns = map[specs.Arch]int{
	specs.ArchX86_64: 0, specs.ArchX32: 1, specs.ArchX86: 2, specs.ArchAARCH64: 3, specs.ArchARM: 4,
}

func newReference(p *specs.LinuxSeccomp, native specs.Arch) *reference {
	r := &reference{
		p: p, deflt: value(p.DefaultAction, p.DefaultErrnoRet),
		listed:  map[specs.Arch]bool{native: true},
		entries: map[specs.Arch]map[uint32][]entry{}, newest: map[specs.Arch]uint32{},
	}
	for _, a := range p.Architectures {
		r.listed[a] = true
	}
	numbers := map[string][5]int32{}
	for _, row := range syscallTable {
		numbers[row.name] = row.nr
	}
	for arch, col := range columns {
		r.entries[arch] = map[uint32][]entry{}
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				if nrs, ok := numbers[name]; ok {
					r.enter(arch, name, nrs[col], s)
					if arch == specs.ArchX32 { // the two ways to say it
						r.enter(arch, name, nrs[0], s)
					}
				}
			}
		}
	}
	return r
}

func (r *reference) enter(arch specs.Arch, name string, nr int32, s specs.LinuxSyscall) {
	e := entry{args: s.Args, ret: value(s.Action, s.ErrnoRet)}
	add := func(nr uint32, e entry) {
		if e.ret != r.deflt {
			r.entries[arch][nr] = append(r.entries[arch][nr], e)
		}
	}
	if nr >= 0 {
		if !apart(arch, uint32(nr)) {
			r.newest[arch] = max(r.newest[arch], uint32(nr)+1)
		}
		add(uint32(nr), e)
	}
	if arch != specs.ArchX86 {
		return
	}
	if socketSubcalls[name] != 0 {
		r.newest[arch] = max(r.newest[arch], 102+1)
	}
	if ipcSubcalls[name] != 0 {
		r.newest[arch] = max(r.newest[arch], 117+1)
	}
	always, _ := matches(s.Args, [6]uint64{}, false)
	if !always && int32(e.ret&0xffff0000) >= int32(r.deflt&0xffff0000) {
		return
	}
	if sub := socketSubcalls[name]; sub != 0 {
		add(102, entry{ret: e.ret, sub: sub, masked: 0xffffffff})
	}
	if sub := ipcSubcalls[name]; sub != 0 {
		add(117, entry{ret: e.ret, sub: sub, masked: 0xffff})
	}
}

// apart tells the numbers that do not grow with the kernel.
func apart(arch specs.Arch, nr uint32) bool {
	return arch == specs.ArchX32 && nr >= 512 && nr <= 547 || arch == specs.ArchARM && nr >= 0xf0000 && nr < 0xf0010
}

// action is the filter value the profile demands for a call.
func (r *reference) action(c call) uint32 {
	arch, nr := specs.Arch(""), c.nr
	switch c.audit {
	case unix.AUDIT_ARCH_X86_64:
		arch = specs.ArchX86_64
		switch {
		case nr < 1<<30:
		case r.listed[specs.ArchX32]:
			arch, nr = specs.ArchX32, nr-1<<30
		case nr == ^uint32(0) && r.listed[arch]: // stays a number x86-64 does not have
		default:
			arch = ""
		}
	case unix.AUDIT_ARCH_I386:
		arch = specs.ArchX86
	case unix.AUDIT_ARCH_AARCH64:
		arch = specs.ArchAARCH64
	case unix.AUDIT_ARCH_ARM:
		arch = specs.ArchARM
	}
	if !r.listed[arch] {
		return 0x80000000
	}
	entries := r.entries[arch][nr]
	wide := arch != specs.ArchX86 && arch != specs.ArchARM
	for _, e := range entries {
		if always, _ := matches(e.args, c.args, wide); always && e.sub == 0 {
			return e.ret
		}
	}
	for _, e := range entries {
		_, holds := matches(e.args, c.args, wide)
		if holds && (e.sub == 0 || uint64(e.sub) == c.args[0]&e.masked) {
			return e.ret
		}
	}
	switch r.p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActNotify:
		return r.deflt
	}
	if r.newest[arch] > 0 && nr >= r.newest[arch] && !apart(arch, nr) {
		return 0x50000 | 38 // ENOSYS
	}
	return r.deflt
}

func value(a specs.LinuxSeccompAction, errno *uint) uint32 {
	data := uint32(1)
	if errno != nil {
		data = uint32(*errno)
	}
	return map[specs.LinuxSeccompAction]uint32{
		specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000, specs.ActTrap: 0x30000,
		specs.ActErrno: 0x50000 | data, specs.ActTrace: 0x7ff00000 | data, specs.ActAllow: 0x7fff0000,
		specs.ActLog: 0x7ffc0000, specs.ActNotify: 0x7fc00000,
	}[a]
}

// matches says whether conditions hold for every call, and whether for this one.
func matches(conds []specs.LinuxSeccompArg, args [6]uint64, wide bool) (always, holds bool) {
	seen := map[uint]bool{}
	repeated := false
	void, held := 0, 0
	for _, c := range conds {
		repeated = repeated || seen[c.Index]
		seen[c.Index] = true
		v, x, y := args[c.Index], c.Value, c.ValueTwo
		if !wide {
			v, x, y = uint64(uint32(v)), uint64(uint32(x)), uint64(uint32(y))
		}
		if c.Op == specs.OpMaskedEqual && x == 0 {
			void++
		}
		if compare(c.Op, v, x, y) {
			held++
		}
	}
	if repeated {
		return void > 0, held > 0
	}
	return void == len(conds), held == len(conds)
}

func compare(op specs.LinuxSeccompOperator, v, x, y uint64) bool {
	switch op {
	case specs.OpEqualTo:
		return v == x
	case specs.OpNotEqual:
		return v != x
	case specs.OpLessThan:
		return v < x
	case specs.OpLessEqual:
		return v <= x
	case specs.OpGreaterThan:
		return v > x
	case specs.OpGreaterEqual:
		return v >= x
	}
	return v&x == y&x
}

var socketSubcalls = map[string]uint32{
	"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6,
	"getpeername": 7, "socketpair": 8, "send": 9, "recv": 10, "sendto": 11, "recvfrom": 12, "shutdown": 13,
	"setsockopt": 14, "getsockopt": 15, "sendmsg": 16, "recvmsg": 17, "accept4": 18, "recvmmsg": 19, "sendmmsg": 20,
}

var ipcSubcalls = map[string]uint32{
	"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
	"shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}

// check compares the compiled filter with the reference for every number of
// every architecture, with arguments around those the profile compares with.
func check(t *testing.T, p *specs.LinuxSeccomp, goarch string) *Filter {
	t.Helper()
	f, err := compileFor(p, goarch)
	if err != nil {
		t.Fatal(err)
	}
	ref := newReference(p, map[string]specs.Arch{
		"amd64": specs.ArchX86_64, "386": specs.ArchX86, "arm64": specs.ArchAARCH64, "arm": specs.ArchARM,
	}[goarch])
	run := newRunner(t, f)
	try := func(c call) {
		if got, want := run.run(t, c), ref.action(c); got != want {
			t.Fatalf("%v: filter returns %#x, profile says %#x", c, got, want)
		}
		if own := f.evaluate(c.nr, c.audit, c.args[:]); own != ref.action(c) {
			t.Fatalf("%v: evaluated here the filter returns %#x", c, own)
		}
	}
	for _, audit := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64,
		unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_RISCV64, 0} {
		for _, nr := range edgeNumbers() {
			try(call{audit: audit, nr: nr})
			for _, args := range ref.interesting(audit, nr) {
				try(call{audit: audit, nr: nr, args: args})
			}
		}
	}
	return f
}

// edgeNumbers are all numbers that a table can hold, and what lies beside them.
func edgeNumbers() []uint32 {
	var nrs []uint32
	for nr := uint32(0); nr < 640; nr++ {
		nrs = append(nrs, nr, nr|0x40000000)
	}
	for nr := uint32(0xeffff); nr < 0xf0012; nr++ {
		nrs = append(nrs, nr)
	}
	return append(nrs, 1023, 1024, 0x3fffffff, 0x7fffffff, 0x80000000, 0xbfffffff, 0xfffffffe, 0xffffffff)
}

// interesting returns argument vectors around the values of the rules for a number.
func (r *reference) interesting(audit, nr uint32) [][6]uint64 {
	arch := map[uint32]specs.Arch{unix.AUDIT_ARCH_X86_64: specs.ArchX86_64, unix.AUDIT_ARCH_I386: specs.ArchX86,
		unix.AUDIT_ARCH_AARCH64: specs.ArchAARCH64, unix.AUDIT_ARCH_ARM: specs.ArchARM}[audit]
	if arch == specs.ArchX86_64 && nr>>30 == 1 {
		arch, nr = specs.ArchX32, nr&^0x40000000
	}
	var vectors [][6]uint64
	for _, e := range r.entries[arch][nr] {
		if e.sub != 0 {
			for _, v := range around(uint64(e.sub)) {
				vectors = append(vectors, [6]uint64{v}, [6]uint64{v | 1<<16}, [6]uint64{v | 1<<32})
			}
		}
		// All conditions met at once where one can, then each varied on its own.
		var base [6]uint64
		for _, c := range e.args {
			base[c.Index] = meeting(c)
		}
		vectors = append(vectors, base)
		for _, c := range e.args {
			for _, x := range []uint64{c.Value, c.ValueTwo, ^c.Value, c.Value & c.ValueTwo, c.ValueTwo | ^c.Value} {
				for _, v := range around(x) {
					varied := base
					varied[c.Index] = v
					vectors = append(vectors, varied)
				}
			}
		}
	}
	return vectors
}

// meeting returns an argument for which the condition holds, if there is one.
func meeting(c specs.LinuxSeccompArg) uint64 {
	for _, v := range []uint64{c.Value, c.Value + 1, c.Value - 1, c.ValueTwo & c.Value} {
		if compare(c.Op, v, c.Value, c.ValueTwo) {
			return v
		}
	}
	return 0
}

func around(x uint64) []uint64 {
	return []uint64{x, x + 1, x - 1, x ^ 1<<32, x ^ 1<<31, x ^ 1<<63, uint64(uint32(x)), x &^ 0xffffffff,
		x + 1<<32, x - 1<<32, 0, ^uint64(0)}
}
