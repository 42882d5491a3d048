package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/cmd/berth-oci/internal/early"
	"github.com/berth-containers/berth/oci"
)

// A command lives for a few milliseconds, and what Go's runtime does for
// programs that live long costs it a quarter of its time. So berth-oci is born
// brief: the entry point (internal/early) leaves the runtime one processor and
// lets its clock-driven thread sleep, brief switches the garbage collector off.
// What lives long calls liveLong.

// brief makes the most of a short life. It is the first that main does: on the
// thread the program began with, whose timers go back to the caller's precision
// (prctl(2), PR_SET_TIMERSLACK). That is where package oci finds what containers
// are to have, whatever thread makes them, unless newRunner tells it.
func brief() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
	debug.SetGCPercent(-1)
}

// newRunner makes a runner that knows the precision of the caller's timers.
func newRunner() (*oci.Runner, error) {
	r, err := oci.NewRunner()
	if err == nil {
		r.TimerSlack = early.TimerSlack
	}
	return r, err
}

// liveLong takes all of that back, but that the runtime did not see whether the cgroup
// limits the processors: it uses all that the process may run on.
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
