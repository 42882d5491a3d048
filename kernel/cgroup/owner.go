package cgroup

import (
	"errors"
	"fmt"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// A group can carry its owner's name, in an extended attribute of its directory
// that the kernel forgets with the directory. Who finds a record of a group can so
// tell whether what is at that path now is what was recorded. An attribute in
// the class trusted takes CAP_SYS_ADMIN of the host to change; where that is not to
// be had it is in the class user, which a container that owns its cgroup could
// take away.
const (
	ownerTrusted = "trusted.berth.owner"
	ownerUser    = "user.berth.owner"
)

// SetOwner has [Group.Make] and [Group.Adopt] write the owner's name on the group.
func (g *Group) SetOwner(name string) { g.owner = name }

// Owned tells whether the group was given its owner's name in a way that no
// container can undo.
func (g *Group) Owned() bool { return g.owned }

// writeOwner names the owner on the group. A host that cannot leaves it unnamed.
func (g *Group) writeOwner() {
	if g.owner == "" {
		return
	}
	g.owned = true
	for _, b := range g.ownerBranches() {
		err := unix.Setxattr(b.dir, ownerTrusted, []byte(g.owner), 0)
		if err != nil {
			g.owned = false
			_ = unix.Setxattr(b.dir, ownerUser, []byte(g.owner), 0)
		}
	}
}

// OwnedBy tells whether the group carries that name.
func (g *Group) OwnedBy(name string) (bool, error) {
	buf := make([]byte, len(name)+1)
	for _, b := range g.ownerBranches() {
		for _, attribute := range []string{ownerTrusted, ownerUser} {
			n, err := unix.Getxattr(b.dir, attribute, buf)
			switch {
			case err == nil && string(buf[:n]) == name:
				return true, nil
			case err == nil, errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ERANGE), gone(err):
			default:
				return false, fmt.Errorf("read owner of cgroup %s: %w", b.dir, err)
			}
		}
	}
	return false, nil
}

// ownerBranches are those that carry the name: two, as one may vanish.
func (g *Group) ownerBranches() []*branch {
	list := []*branch{g.roster()}
	if b := g.unified(); b != nil && b != list[0] {
		list = append(list, b)
	}
	return list
}

// errForeign is for a group that is there and is somebody else's.
func (g *Group) errForeign() error {
	return fmt.Errorf("cgroup %s: another one has its path now: %w", g.path, errdefs.ErrNotFound)
}

// RestoreOwned is [Restore] for a group that carries the owner's name. One that
// does not is an [errdefs.ErrNotFound].
func RestoreOwned(s State, owner string) (*Group, error) {
	g, err := Restore(s)
	if err != nil {
		return nil, err
	}
	mine, err := g.OwnedBy(owner)
	if err == nil && !mine {
		err = g.errForeign()
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// RemoveUnnamed removes what is there of a recorded group, empty and without any
// owner's name: what [Group.Make] leaves when it is interrupted before it has
// named the group. What somebody uses or has named stays.
func RemoveUnnamed(s State) error {
	g, err := Restore(s)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	for _, b := range g.ownerBranches() {
		for _, attribute := range []string{ownerTrusted, ownerUser} {
			if n, err := unix.Getxattr(b.dir, attribute, nil); err == nil && n > 0 {
				return nil
			}
		}
	}
	var errs []error
	for i := range g.branches {
		if err := rmdir(g.branches[i].dir); err != nil && !gone(err) && err != unix.EBUSY {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", g.branches[i].dir, err))
		}
	}
	return errors.Join(errs...)
}
