package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// signalPipe is where noteSignal writes to. The handler has no other way to
// know it; it is set once, before the handler is.
//
//lint:ignore U1000 the assembly reads it
var signalPipe int32

// signalHandler returns the addresses of noteSignal and endOfSignal.
func signalHandler() (handler, restorer uintptr)

// noteSignal and endOfSignal are called by the kernel only.
//
//lint:ignore U1000 the assembly needs the declaration
func noteSignal()

//lint:ignore U1000 the assembly needs the declaration
func endOfSignal()

// sigaction is the kernel's struct sigaction; the zero one is the default act.
type sigaction struct{ handler, flags, restorer, mask uintptr }

func setAction(sig unix.Signal, act *sigaction) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// noteSignals makes the kernel call noteSignal for these signals in place of
// Go's runtime, on the stack that each thread of that has for signals.
func noteSignals(list []unix.Signal) error {
	// Of <asm-generic/signal-defs.h>; arm64 takes SA_RESTORER and needs it not.
	const onStack, restart, restore = 0x08000000, 0x10000000, 0x04000000
	handler, end := signalHandler()
	// All signals wait while one is noted.
	act := sigaction{handler, onStack | restart | restore, end, ^uintptr(0)}
	for _, sig := range list {
		if err := setAction(sig, &act); err != nil {
			return err
		}
	}
	return nil
}
