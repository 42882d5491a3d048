package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// makeDirs makes the group's directories and returns those that were not there.
// required are the controllers that a limit needs.
func (g *Group) makeDirs(required []string) (made []string, err error) {
	kept := g.branches[:0]
	for i := range g.branches {
		b := g.branches[i]
		fresh, err := b.makeDir(g.wanted(&b, required), required)
		if fresh {
			made = append(made, b.dir)
		}
		if err != nil && g.mayMiss(&b, required, err) {
			continue
		}
		if err != nil {
			return made, classify(err)
		}
		kept = append(kept, b)
	}
	g.branches = kept
	return made, nil
}

// wanted lists the controllers that the v2 branch is to have. On a unified host
// that is all, as in runc, not only those with a limit: statistics need them, and
// so do runtimes inside the container. On a hybrid host only what a limit needs.
func (g *Group) wanted(b *branch, required []string) []string {
	if g.mode == Unified {
		return b.controllers
	}
	var wanted []string
	for _, c := range required {
		if slices.Contains(b.controllers, c) {
			wanted = append(wanted, c)
		}
	}
	return wanted
}

// mayMiss tells whether the group can do without the branch: the cgroup2 side of
// a hybrid host, read-only as some outer containers have it, limits nothing.
func (g *Group) mayMiss(b *branch, required []string, err error) bool {
	return g.mode == Hybrid && b.v2 && !b.hasAny(required) &&
		(errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM))
}

func (b *branch) hasAny(controllers []string) bool {
	return slices.ContainsFunc(controllers, func(c string) bool { return slices.Contains(b.controllers, c) })
}

// checkReused refuses a group that was there already and is in use.
func (g *Group) checkReused(allFresh bool) error {
	if allFresh {
		return nil
	}
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return errdefs.WithHint(
			fmt.Errorf("create cgroup %s: it has %d processes, the first is %d: %w", g.path, len(pids), pids[0], errdefs.ErrConflict),
			"Another container uses this cgroup: give each its own cgroupsPath.")
	}
	frozen, err := g.Frozen()
	if err != nil {
		return err
	}
	if frozen {
		return fmt.Errorf("create cgroup %s: it exists and is frozen: %w", g.path, errdefs.ErrConflict)
	}
	return nil
}

// unmake removes directories that a failed Create has made.
func (g *Group) unmake(made []string) error {
	var errs []error
	for _, dir := range slices.Backward(made) {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(append(errs, g.Close())...)
}

// makeDir makes the branch's directory and what leads to it and, on v2, has the
// wanted controllers passed on to it, of which the required ones must come.
func (b *branch) makeDir(wanted, required []string) (fresh bool, err error) {
	err = unix.Mkdir(b.dir, 0o755)
	if err == unix.ENOENT {
		if err = b.makeParents(path.Dir(b.dir)); err != nil {
			return false, err
		}
		err = unix.Mkdir(b.dir, 0o755)
	}
	if err != nil && err != unix.EEXIST {
		return false, fmt.Errorf("make cgroup %s: %w", b.dir, err)
	}
	fresh = err == nil
	if b.v2 && len(wanted) > 0 {
		return fresh, b.passControllers(wanted, required)
	}
	return fresh, nil
}

// makeParents makes dir and its parents up to the mount point. In a v1 cpuset
// hierarchy a new directory has no CPUs and nobody can join it: it takes its
// parent's, and cgroup.clone_children lets the kernel do the same for those
// below, the containers', which saves two reads and two writes for each.
func (b *branch) makeParents(dir string) error {
	if dir == b.mount {
		return nil
	}
	err := unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT {
		if err = b.makeParents(path.Dir(dir)); err != nil {
			return err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make cgroup %s: %w", dir, err)
	}
	if b.v2 || !slices.Contains(b.controllers, "cpuset") {
		return nil
	}
	p := branch{hierarchy: b.hierarchy, dir: dir}
	if err := p.inheritCpuset(); err != nil {
		return err
	}
	return p.write("cgroup.clone_children", "1")
}

// inheritCpuset gives the group's v1 cpuset its parent's CPUs and memory nodes
// where it has none yet.
func (g *Group) inheritCpuset() error {
	b := g.branch("cpuset")
	if b == nil || b.v2 {
		return nil
	}
	return classify(b.inheritCpuset())
}

func (b *branch) inheritCpuset() error {
	parent := branch{hierarchy: b.hierarchy, dir: path.Dir(b.dir)}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := b.read(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(have) != "" {
			continue
		}
		value, err := parent.read(file)
		if err == nil && strings.TrimSpace(value) == "" && parent.dir != parent.mount {
			// Somebody has made the parent and not come to fill it yet.
			if err = parent.inheritCpuset(); err == nil {
				value, err = parent.read(file)
			}
		}
		if err != nil {
			return err
		}
		if err := b.write(file, strings.TrimSpace(value)); err != nil {
			return err
		}
	}
	return nil
}

// passControllers sees to it that the branch has the wanted controllers, by
// cgroup.subtree_control of each cgroup that leads to it. Only a required one that
// cannot be had is an error, and a branch in which no process can live.
func (b *branch) passControllers(wanted, required []string) error {
	if missing, err := b.missing(wanted); err != nil || len(missing) == 0 {
		return err
	}
	var refused error
	for _, dir := range b.ancestors() {
		p := branch{hierarchy: b.hierarchy, dir: dir}
		if err := p.passOn(wanted); err != nil && refused == nil {
			refused = err
		}
	}
	missing, err := b.missing(wanted)
	if err != nil {
		return err
	}
	for _, c := range missing {
		if slices.Contains(required, c) {
			return b.lacks(c, refused)
		}
	}
	return b.checkType()
}

// checkType refuses a cgroup below a threaded one, which the kernel calls
// "domain invalid" and lets nobody into.
func (b *branch) checkType() error {
	t, err := b.read("cgroup.type")
	if err != nil {
		return err
	}
	if t = strings.TrimSpace(t); t != "domain" {
		return errdefs.WithHint(fmt.Errorf("cgroup %s is of type %q: %w", b.dir, t, errdefs.ErrConflict),
			"A threaded cgroup leads there: give a cgroupsPath elsewhere.")
	}
	return nil
}

// lacks explains why the branch cannot have the controller.
func (b *branch) lacks(controller string, cause error) error {
	if cause == nil {
		return fmt.Errorf("cgroup %s cannot have the %s controller: %w", b.dir, controller, errdefs.ErrUnsupported)
	}
	err := fmt.Errorf("cgroup %s cannot have the %s controller: %w", b.dir, controller, cause)
	if errors.Is(cause, unix.EBUSY) {
		err = errdefs.WithHint(err, "A cgroup with processes of its own cannot pass controllers on: "+
			"move them into a child of it, or give a cgroupsPath elsewhere.")
	}
	return err
}

// missing returns those of wanted which the branch does not have.
func (b *branch) missing(wanted []string) ([]string, error) {
	s, err := b.read("cgroup.controllers")
	if err != nil {
		return nil, err
	}
	have := strings.Fields(s)
	var missing []string
	for _, c := range wanted {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	return missing, nil
}

// ancestors returns the directories above the branch from the mount point down.
func (b *branch) ancestors() []string {
	var dirs []string
	for dir := path.Dir(b.dir); ; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
		if dir == b.mount {
			break
		}
	}
	slices.Reverse(dirs)
	return dirs
}

// passOn adds the controllers, as far as the cgroup has them itself, to its
// subtree_control: all in one write and, as the kernel refuses that as a whole,
// one by one when a single one is at fault. Not when the cgroup has processes:
// that would take those controllers which can split a process's threads, make it
// a threaded one, and shut it for containers. It returns the first refusal.
func (b *branch) passOn(controllers []string) error {
	absent, err := b.missing(controllers)
	if err != nil {
		return err
	}
	s, err := b.read("cgroup.subtree_control")
	if err != nil {
		return err
	}
	on := strings.Fields(s)
	var add []string
	for _, c := range controllers {
		if !slices.Contains(on, c) && !slices.Contains(absent, c) {
			add = append(add, "+"+c)
		}
	}
	if len(add) == 0 {
		return nil
	}
	err = b.write("cgroup.subtree_control", strings.Join(add, " "))
	if err == nil || len(add) == 1 || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	var first error
	for _, c := range add {
		if err := b.write("cgroup.subtree_control", c); err != nil && first == nil {
			first = err
		}
	}
	return first
}
