package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// Sub returns the group with some of its hierarchies at a cgroup below, which
// exists, for a process that is to start there. On a unified host places is one
// path; elsewhere each is "CONTROLLER[,CONTROLLER...]:PATH", and hierarchies that
// are not named stay at the group's own cgroup. Paths are below the group's: one with
// ".." is refused. The caller closes it.
func (g *Group) Sub(places []string) (*Group, error) {
	sub := &Group{path: g.path, mode: g.mode, branches: slices.Clone(g.branches)}
	for i := range sub.branches {
		sub.branches[i].handle = nil
	}
	named := map[int]bool{}
	for _, place := range places {
		list, p, ok := strings.Cut(place, ":")
		if g.mode == Unified {
			list, p = "", place
		} else if !ok || list == "" {
			return nil, subError(place, "needs the form CONTROLLER:PATH on cgroup v1")
		}
		if slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsRune(p, 0) || p == "" {
			return nil, subError(place, "must be a path below the container's cgroup")
		}
		for controller := range strings.SplitSeq(list, ",") {
			i := g.subBranch(controller)
			if i < 0 {
				return nil, subError(place, "the container has no hierarchy with "+controller)
			}
			if dir := path.Join(g.branches[i].dir, p); named[i] && sub.branches[i].dir != dir {
				return nil, subError(place, "that hierarchy has another path already")
			}
			named[i], sub.branches[i].dir = true, path.Join(g.branches[i].dir, p)
		}
	}
	for i := range named {
		if err := unix.Access(sub.branches[i].dir, unix.F_OK); err != nil {
			return nil, classify(fmt.Errorf("cgroup %s: %w", sub.branches[i].dir, err))
		}
	}
	return sub, sub.openHandle()
}

func subError(place, why string) error {
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("cgroup %q: %s", place, why))
}

// subBranch finds the hierarchy of a controller, or of the name of a v1 hierarchy
// without; "" is the cgroup2 tree. It is -1 when there is none.
func (g *Group) subBranch(controller string) int {
	return slices.IndexFunc(g.branches, func(b branch) bool {
		if b.v2 {
			return controller == ""
		}
		return slices.Contains(b.controllers, controller)
	})
}
