// Package cgroup sizes a container: it makes one control group for it in every
// hierarchy of the host, writes the limits of an OCI spec, reads the use, and
// freezes, kills and removes the group.
//
// It speaks to the kernel's files directly, on cgroup v2 ("unified"), on hosts
// whose controllers are still on cgroup v1 with a cgroup2 tree beside them
// ("hybrid"), and on hosts with v1 alone ("legacy"). Behind one [Group] each
// controller is looked up where it lives, so on a hybrid host a limit of a v1
// controller and one of a v2 controller meet in the same group.
//
// On a hybrid host the group has a directory in the cgroup2 tree too although no
// limit lives there. It costs one mkdir and one rmdir (about 45 µs), is joined
// for nothing by CLONE_INTO_CGROUP, and gives what v1 lacks: cgroup.kill, and an
// event when the last process is gone.
//
// # Paths
//
// An absolute path ("/berth/ID") counts from the mount point of each hierarchy.
// A relative path counts from where the caller is, as in runc: on v1 and on the
// cgroup2 side of a hybrid host below the caller's own cgroup of that hierarchy;
// on v2 beside it, below the parent of the caller's own cgroup, because a cgroup
// with processes of its own cannot pass controllers on. A path with "..", the
// root itself, and the systemd form "slice:prefix:name" are refused.
//
// # Why own code for v1
//
// opencontainers/cgroups takes 1.6 ms to make, limit and remove a group in nine v1
// hierarchies at its first use in a process (1.0 ms later), adds 1.9 MB to a
// binary and 0.3 ms to its start. This package: 0.8 ms, 0.3 MB, nothing. It has no
// init work and no state of its own: a Group holds paths and, where there is a
// cgroup2 tree, one directory handle.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Group is one control group: a directory at the same place in each hierarchy.
// Its methods may be called from several goroutines; two calls that change the
// same thing (Set beside Set, Freeze beside Thaw) take effect in either order.
type Group struct {
	path     string
	mode     Mode
	branches []branch
	owner    string // to be written on it, see owner.go
	owned    bool
}

// Plan says where the group of that path will be, without making it: enough to
// compile a container's program while [Group.Make] does the work. A path no group
// can have is an error here.
func Plan(path string) (*Group, error) {
	l, err := place(path)
	if err != nil {
		return nil, err
	}
	return &Group{path: l.path, mode: l.mode, branches: l.branches}, nil
}

// Create is [Plan] and [Group.Make] in one.
func Create(path string, res *specs.LinuxResources) (*Group, error) {
	g, err := Plan(path)
	if err != nil {
		return nil, err
	}
	if err := g.Make(res); err != nil {
		return nil, err
	}
	return g, nil
}

// Make makes the group and writes its limits, so that nobody ever runs in it
// without them. A nil res sets nothing; without device rules in it the group may
// use every device that the cgroup above it may. Missing parents are made too and, on v2,
// pass their controllers on; they stay when the group is destroyed (see
// [RemoveEmpty]).
//
// A group that exists already is taken over when it holds no processes and is
// not frozen, and is an [errdefs.ErrConflict] otherwise. What res asks and this
// host or this package cannot do is an [errdefs.ErrUnsupported] that names the
// field, found before anything is made. On error nothing new is left but parents.
func (g *Group) Make(res *specs.LinuxResources) error { return g.make(res, g.checkReused) }

// Adopt is Make for a group that systemd has made around its first process: what
// lacks is made, and who is in it is no conflict.
func (g *Group) Adopt(res *specs.LinuxResources) error {
	return g.make(res, func(bool) error { return nil })
}

func (g *Group) make(res *specs.LinuxResources, checkReused func(allFresh bool) error) error {
	settings, err := g.compile(res, true)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	devices, err := compileDevices(res)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	made, err := g.makeDirs(needed(settings))
	if err == nil {
		err = checkReused(len(made) == len(g.branches))
	}
	if err == nil {
		err = g.setUp(settings, devices)
	}
	if err != nil {
		return errors.Join(err, g.unmake(made))
	}
	return nil
}

// setUp readies the group for its first process.
func (g *Group) setUp(settings []setting, devices *deviceSet) error {
	g.writeOwner()
	if err := g.openHandle(); err != nil {
		return err
	}
	if err := g.inheritCpuset(); err != nil {
		return err
	}
	if err := g.apply(settings, nil); err != nil {
		return err
	}
	return g.setDevices(devices)
}

// Load finds the group at path. It is an [errdefs.ErrNotFound] when no hierarchy
// has it. A relative path is looked for from where the caller is now: to find a
// group again from another process, keep its [State] and use [Restore].
func Load(path string) (*Group, error) {
	l, err := place(path)
	if err != nil {
		return nil, err
	}
	return l.existing()
}

// existing narrows the placement to the branches which are there.
func (l *placement) existing() (*Group, error) {
	g := &Group{path: l.path, mode: l.mode}
	for _, b := range l.branches {
		switch err := unix.Access(b.dir, unix.F_OK); err {
		case nil:
			g.branches = append(g.branches, b)
		case unix.ENOENT:
		default:
			return nil, fmt.Errorf("look up cgroup %s: %w", b.dir, err)
		}
	}
	if len(g.branches) == 0 {
		return nil, fmt.Errorf("cgroup %s: %w", g.path, errdefs.ErrNotFound)
	}
	if err := g.openHandle(); err != nil {
		return nil, err
	}
	return g, nil
}

// State is what finds a group again from any process: see [Restore].
type State struct {
	// Path is the group's path as given to [Create].
	Path string `json:"path"`
	// Dirs has the group's directory on the host by hierarchy: "cpu,cpuacct",
	// "name=systemd", and "" for cgroup2.
	Dirs map[string]string `json:"dirs"`
}

// State returns where the group is.
func (g *Group) State() State {
	s := State{Path: g.path, Dirs: make(map[string]string, len(g.branches))}
	for _, b := range g.branches {
		s.Dirs[b.name()] = b.dir
	}
	return s
}

// Restore finds the group that [Group.State] described. Directories that are
// gone are left out; when all are, it is an [errdefs.ErrNotFound]. A directory
// that is on no cgroup filesystem, or is the root of one, is an
// [errdefs.ErrInvalid].
func Restore(s State) (*Group, error) {
	mode, hierarchies, err := discover(false)
	if err != nil {
		return nil, err
	}
	l := placement{path: s.Path, mode: mode}
	for _, h := range hierarchies {
		dir, ok := s.Dirs[h.name()]
		if !ok {
			continue
		}
		if err := checkBelow(dir, h.mount); err != nil {
			return nil, fmt.Errorf("restore cgroup %s: %w", s.Path, err)
		}
		l.branches = append(l.branches, branch{hierarchy: h, dir: dir})
	}
	if err := l.missed(s); err != nil {
		return nil, err
	}
	return l.existing()
}

// missed finds directories of the record that are there and whose hierarchy was not
// found: they must not be forgotten.
func (l *placement) missed(s State) error {
	if len(l.branches) == len(s.Dirs) {
		return nil
	}
	for name, dir := range s.Dirs {
		known := slices.ContainsFunc(l.branches, func(b branch) bool { return b.name() == name })
		if !known && unix.Access(dir, unix.F_OK) == nil {
			return fmt.Errorf("restore cgroup %s: %s is there, but the hierarchy %q was not found", s.Path, dir, name)
		}
	}
	return nil
}

// Path returns the group's path as given to [Create], cleaned.
func (g *Group) Path() string { return g.path }

// Mode returns how the group's host arranges its controllers.
func (g *Group) Mode() Mode { return g.mode }

// CloneFD returns the group's directory in the cgroup2 tree, opened O_PATH, for
// clone3's CLONE_INTO_CGROUP: on a unified and on a hybrid host. It is nil on a
// legacy host and after [Group.Close]. The Group owns it.
//
// On a hybrid host the child must use the [Group.JoinFiles] as well: this
// directory brings it into none of the v1 hierarchies.
func (g *Group) CloneFD() *os.File {
	if b := g.unified(); b != nil {
		return b.handle
	}
	return nil
}

// CloneFDOf returns the directory, for CLONE_INTO_CGROUP, of the cgroup which
// the process pid of this group is in. It is the group's own or one below: a
// container that runs systemd moves its processes down, after which the kernel
// lets nobody into the top (v2's no-internal-process rule). It is nil on a legacy
// host and an [errdefs.ErrNotFound] when the process is not in the group's
// cgroup2 branch. The caller closes it.
func (g *Group) CloneFDOf(pid int) (*os.File, error) {
	b := g.unified()
	if b == nil {
		return nil, nil
	}
	var found *os.File
	err := b.walk(func(dir int) error {
		pids, err := procsIn(dir)
		if err != nil || found != nil || !slices.Contains(pids, pid) {
			return err
		}
		found, err = reopenDir(dir, b.dir)
		return err
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("find process %d in cgroup %s: %w", pid, g.path, err)
	}
	if found == nil {
		return nil, fmt.Errorf("process %d in cgroup %s: %w", pid, g.path, errdefs.ErrNotFound)
	}
	return found, nil
}

// reopenDir opens the directory dir once more, O_PATH.
func reopenDir(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// JoinPaths are the `tasks` files of the group's v1 hierarchies. A child that
// has a single thread enters the group by writing "0" to each, before it runs
// what is to be limited. (A thread that moves itself takes no global lock:
// cgroup_procs_write_start in the kernel. Writing a pid to cgroup.procs does, and
// can wait 10 ms for it on a quiet machine.) Empty on a unified host, where
// [Group.CloneFD] is all.
func (g *Group) JoinPaths() []string {
	var paths []string
	for i := range g.branches {
		if b := &g.branches[i]; !b.v2 {
			paths = append(paths, b.dir+"/tasks")
		}
	}
	return paths
}

// Add moves a process into the group's cgroups of a host that is not unified, for a
// process that does not join by itself.
func (g *Group) Add(pid int) error {
	if g.mode == Unified {
		return nil
	}
	for i := range g.branches {
		if err := g.branches[i].write("cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("join cgroup %s: %w", g.branches[i].dir, classify(err))
		}
	}
	return nil
}

// Close gives back the directory handle. The group stays on the host and the
// Group stays usable but for [Group.CloneFD].
func (g *Group) Close() error {
	if f := g.CloneFD(); f != nil {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("close cgroup %s: %w", g.path, err)
		}
	}
	return nil
}

// openHandle opens the directory in the cgroup2 tree, where the host has one.
func (g *Group) openHandle() error {
	b := g.unified()
	if b == nil {
		return nil
	}
	f, err := openDir(b.dir)
	if err != nil {
		return err
	}
	b.handle = f
	return nil
}

func openDir(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, classify(fmt.Errorf("open cgroup %s: %w", dir, err))
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// unified returns the branch in the cgroup2 tree, nil when there is none.
func (g *Group) unified() *branch {
	for i := range g.branches {
		if g.branches[i].v2 {
			return &g.branches[i]
		}
	}
	return nil
}

// branch returns the branch that has the controller, nil when none has.
// "devices" and "freezer" are no controllers on v2 but abilities of every cgroup.
func (g *Group) branch(controller string) *branch {
	for i := range g.branches {
		if slices.Contains(g.branches[i].controllers, controller) {
			return &g.branches[i]
		}
	}
	if controller == "devices" || controller == "freezer" {
		return g.unified()
	}
	return nil
}

// below returns what is under parent in path ("" for parent itself).
func below(path, parent string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, strings.TrimSuffix(parent, "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}
