// Package seccomp compiles the seccomp profile of an OCI configuration
// (config-linux.md, "Seccomp") to a classic BPF program for seccomp(2).
//
// The program is shaped for the kernel that loads it: since Linux 5.11 it runs a
// new filter once for every syscall number and architecture to build its bitmap
// of always allowed calls, so a long chain of comparisons makes loading slow.
// Here neighbouring numbers with the same outcome are one range, and the ranges
// of an architecture are searched by a balanced tree.
//
// # What a profile means
//
// As with runc and libseccomp, unless said otherwise:
//
//   - A rule without conditions decides its calls, whatever conditional rules
//     say before or after it; of several such rules the first does. Conditional
//     rules are tried in the profile's order. A rule whose action equals the
//     default action, number included, has no effect.
//   - The conditions of a rule must all hold, except that a rule with several
//     conditions on the same argument applies if any one of its conditions holds.
//   - Arguments are compared as unsigned 64-bit words on x86-64, x32 and arm64; on i386
//     and arm as 32-bit words, the upper half of the profile's values being ignored.
//     (libseccomp ignores it on x32, too.)
//   - A name no architecture knows is skipped, in rules that permit and in rules
//     that forbid, and reported in [Filter.Unknown]. A name that only some
//     architectures have applies to those.
//   - An x32 number below 512 means the x86-64 call of that number, although current
//     kernels offer on x32 only those that have no number of their own from 512 on.
//     (libseccomp knows only the latter number and leaves the former to the
//     default action, which older kernels let pass for the call.)
//   - The native architecture is always covered. Calls of an architecture the
//     profile does not list kill the process (libseccomp: the thread).
//   - Where the default action forbids, numbers above the newest call the profile
//     names for an ABI fail with ENOSYS, so that the C library falls back to older
//     calls; the same goes for number -1. The ranges that do not grow, x32's 512 to
//     547 and ARM's private calls, neither count as newest nor get ENOSYS.
//     (runc counts them, so that its rule hardly ever applies there.)
//   - On i386 a rule for socket, semop and the other calls that socketcall(2) and
//     ipc(2) also offer applies to both ways. There the arguments lie in memory where no
//     filter can look. A rule with conditions therefore covers all multiplexed calls of its
//     kind if its action is stricter than the default, and none if it is not. (libseccomp
//     drops the condition on the first argument and compares the others with
//     unrelated registers, which opens what the profile meant to close.) A profile that
//     allows socketcall itself, as Docker's does, allows all of it.
//
// # What it does not do
//
// Contents of memory, and so path names, socket addresses and the flags of
// clone3 and openat2, are out of a filter's reach. A filter narrows what a process
// may ask of the kernel; it is no replacement for namespaces and capabilities.
package seccomp

//go:generate go run ./internal/gen -o syscalls_table.go

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Filter is a compiled profile.
type Filter struct {
	// Insns is the program, ready for struct sock_fprog.
	Insns []unix.SockFilter
	// Flags are those of seccomp(SECCOMP_SET_MODE_FILTER).
	Flags uint32
	// Notify says that the profile has a SCMP_ACT_NOTIFY action. Flags then has
	// SECCOMP_FILTER_FLAG_NEW_LISTENER, and seccomp(2) returns a file descriptor
	// that somebody must serve.
	Notify bool
	// Unknown are the syscall names of the profile that no supported
	// architecture has, sorted: too new, misspelt or of other machines. Rules for
	// them have no effect; whoever applies a profile that forbids calls by name
	// should say so.
	Unknown []string
}

// insnSize is the size of struct sock_filter.
const insnSize = 8

// Compile translates a profile for the running machine. A nil profile gives a nil
// filter. Errors are [errdefs.ErrInvalid] for what the OCI specification does not
// allow, and [errdefs.ErrUnsupported] for an unknown flag, a machine without
// tables, or a program above the kernel's limit of 4096 instructions.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	return compileFor(p, runtime.GOARCH)
}

// compileFor compiles for a machine by its GOARCH.
func compileFor(p *specs.LinuxSeccomp, goarch string) (*Filter, error) {
	if p == nil {
		return nil, nil
	}
	native, err := nativeABI(goarch)
	if err != nil {
		return nil, err
	}
	r, err := resolve(p, native)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp profile: %w", err)
	}
	c := compiler{profile: r}
	insns := c.compile()
	if len(insns) > unix.BPF_MAXINSNS {
		return nil, errdefs.As(errdefs.ErrUnsupported, fmt.Errorf(
			"compile seccomp profile: filter has %d instructions, the kernel takes %d", len(insns), unix.BPF_MAXINSNS))
	}
	return &Filter{Insns: insns, Flags: r.flags, Notify: r.notify, Unknown: r.unknown}, nil
}

// Bytes returns the program as an array of struct sock_filter in memory.
func (f *Filter) Bytes() []byte {
	b := make([]byte, 0, len(f.Insns)*insnSize)
	for _, i := range f.Insns {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}
