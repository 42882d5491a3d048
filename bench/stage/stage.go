// Package stage gives the benchmark, and tests of whole engines, a place of their
// own on the host, of which nothing is left in the end: process, mount and
// network namespaces, a /run and an /etc whose changes nobody else sees, a
// working directory and a cgroup below which everything runs. Daemons,
// containers, mounts, links and firewall rules end with the namespaces, also
// when the program is killed.
//
// The program starts itself twice for that: as the first process of the
// namespaces, which sets them up and collects orphans, and as that one's child,
// which does the work.
package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The environment variables by which a process knows its part.
const (
	roleVariable = "BERTH_BENCH_ROLE"
	workVariable = "BERTH_BENCH_WORK"
	baseVariable = "BERTH_BENCH_CGROUP"
)

// Role is what a process of the program is there for.
type Role string

// The roles, in the order in which they are started.
const (
	Outside Role = "" // what the user has started
	Init    Role = "init"
	Inside  Role = "inside"
)

// CurrentRole is this process's.
func CurrentRole() Role { return Role(os.Getenv(roleVariable)) }

// Stage is the place.
type Stage struct {
	// Work is a directory for everything, on a disk.
	Work string
	// Base is the path, within each cgroup hierarchy, below which the
	// benchmark's cgroups are.
	Base string
}

// Current is the stage of a process inside.
func Current() Stage { return Stage{os.Getenv(workVariable), os.Getenv(baseVariable)} }

// New makes a stage for this process, which is outside, with its working
// directory in dir. The caller removes it.
func New(dir string) (Stage, error) {
	work, err := os.MkdirTemp(dir, "berth-bench-")
	return Stage{work, "/berth-bench-" + strconv.Itoa(os.Getpid())}, err
}

// Run runs the program again inside, with the arguments args, and waits for it.
// When ctx ends, everything in there does.
func (s Stage) Run(ctx context.Context, args []string) error {
	// The first process dies with the thread that has started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = s.environ(Init)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true, // an interrupt from the terminal comes to us only
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s Stage) environ(role Role) []string {
	return append(os.Environ(), roleVariable+"="+string(role), workVariable+"="+s.Work, baseVariable+"="+s.Base)
}

// Remove removes what is left when all processes of the stage are gone: the
// working directory and the cgroups.
func (s Stage) Remove() error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	errs := []error{os.RemoveAll(s.Work)}
	for _, m := range mounts {
		errs = append(errs, removeTree(filepath.Join(m.dir, s.Base)))
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and those below it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}
