// Package caps names Linux capabilities (capabilities(7)), reads the capability
// sets of an OCI configuration and of the running thread, and reduces the former
// to what the latter can give. It changes nothing: a container's capabilities are
// set by the program that builds it.
package caps

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// Cap is the number of a capability, 0 to 63.
type Cap uint8

// names in the order of their numbers, include/uapi/linux/capability.h.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// maxCaps is the number of bits the kernel's interfaces have for capabilities.
const maxCaps = 64

// UnknownError reports capability names that no kernel known to this package has.
// Its class is [errdefs.ErrInvalid].
type UnknownError struct {
	Names []string // sorted, each once
}

func (e *UnknownError) Error() string {
	if len(e.Names) == 1 {
		return "unknown capability " + strconv.Quote(e.Names[0])
	}
	return fmt.Sprintf("unknown capabilities %q", e.Names)
}

// Unwrap gives the error its class.
func (e *UnknownError) Unwrap() error { return errdefs.ErrInvalid }

// ParseName returns the capability of a name as the OCI specification writes it:
// upper case, with the prefix CAP_. The error is an [*UnknownError].
func ParseName(name string) (Cap, error) {
	if i := slices.Index(names[:], name); i >= 0 {
		return Cap(i), nil
	}
	return 0, &UnknownError{Names: []string{name}}
}

// String returns the name, or "CAP_" with the number for one without a name, as
// capsh and systemd print it.
func (c Cap) String() string {
	if int(c) < len(names) {
		return names[c]
	}
	return "CAP_" + strconv.Itoa(int(c))
}

// Set is a set of capabilities, bit n for capability n; the form the kernel uses.
type Set uint64

// All is the set of the capabilities up to and including last.
func All(last Cap) Set {
	if last >= maxCaps-1 {
		return ^Set(0)
	}
	return Set(1)<<(last+1) - 1
}

// Has reports whether c is in the set.
func (s Set) Has(c Cap) bool { return c < maxCaps && s>>c&1 != 0 }

// Names lists the members by number.
func (s Set) Names() []string {
	list := make([]string, 0, bits.OnesCount64(uint64(s)))
	for rest := uint64(s); rest != 0; rest &= rest - 1 {
		list = append(list, Cap(bits.TrailingZeros64(rest)).String())
	}
	return list
}

// String returns the names, separated by commas.
func (s Set) String() string { return strings.Join(s.Names(), ",") }
