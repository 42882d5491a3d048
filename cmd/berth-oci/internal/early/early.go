// Package early is what berth-oci does before Go's runtime has started, and right
// after: it prepares the process for a life of a few milliseconds. Its entry point
// (entry_*.s) and its init belong together.
//
// It is a package because there is no earlier place for an init: packages are
// initialized in the order of their import paths as far as they depend on nothing
// (the Go specification, "Program initialization"; the runtime, which every package
// depends on, comes first). So this one comes before those of the standard library.
package early

import "runtime"

// memProfileRate is for the entry point, which sets what it points to.
//
//lint:ignore U1000 entry_*.s uses it
var memProfileRate = &runtime.MemProfileRate

// fileLimit is the RLIMIT_NOFILE that the entry point has found and lowered; zero:
// it has not. It is followed by the lowered one.
//
//lint:ignore U1000 entry_*.s uses it
var fileLimit [2]struct{ soft, hard uint64 }

// TimerSlack is the precision of the caller's timers, in nanoseconds, before the
// entry point has changed it; 0 where it has not.
var TimerSlack int

func init() {
	restoreFileLimit()
	grow()
}

// restoreFileLimit takes back what the entry point did to RLIMIT_NOFILE, before
// package syscall notes the limit, which is also the one of processes it starts.
func restoreFileLimit()

// grow has a frame of 40 KiB, and so needs a stack of 64 KiB: the main goroutine's
// stack is as large as a command needs while next to nothing is on it. A stack
// grows by copying, from 2 KiB in steps of two, and to find the pointers in what it
// copies the runtime reads tables all over the program: 0.1 ms and half a megabyte
// of a start.
func grow()
