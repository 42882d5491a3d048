package oci

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct sigaction (not the C library's).
type sigaction struct {
	handler, flags, restorer, mask uintptr
}

// ignoredSignals are the signals this process ignores, which its children would
// ignore too: asked one by one, 0.1 µs each, as /proc/self/status takes 30 µs.
func ignoredSignals() []int {
	const ignore = 1 // SIG_IGN
	var list []int
	for n := 1; n <= 64; n++ {
		var act sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0)
		if errno == 0 && act.handler == ignore {
			list = append(list, n)
		}
	}
	return list
}
