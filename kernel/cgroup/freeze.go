package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// freezeTime bounds the wait for the last process to stop. One that waits for a
// disk in the kernel stops only when the disk has answered.
const freezeTime = 10 * time.Second

// Freeze stops all processes of the group and returns when they have stopped.
// When they have not after 10 s it thaws the group again and the error is an
// [errdefs.ErrUnavailable].
func (g *Group) Freeze() error {
	b := g.branch("freezer")
	if b == nil {
		return fmt.Errorf("freeze cgroup %s: this host has no freezer controller: %w", g.path, errdefs.ErrUnsupported)
	}
	freeze := b.freezeV1
	if b.v2 {
		freeze = b.freezeV2
	}
	err := freeze(time.Now().Add(freezeTime))
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable, err),
			"A process does not stop: it may wait for a disk or a network file system.")
	}
	return errors.Join(fmt.Errorf("freeze cgroup %s: %w", g.path, classify(err)), g.Thaw())
}

// Thaw lets the processes of the group run on. A group that is gone is thawed.
func (g *Group) Thaw() error {
	b := g.branch("freezer")
	if b == nil {
		return nil
	}
	file, value := "freezer.state", "THAWED"
	if b.v2 {
		file, value = "cgroup.freeze", "0"
	}
	if err := b.write(file, value); err != nil && !gone(err) {
		return fmt.Errorf("thaw: %w", classify(err))
	}
	return nil
}

// Frozen tells whether [Group.Freeze] has stopped the group. A group that stands
// still only because one above it is frozen is not.
func (g *Group) Frozen() (bool, error) {
	b := g.branch("freezer")
	if b == nil {
		return false, nil
	}
	file, frozen := "freezer.self_freezing", "1"
	if b.v2 {
		file = "cgroup.freeze"
	}
	s, err := b.read(file)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, classify(err)
	}
	return strings.TrimSpace(s) == frozen, nil
}

func (b *branch) freezeV2(deadline time.Time) error {
	if err := b.write("cgroup.freeze", "1"); err != nil {
		return err
	}
	return b.waitEvent("frozen", 1, deadline)
}

// freezeV1 writes FROZEN until freezer.state reads so. Until then it is FREEZING,
// which reading brings up to date. A process that was forked at the wrong moment
// needs the second write; one that keeps forking may need the group thawed for a
// moment (as runc found out).
func (b *branch) freezeV1(deadline time.Time) error {
	for try := 1; ; try++ {
		if err := b.write("freezer.state", "FROZEN"); err != nil {
			return err
		}
		state, err := b.read("freezer.state")
		if err != nil {
			return err
		}
		if strings.TrimSpace(state) == "FROZEN" {
			return nil
		}
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
		if try%50 == 0 {
			if err := b.write("freezer.state", "THAWED"); err != nil {
				return err
			}
		}
		// The processes need a moment of their CPUs to reach the freezer.
		pause(min(time.Duration(try)*20*time.Microsecond, 10*time.Millisecond))
	}
}

// forkBarrier makes every further fork in the group fail, by a limit of 0 tasks
// (those which are there may stay). It returns what takes the barrier away.
func (g *Group) forkBarrier() (lift func() error, err error) {
	b := g.branch("pids")
	if b == nil {
		return nil, fmt.Errorf("bar cgroup %s from forking: this host has no pids controller: %w", g.path, errdefs.ErrUnsupported)
	}
	old, err := b.read("pids.max")
	if err != nil {
		return nil, err
	}
	if err := b.write("pids.max", "0"); err != nil {
		return nil, err
	}
	return func() error {
		if err := b.write("pids.max", strings.TrimSpace(old)); err != nil && !gone(err) && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	}, nil
}
