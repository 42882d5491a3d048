package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// destroyTime bounds the wait for processes that are dying.
const destroyTime = 5 * time.Second

// Destroy removes the group and all cgroups below it, waits up to 5 s for
// processes that are about to end, and closes the handle. It does not kill: a
// group in which somebody lives on is an [errdefs.ErrConflict]. A group that is
// gone is no error. Cgroups above it stay: see [RemoveEmpty].
func (g *Group) Destroy() error {
	deadline := time.Now().Add(destroyTime)
	for waited := false; ; waited = true {
		err := g.remove()
		if err == nil {
			return g.Close()
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", g.path, classify(err))
		}
		if waited {
			// A v1 cgroup counts a task for a moment after it is listed no more.
			pause(200 * time.Microsecond)
		}
		if err := g.waitEmpty(deadline); err != nil {
			return g.stuck(err)
		}
	}
}

// DestroyUnused is Destroy for a group that nobody is in and nothing is below, and
// tells whether it was one: to try costs less than to ask who is in it. Another one
// stays, for [Group.Kill] and Destroy.
func (g *Group) DestroyUnused() (done bool, err error) {
	for i := range slices.Backward(g.branches) {
		err := rmdir(g.branches[i].dir)
		if err == nil || gone(err) {
			continue
		}
		// Who has left some hierarchies and not all is killed by means of any.
		for j := i + 1; j < len(g.branches); j++ {
			if err := unix.Mkdir(g.branches[j].dir, 0o755); err != nil && err != unix.EEXIST {
				return false, classify(fmt.Errorf("make cgroup %s: %w", g.branches[j].dir, err))
			}
		}
		return false, nil
	}
	return true, g.Close()
}

// stuck explains why the group could not be emptied.
func (g *Group) stuck(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("remove cgroup %s: %w", g.path, err)
	}
	pids, perr := g.Procs()
	if perr != nil {
		return perr
	}
	return errdefs.WithHint(fmt.Errorf("remove cgroup %s: processes %v are in it: %w", g.path, pids, errdefs.ErrConflict),
		"Kill them first; one that does not die may wait for a disk or a network file system.")
}

// remove removes the group from every hierarchy, last from the first, which carries
// the owner's name: an interrupted removal can be taken up again. A cgroup with
// processes or children is EBUSY.
func (g *Group) remove() error {
	var busy error
	for i := range slices.Backward(g.branches) {
		b := &g.branches[i]
		err := rmdir(b.dir)
		if err == unix.EBUSY {
			if err = b.removeBelow(); err == nil {
				err = rmdir(b.dir)
			}
		}
		switch {
		case err == nil, gone(err):
		case errors.Is(err, unix.EBUSY):
			busy = err
		default:
			return err
		}
	}
	return busy
}

func rmdir(dir string) error {
	_, err := retryEINTR(func() (int, error) { return 0, unix.Rmdir(dir) })
	return err
}

// removeBelow removes the cgroups below the branch, deepest first.
func (b *branch) removeBelow() error {
	return b.walk(nil, func(parent int, name string) error {
		return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	})
}

// waitEmpty blocks until the group's last process has left it. The cgroup2 side
// tells; a task is in all hierarchies or in none, so that speaks for v1 too. Who
// did not join there is waited for by pidfd.
func (g *Group) waitEmpty(deadline time.Time) error {
	if b := g.unified(); b != nil {
		if err := b.waitEvent("populated", 0, deadline); err != nil && !gone(err) {
			return err
		}
	}
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := waitExit(pid, deadline); err != nil {
			return err
		}
	}
	if time.Now().After(deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func waitExit(pid int, deadline time.Time) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	return poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, deadline)
}

// RemoveEmpty removes the cgroup at path, "/berth" say, from every hierarchy in
// which it has neither processes nor cgroups below it. It is for whoever made the
// parents of containers' groups and goes away. What is in use stays, and is an
// [errdefs.ErrConflict]; what is not there is no error.
func RemoveEmpty(cgroupPath string) error {
	l, err := place(cgroupPath)
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range l.branches {
		if err := rmdir(b.dir); err != nil && err != unix.ENOENT {
			errs = append(errs, classify(fmt.Errorf("remove cgroup %s: %w", path.Clean(b.dir), err)))
		}
	}
	return errors.Join(errs...)
}
