package caps

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Last returns the highest capability of the running kernel. It asks by
// PR_CAPBSET_READ, which refuses numbers above it, and so needs no procfs.
func Last() (Cap, error) {
	known, beyond := 0, maxCaps // CAP_CHOWN always exists
	for beyond-known > 1 {
		mid := (known + beyond) / 2
		_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(mid), 0, 0, 0)
		switch {
		case err == nil:
			known = mid
		case errors.Is(err, unix.EINVAL):
			beyond = mid
		default:
			return 0, fmt.Errorf("find last capability of the kernel: %w", err)
		}
	}
	return Cap(known), nil
}

// Supported is the set of all capabilities of the running kernel.
func Supported() (Set, error) {
	last, err := Last()
	if err != nil {
		return 0, err
	}
	return All(last), nil
}

// Held returns the capability sets of the calling thread.
func Held() (Sets, error) {
	last, err := Last()
	if err != nil {
		return Sets{}, err
	}
	var s Sets
	if s.Bounding, err = query(last, unix.PR_CAPBSET_READ, 0); err != nil {
		return Sets{}, fmt.Errorf("read bounding set: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return Sets{}, fmt.Errorf("read capabilities: %w", err)
	}
	join := func(low, high uint32) Set { return Set(high)<<32 | Set(low) }
	s.Effective = join(data[0].Effective, data[1].Effective)
	s.Permitted = join(data[0].Permitted, data[1].Permitted)
	s.Inheritable = join(data[0].Inheritable, data[1].Inheritable)
	if s.Inheritable&s.Permitted == 0 { // capabilities(7): nor is anything ambient then
		return s, nil
	}
	if s.Ambient, err = query(last, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET); err != nil {
		return Sets{}, fmt.Errorf("read ambient set: %w", err)
	}
	return s, nil
}

// Bounding returns the bounding set of the calling thread, what [Sets.Clamp] wants.
func Bounding() (Set, error) {
	last, err := Last()
	if err != nil {
		return 0, err
	}
	s, err := query(last, unix.PR_CAPBSET_READ, 0)
	if err != nil {
		return 0, fmt.Errorf("read bounding set: %w", err)
	}
	return s, nil
}

// query asks prctl for every capability; mode is the argument before the
// capability, for the operations that have one.
func query(last Cap, option int, mode uintptr) (Set, error) {
	var s Set
	for c := Cap(0); c <= last; c++ {
		args := [2]uintptr{uintptr(c), 0}
		if option == unix.PR_CAP_AMBIENT {
			args = [2]uintptr{mode, uintptr(c)}
		}
		is, err := unix.PrctlRetInt(option, args[0], args[1], 0, 0)
		if err != nil {
			return 0, fmt.Errorf("%v: %w", c, err)
		}
		if is != 0 {
			s |= 1 << c
		}
	}
	return s, nil
}
