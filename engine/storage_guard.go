package engine

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// projectCalls are the requests of ioctl(2) that move a file to another project,
// or have what is made in a directory not inherit its project: FS_IOC_FSSETXATTR,
// FS_IOC_SETFLAGS and FS_IOC32_SETFLAGS (linux/fs.h).
var projectCalls = []uint64{0x401c5820, 0x40086602, 0x40046602}

// guardQuota keeps a container whose files are limited from giving them to a
// project without a limit. The owner of a file may do that in the host's user
// namespace, with no capability at all; in one of its own the kernel forbids it. A
// profile of the user's own is left as it is, and so is a privileged container.
//
// The error is not the profile's default one: such a rule would have no effect.
func guardQuota(p *specs.LinuxSeccomp) {
	refused := uint(unix.EOPNOTSUPP)
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		if r.Action == specs.ActAllow && len(r.Args) == 0 {
			r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool { return name == "ioctl" || name == "file_setattr" })
		}
	}
	rule := func(action specs.LinuxSeccompAction, errno *uint, arg specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"ioctl"}, Action: action, ErrnoRet: errno, Args: []specs.LinuxSeccompArg{arg}})
	}
	for _, request := range projectCalls { // the kernel looks at 32 bits of it
		rule(specs.ActErrno, &refused, specs.LinuxSeccompArg{Index: 1, Value: 1<<32 - 1, ValueTwo: request, Op: specs.OpMaskedEqual})
	}
	rule(specs.ActAllow, nil, specs.LinuxSeccompArg{Index: 1, Value: 0, Op: specs.OpGreaterEqual})
}

// guarded says whether a container is to be kept from leaving its project.
func guarded(in *specSources) bool {
	size, err := storageSize(in.rec.HostConfig.StorageOpt)
	return err == nil && size > 0 && in.rec.IDs == nil && (in.sec.seccomp == "" || in.sec.seccomp == builtin)
}
