package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// abi is one way of numbering syscalls; a column of syscallTable.
type abi uint8

const (
	abiX86_64 abi = iota
	abiX32
	abiI386
	abiARM64
	abiARM
	abiCount
)

// x32Bit marks an x32 call in seccomp_data.nr (arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

// Number ranges that lie apart from the running numbering of an ABI. They do
// not grow with new kernels, so they say nothing about how new a profile is.
const (
	x32OwnFirst     = 512 // x32's own variants, closed at 547
	x32OwnEnd       = 548
	armPrivateFirst = 0x0f0000 // ARM's cacheflush, set_tls and others
	armPrivateSlots = 16
)

// wide reports whether arguments are compared as 64-bit words.
func (a abi) wide() bool { return a == abiX86_64 || a == abiARM64 }

// machine is one value of seccomp_data.arch with the ABI that reports it. x32 calls
// come as x86-64 ones with x32Bit set.
type machine struct {
	audit uint32
	abi   abi
}

const noABI = abiCount

var machines = [...]machine{
	{unix.AUDIT_ARCH_X86_64, abiX86_64},
	{unix.AUDIT_ARCH_I386, abiI386},
	{unix.AUDIT_ARCH_AARCH64, abiARM64},
	{unix.AUDIT_ARCH_ARM, abiARM},
}

// nativeABI maps GOARCH to the ABI a filter always covers.
func nativeABI(goarch string) (abi, error) {
	switch goarch {
	case "amd64":
		return abiX86_64, nil
	case "386":
		return abiI386, nil
	case "arm64":
		return abiARM64, nil
	case "arm":
		return abiARM, nil
	}
	return noABI, errdefs.As(errdefs.ErrUnsupported,
		fmt.Errorf("seccomp filters for %s are not supported: needs x86-64, i386, arm64 or arm", goarch))
}

// parseArch maps an architecture of the OCI specification to its ABI. Those
// this package has no numbers for yield noABI: no kernel it runs on ever
// reports them, and a foreign architecture is killed anyway.
func parseArch(arch specs.Arch) (abi, error) {
	switch arch {
	case specs.ArchX86_64:
		return abiX86_64, nil
	case specs.ArchX32:
		return abiX32, nil
	case specs.ArchX86:
		return abiI386, nil
	case specs.ArchAARCH64:
		return abiARM64, nil
	case specs.ArchARM:
		return abiARM, nil
	case specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32,
		specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
		specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return noABI, nil
	}
	return noABI, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("architecture %q is unknown", arch))
}
