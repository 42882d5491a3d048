package seccomp

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Permits tells whether the filter lets a process of the running machine make
// this call without asking anybody: whoever loads a filter and has to go on
// under it chooses its calls by this.
func (f *Filter) Permits(nr uint32, args ...uint64) bool {
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	switch f.evaluate(nr, arch, args) & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
		return true
	}
	return false
}

// evaluate runs the program as the kernel does, for the instructions the
// compiler emits. Arguments that are not given are 0.
func (f *Filter) evaluate(nr, arch uint32, args []uint64) uint32 {
	var a uint32
	for pc := 0; pc < len(f.Insns); pc++ {
		i := &f.Insns[pc]
		taken := false
		switch i.Code {
		case opLoad:
			a = word(i.K, nr, arch, args)
			continue
		case opAnd:
			a &= i.K
			continue
		case opSub:
			a -= i.K
			continue
		case opJump:
			pc += int(i.K)
			continue
		case opRet:
			return i.K
		case opJeq:
			taken = a == i.K
		case opJge:
			taken = a >= i.K
		}
		if taken {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return unix.SECCOMP_RET_KILL_PROCESS
}

// word is the 32-bit word of struct seccomp_data at an offset.
func word(offset, nr, arch uint32, args []uint64) uint32 {
	switch {
	case offset == offsetNr:
		return nr
	case offset == offsetArch:
		return arch
	case offset < offsetArgs || int(offset-offsetArgs)/8 >= len(args):
		return 0
	}
	v := args[(offset-offsetArgs)/8]
	if offset%8 != 0 {
		v >>= 32
	}
	return uint32(v)
}
