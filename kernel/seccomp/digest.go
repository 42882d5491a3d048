package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// compilerVersion changes with every change of what the compiler emits for the
// same profile, and with every change of syscallTable.
const compilerVersion = "berth seccomp 1, linux 7.0"

// Digest identifies what [Compile] makes of a profile: the profile's content, the
// machine and the version of this package. It is 64 hexadecimal digits; the same for
// equal profiles in every process. Listener path and metadata do not enter it, since
// they do not enter the filter.
func Digest(p *specs.LinuxSeccomp) string {
	sum := sha256.Sum256(canonical(p))
	return hex.EncodeToString(sum[:])
}

// canonical writes the profile with every string and list preceded by its length,
// so that different profiles never give the same bytes.
func canonical(p *specs.LinuxSeccomp) []byte {
	b := make([]byte, 0, 16<<10)
	b = appendString(b, compilerVersion)
	b = appendString(b, runtime.GOARCH)
	if p == nil {
		return b
	}
	b = appendString(b, string(p.DefaultAction))
	b = appendOptional(b, p.DefaultErrnoRet)
	b = appendLength(b, len(p.Architectures))
	for _, arch := range p.Architectures {
		b = appendString(b, string(arch))
	}
	if p.Flags == nil { // differs from an empty list
		b = append(b, 0)
	} else {
		b = append(b, 1)
	}
	b = appendLength(b, len(p.Flags))
	for _, flag := range p.Flags {
		b = appendString(b, string(flag))
	}
	b = appendLength(b, len(p.Syscalls))
	for i := range p.Syscalls {
		b = appendRule(b, &p.Syscalls[i])
	}
	return b
}

func appendRule(b []byte, s *specs.LinuxSyscall) []byte {
	b = appendLength(b, len(s.Names))
	for _, name := range s.Names {
		b = appendString(b, name)
	}
	b = appendString(b, string(s.Action))
	b = appendOptional(b, s.ErrnoRet)
	b = appendLength(b, len(s.Args))
	for _, arg := range s.Args {
		b = binary.LittleEndian.AppendUint64(b, uint64(arg.Index))
		b = binary.LittleEndian.AppendUint64(b, arg.Value)
		b = binary.LittleEndian.AppendUint64(b, arg.ValueTwo)
		b = appendString(b, string(arg.Op))
	}
	return b
}

func appendLength(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

func appendString(b []byte, s string) []byte {
	return append(appendLength(b, len(s)), s...)
}

func appendOptional(b []byte, n *uint) []byte {
	if n == nil {
		return append(b, 0)
	}
	return binary.LittleEndian.AppendUint64(append(b, 1), uint64(*n))
}
