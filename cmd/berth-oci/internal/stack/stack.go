// Package stack makes the main goroutine's stack as large as a command needs,
// while next to nothing is on it. A stack grows by copying, from 2 KiB in steps of
// two, and to find the pointers in what it copies the runtime reads tables all over
// the program: 0.1 ms and half a megabyte of a start.
//
// It is a package, and does it in an init, because there is no earlier place:
// packages are initialized in the order of their import paths as far as they depend
// on nothing (the Go specification, "Program initialization"), so this one comes
// before those of the standard library.
package stack

func init() { grow() }

// grow has a frame of 40 KiB, and so needs a stack of 64 KiB.
func grow()
