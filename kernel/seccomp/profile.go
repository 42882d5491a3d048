package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// maxArgs is the number of arguments in seccomp_data.
const maxArgs = 6

// profile is an OCI profile with every name, action and flag resolved; what is
// left is independent of the ABI only in its numbers.
type profile struct {
	defaultRet uint32
	newerRet   uint32 // for numbers beyond the newest call the profile names
	rules      []rule
	rows       []uint16 // indices into syscallTable; each rule owns a part
	abis       [abiCount]bool
	flags      uint32
	notify     bool
	unknown    []string
}

// rule is one entry of the profile's syscalls.
type rule struct {
	ret uint32
	// redundant: the action is the default one. Such a rule only tells that the
	// profile knows its calls.
	redundant bool
	// each: every condition is an alternative instead of all being needed.
	each      bool
	args      []specs.LinuxSeccompArg
	row, rows int // the part rows[row:row+rows]
}

func resolve(p *specs.LinuxSeccomp, native abi) (*profile, error) {
	r := &profile{rules: make([]rule, 0, len(p.Syscalls))}
	if err := r.resolveDefault(p); err != nil {
		return nil, err
	}
	r.abis[native] = true
	for _, arch := range p.Architectures {
		a, err := parseArch(arch)
		if err != nil {
			return nil, err
		}
		if a != noABI {
			r.abis[a] = true
		}
	}
	names := 0
	for i := range p.Syscalls {
		names += len(p.Syscalls[i].Names)
	}
	r.rows = make([]uint16, 0, names)
	for i := range p.Syscalls {
		if err := r.resolveRule(&p.Syscalls[i]); err != nil {
			return nil, fmt.Errorf("syscalls entry %d: %w", i, err)
		}
	}
	slices.Sort(r.unknown)
	r.unknown = slices.Compact(r.unknown)
	if err := r.resolveFlags(p.Flags); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *profile) resolveDefault(p *specs.LinuxSeccomp) error {
	ret, err := returnValue(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return fmt.Errorf("default action: %w", err)
	}
	r.defaultRet = ret
	r.newerRet = ret
	switch p.DefaultAction {
	case specs.ActNotify:
		r.notify = true
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
	default:
		r.newerRet = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return nil
}

func (r *profile) resolveRule(s *specs.LinuxSyscall) error {
	if len(s.Names) == 0 {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("no syscall is named"))
	}
	ret, err := returnValue(s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	u := rule{ret: ret, redundant: ret == r.defaultRet, args: s.Args, row: len(r.rows)}
	var seen [maxArgs]bool
	for _, arg := range s.Args {
		if arg.Index >= maxArgs {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("argument index %d is above 5", arg.Index))
		}
		if !knownOperator(arg.Op) {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("operator %q is unknown", arg.Op))
		}
		u.each = u.each || seen[arg.Index]
		seen[arg.Index] = true
	}
	previous := -1
	for _, name := range s.Names {
		row := lookup(name, previous)
		if row < 0 {
			r.unknown = append(r.unknown, name)
			continue
		}
		previous = row
		r.rows = append(r.rows, uint16(row))
	}
	u.rows = len(r.rows) - u.row
	r.notify = r.notify || s.Action == specs.ActNotify
	r.rules = append(r.rules, u)
	return nil
}

func knownOperator(op specs.LinuxSeccompOperator) bool {
	switch op {
	case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		return true
	}
	return false
}

// returnValue is the filter's return value for an action. Only ERRNO and TRACE
// carry a number (EPERM unless given); giving one to another action is an error
// by the OCI specification. ERRNO's is limited to the kernel's MAX_ERRNO, 4095,
// TRACE's to the 16 bits of SECCOMP_RET_DATA.
func returnValue(action specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data, limit := uint(unix.EPERM), uint(0)
	if errnoRet != nil {
		data = *errnoRet
	}
	var ret uint32
	switch action {
	case specs.ActErrno:
		ret, limit = unix.SECCOMP_RET_ERRNO, 4095
	case specs.ActTrace:
		ret, limit = unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_DATA
	case specs.ActKill, specs.ActKillThread:
		ret = unix.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		ret = unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		ret = unix.SECCOMP_RET_TRAP
	case specs.ActAllow:
		ret = unix.SECCOMP_RET_ALLOW
	case specs.ActLog:
		ret = unix.SECCOMP_RET_LOG
	case specs.ActNotify:
		ret = unix.SECCOMP_RET_USER_NOTIF
	default:
		return 0, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("action %q is unknown", action))
	}
	switch {
	case limit > 0 && data > limit:
		return 0, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("action %s: errnoRet %d is above %d", action, data, limit))
	case limit == 0 && errnoRet != nil:
		return 0, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("action %s takes no errnoRet", action))
	case limit == 0:
		data = 0
	}
	return ret | uint32(data), nil
}

// resolveFlags translates the profile's flags for seccomp(2). Absent flags (nil,
// not empty) mean SPEC_ALLOW, as in runc: a filter alone shall not turn on the
// costly mitigation of speculative store bypass. WAIT_KILLABLE_RECV is dropped
// without a notify action, since the kernel accepts it only with a listener.
func (r *profile) resolveFlags(flags []specs.LinuxSeccompFlag) error {
	if flags == nil {
		r.flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	if r.notify {
		r.flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	for _, flag := range flags {
		switch flag {
		case specs.LinuxSeccompFlagLog:
			r.flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			r.flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if r.notify {
				r.flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
			}
		case flagTSync:
			// ESRCH makes failure an errno instead of a thread id, and goes with a listener.
			r.flags |= unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
		default:
			return errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("flag %q is not supported", flag))
		}
	}
	return nil
}

// flagTSync is known to runc and in use, but not in the specification.
const flagTSync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"
