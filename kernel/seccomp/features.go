package seccomp

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// What of the specification this compiler knows, in its order: each candidate is
// shown to the function that would take it from a profile.

// Actions are those a rule or a default may have.
func Actions() (known []specs.LinuxSeccompAction) {
	for _, a := range []specs.LinuxSeccompAction{specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap,
		specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify} {
		if _, err := returnValue(a, nil); err == nil {
			known = append(known, a)
		}
	}
	return known
}

// Operators are those a condition on an argument may have.
func Operators() (known []specs.LinuxSeccompOperator) {
	for _, op := range []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual} {
		if knownOperator(op) {
			known = append(known, op)
		}
	}
	return known
}

// Architectures are those whose calls a rule can tell apart. Profiles may name
// all of the specification's.
func Architectures() (known []specs.Arch) {
	for _, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM} {
		if abi, err := parseArch(a); err == nil && abi != noABI {
			known = append(known, a)
		}
	}
	return known
}

// Flags are those a profile may have, and of these the ones that the running
// kernel takes.
func Flags() (known, supported []specs.LinuxSeccompFlag) {
	for _, flag := range []specs.LinuxSeccompFlag{flagTSync, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagLog,
		specs.LinuxSeccompFlagWaitKillableRecv} {
		r := profile{notify: flag == specs.LinuxSeccompFlagWaitKillableRecv} // it needs a listener
		if err := r.resolveFlags([]specs.LinuxSeccompFlag{flag}); errors.Is(err, errdefs.ErrUnsupported) {
			continue
		}
		known = append(known, flag)
		if takesFlags(r.flags) {
			supported = append(supported, flag)
		}
	}
	return known, supported
}

// takesFlags asks the kernel by a filter at address 0: flags are looked at first,
// EINVAL, and the filter then, EFAULT (seccomp(2)).
func takesFlags(flags uint32) bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), 0)
	return errno == unix.EFAULT
}
