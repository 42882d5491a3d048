package lsm

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Landlock is the version of the kernel's Landlock interface
// (landlock_create_ruleset(2)), 0 when the kernel has none or it is off.
func Landlock() int { return landlock() }

var landlock = sync.OnceValue(func() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
})
