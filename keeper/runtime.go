package keeper

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Stdio are a new process's descriptors 0, 1 and 2; nil means /dev/null.
type Stdio struct{ In, Out, Err *os.File }

// Launch is one process to be started by a [Runtime]. Files in it stay the
// caller's.
type Launch struct {
	ID     string
	Spec   *specs.Spec
	Bundle string
	// Rootfs is a detached mount, nil for Spec.Root.Path.
	Rootfs *os.File
	Stdio  Stdio
	// Init gives the command an init.
	Init bool
	// Abort becomes readable when the start is to be given up.
	Abort *os.File

	// For an exec: what to execute, and the container's init.
	Process   *specs.Process
	InitPid   int
	InitPidfd *os.File
}

// Launched is a running child of this process.
type Launched struct {
	Pid int
	// Pidfd refers to it, Console is the master of its terminal, nil without
	// one. Both become the caller's.
	Pidfd, Console *os.File
}

// PreparedExec is a process to be executed in a container, any number of times. It
// is for one goroutine at a time.
type PreparedExec interface {
	// Start starts it as a child of this process. It uses Stdio, of which the same
	// are nil as before, and Abort.
	Start(*Launch) (*Launched, error)
	Close()
}

// Runtime makes containers. The keeper's own is package oci; the interface is
// what the keeper needs of it.
type Runtime interface {
	// Start makes a container and runs the hooks of its creation and start. On
	// error nothing of it is left, and its poststop hooks have run.
	Start(*Launch) (*Launched, error)
	// PrepareExec makes ready to execute a process in a running container. It uses
	// InitPid, InitPidfd, which becomes what is returned's on success, Spec, Process,
	// and of the streams which there are.
	PrepareExec(*Launch) (PreparedExec, error)
	// End kills what remains in the cgroup of a container whose init is dead
	// and removes the cgroup. It returns what the cgroup has used. It may be
	// called again after an error.
	End(cgroup string) (Used, error)
	// Poststop runs the hooks that follow the end of a container, when nothing
	// of it is left. It uses ID, Spec and Bundle. The error is for the log.
	Poststop(*Launch) error
}
