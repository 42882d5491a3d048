package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Kill sends sig to every process of the group and of the cgroups below it, and
// misses none that is forked meanwhile. A process is signalled by pidfd after it
// was seen in the group through that pidfd's pid, so a recycled pid hits nobody.
// It does not wait for anyone to end. A group without processes, or gone, is done.
//
// SIGKILL goes by cgroup.kill where the kernel has it (5.14, unified and hybrid).
// Otherwise the group is frozen while the signals are sent. If it was frozen
// before, it stays so, except for SIGKILL on v1, where only a thawed process can
// die.
func (g *Group) Kill(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		done, err := g.killAtOnce()
		if done || err != nil {
			return err
		}
	}
	if err := g.signalAll(sig); err != nil {
		return fmt.Errorf("signal cgroup %s: %w", g.path, err)
	}
	return nil
}

// killAtOnce uses cgroup.kill. done tells whether that reached everybody: on a
// hybrid host some may have joined the v1 hierarchies alone.
func (g *Group) killAtOnce() (done bool, err error) {
	b := g.unified()
	if b == nil {
		return false, nil
	}
	all, err := g.Procs()
	if err != nil {
		return false, err
	}
	reached, err := b.procs()
	if err != nil && !gone(err) {
		return false, err
	}
	if len(all) == 0 && len(reached) == 0 {
		return true, nil // nor can anybody be born
	}
	if err := b.write("cgroup.kill", "1"); err != nil {
		if gone(err) { // the cgroup, or an old kernel's missing file
			return false, nil
		}
		return false, classify(err)
	}
	if g.mode != Unified { // a process that v1's freezer holds cannot die
		if err := g.Thaw(); err != nil {
			return false, err
		}
	}
	missed := slices.ContainsFunc(all, func(pid int) bool { return !slices.Contains(reached, pid) })
	return !missed, nil
}

// signalAll freezes, signals, and thaws.
func (g *Group) signalAll(sig unix.Signal) (err error) {
	if pids, err := g.Procs(); err != nil || len(pids) == 0 {
		return err
	}
	wasFrozen, err := g.Frozen()
	if err != nil {
		return err
	}
	still := wasFrozen
	if !still {
		if ferr := g.Freeze(); ferr == nil {
			still = true
			defer func() { err = errors.Join(err, g.Thaw()) }()
		} else if sig != unix.SIGKILL {
			return ferr
		} else if err := g.killUnfrozen(ferr); err != nil {
			return err
		}
	}
	if still {
		if err := g.signalUntilNone(sig); err != nil {
			return err
		}
	}
	if wasFrozen && sig == unix.SIGKILL {
		return g.Thaw()
	}
	return nil
}

// killUnfrozen kills a group that cannot be frozen (why): it bars forks instead.
func (g *Group) killUnfrozen(why error) error {
	lift, err := g.forkBarrier()
	if err != nil {
		return errors.Join(why, err)
	}
	return errors.Join(g.signalUntilNone(unix.SIGKILL), lift())
}

// signalUntilNone signals each process once, in rounds, until a round finds
// nobody new.
func (g *Group) signalUntilNone(sig unix.Signal) error {
	seen := make(map[int]bool)
	for {
		found, err := g.signalNew(sig, seen)
		if err != nil || !found {
			return err
		}
	}
}

// signalBatch bounds the descriptors that one round of signalling opens.
const signalBatch = 128

// signalNew signals processes that are in the group now and not in seen, one batch
// of them, and adds them to seen. found tells whether there were any.
func (g *Group) signalNew(sig unix.Signal, seen map[int]bool) (found bool, err error) {
	pids, err := g.Procs()
	if err != nil {
		return false, err
	}
	fds := make(map[int]int)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if seen[pid] {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH || err == unix.EINVAL { // it ended, or its first thread did
			continue
		}
		if err != nil {
			return false, fmt.Errorf("open process %d: %w", pid, err)
		}
		if fds[pid] = fd; len(fds) == signalBatch {
			break
		}
	}
	if len(fds) == 0 {
		return false, nil
	}
	return true, g.signalListed(sig, fds, seen)
}

// signalListed signals those of the pidfds' processes that are in the group: who
// is listed under the pid of an open pidfd is who the pidfd means.
func (g *Group) signalListed(sig unix.Signal, fds map[int]int, seen map[int]bool) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		fd, ok := fds[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		seen[pid] = true
	}
	return nil
}
