package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// walk visits the branch's cgroup and all below it. enter sees each on the way
// down, leave each but the top one on the way up. It holds two descriptors
// whatever the depth, and no paths: a container that may make cgroups can nest
// them deeper than PATH_MAX or the descriptor limit allow. What vanishes
// meanwhile is passed over.
func (b *branch) walk(enter func(dir int) error, leave func(parent int, name string) error) error {
	top, err := b.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	w := walker{dir: top, enter: enter, leave: leave}
	defer func() { unix.Close(w.dir) }()
	if err := w.arrive(); err != nil {
		return err
	}
	for len(w.levels) > 0 {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

type walker struct {
	dir    int // where we are
	levels []level
	enter  func(dir int) error
	leave  func(parent int, name string) error
}

// level is one directory between the top and where we are.
type level struct {
	name string   // of the directory
	todo []string // its sub-directories that were not visited yet
}

// arrive visits the directory that w.dir was just set to.
func (w *walker) arrive() error {
	if w.enter != nil {
		if err := w.enter(w.dir); err != nil && !gone(err) {
			return err
		}
	}
	subs, err := subdirs(w.dir)
	if err != nil && !gone(err) {
		return err
	}
	w.levels = append(w.levels, level{todo: subs})
	return nil
}

// step goes down into the next sub-directory or, when there is none, up.
func (w *walker) step() error {
	here := &w.levels[len(w.levels)-1]
	if len(here.todo) == 0 {
		return w.up()
	}
	name := here.todo[0]
	here.todo = here.todo[1:]
	err := w.change(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.arrive(); err != nil {
		return err
	}
	w.levels[len(w.levels)-1].name = name
	return nil
}

func (w *walker) up() error {
	name := w.levels[len(w.levels)-1].name
	w.levels = w.levels[:len(w.levels)-1]
	if len(w.levels) == 0 {
		return nil
	}
	if err := w.change(".."); err != nil {
		return err
	}
	if w.leave == nil {
		return nil
	}
	if err := w.leave(w.dir, name); err != nil && !gone(err) {
		return err
	}
	return nil
}

func (w *walker) change(name string) error {
	next, err := unix.Openat(w.dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.Close(w.dir)
	w.dir = next
	return nil
}

// subdirs lists the sub-directories of dir. A cgroup directory's link count is
// 2 plus their number, which spares listing the many files of one without.
func subdirs(dir int) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return nil, err
	}
	if st.Nlink == 2 {
		return nil, nil
	}
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if n == 0 || err != nil {
			return names, err
		}
		names = appendDirs(names, buf[:n])
	}
}

// appendDirs takes the directories from struct linux_dirent64 records,
// getdents(2): inode 8 bytes, offset 8, length 2, type 1, name.
func appendDirs(names []string, records []byte) []string {
	for len(records) > 19 {
		size := int(binary.NativeEndian.Uint16(records[16:]))
		name, _, _ := bytes.Cut(records[19:size], []byte{0})
		if s := string(name); records[18] == unix.DT_DIR && s != "." && s != ".." {
			names = append(names, s)
		}
		records = records[size:]
	}
	return names
}

// readAt returns the content of a file in the directory dir.
func readAt(dir int, file string) (string, error) {
	fd, err := retryEINTR(func() (int, error) { return unix.Openat(dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readAll(fd)
}

// procsIn lists the processes of one cgroup. A threaded cgroup has no list of
// processes (EOPNOTSUPP): its threads' are found at the domain above.
func procsIn(dir int) ([]int, error) {
	s, err := readAt(dir, "cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(s) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("parse cgroup.procs: %w", err)
		}
		if pid != 0 { // a process that our PID namespace does not see
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Procs lists the processes of the group and of all cgroups below it, in
// ascending order. It is empty when the group is gone.
func (g *Group) Procs() ([]int, error) {
	all, err := g.roster().procs()
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
	}
	return all, nil
}

func (b *branch) procs() ([]int, error) {
	var all []int
	err := b.walk(func(dir int) error {
		pids, err := procsIn(dir)
		all = append(all, pids...)
		return err
	}, nil)
	slices.Sort(all)
	return slices.Compact(all), err
}

// roster returns the branch that everybody in the group is in: on a hybrid host
// a v1 branch, as a process may have joined by [Group.JoinPaths] alone.
func (g *Group) roster() *branch {
	for i := range g.branches {
		if !g.branches[i].v2 {
			return &g.branches[i]
		}
	}
	return &g.branches[0]
}
