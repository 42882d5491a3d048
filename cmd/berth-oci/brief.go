package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	_ "github.com/berth-containers/berth/cmd/berth-oci/internal/stack" // large from the start
	"github.com/berth-containers/berth/oci"
)

// A command lives for a few milliseconds, and what Go's runtime does for
// programs that live long costs it a quarter of its time. So berth-oci is born
// brief: the entry point (entry_amd64.s) leaves the runtime one processor and
// lets its clock-driven thread sleep, brief switches the garbage collector off.
// What lives long calls liveLong.

// memProfileRate is for the entry point, which sets what it points to.
//
//lint:ignore U1000 entry_*.s uses it
var memProfileRate = &runtime.MemProfileRate

// brief makes the most of a short life. It is the first that main does: on the
// thread the program began with, whose timers go back to the caller's precision
// (prctl(2), PR_SET_TIMERSLACK). That is where package oci finds what containers
// are to have, whatever thread makes them.
func brief() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
	debug.SetGCPercent(-1)
}

// liveLong takes all of that back.
func liveLong() error {
	slack := oci.TimerSlack()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		// A user without CAP_SYS_NICE can live with timers that are late.
		err := os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", fmt.Append(nil, slack), 0)
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	debug.SetGCPercent(100)
	runtime.SetDefaultGOMAXPROCS()
	return nil
}
