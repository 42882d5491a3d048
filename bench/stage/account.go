package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cgroupMount is a mounted cgroup hierarchy.
type cgroupMount struct {
	dir     string
	unified bool
	options []string // of v1: its controllers among others
}

// cgroupMounts lists the hierarchies of this mount namespace.
func cgroupMounts() ([]cgroupMount, error) {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var mounts []cgroupMount
	for _, i := range infos {
		mounts = append(mounts, cgroupMount{i.Mountpoint, i.FSType == "cgroup2", strings.Split(i.VFSOptions, ",")})
	}
	return mounts, nil
}

// Layout says which of the kernel's two kinds of cgroups is used.
type Layout struct {
	// Unified: all controllers are on cgroup v2.
	Unified bool
	// Beside is where cgroup v2 is mounted beside the controllers on v1; ""
	// for nowhere.
	Beside string
	// cpu is the hierarchy that counts processor time.
	cpu cgroupMount
}

// FindLayout looks at what is mounted.
func FindLayout() (Layout, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return Layout{}, err
	}
	return layoutOf(mounts)
}

func layoutOf(mounts []cgroupMount) (Layout, error) {
	var l Layout
	v1 := slices.ContainsFunc(mounts, func(m cgroupMount) bool { return !m.unified })
	for _, m := range mounts {
		switch {
		case m.unified && !v1:
			l.Unified, l.cpu = true, m
		case m.unified:
			l.Beside = m.dir
		case slices.Contains(m.options, "cpuacct"):
			l.cpu = m
		}
	}
	if l.cpu.dir == "" {
		return l, errors.New("no cgroup hierarchy counts processor time: mount cgroup2 or cpuacct")
	}
	return l, nil
}

// Account counts the processor time of all processes below a cgroup.
type Account struct {
	path string // within each hierarchy
	dir  string
	v2   bool
}

// NewAccount makes the account of one candidate.
func (s Stage) NewAccount(l Layout, name string) (Account, error) {
	a := Account{path: filepath.Join(s.Base, name), v2: l.Unified}
	a.dir = filepath.Join(l.cpu.dir, a.path)
	return a, os.MkdirAll(filepath.Join(a.dir, "commands"), 0o755)
}

// Commands is the file by which processes enter.
func (a Account) Commands() string { return filepath.Join(a.dir, "commands", "cgroup.procs") }

// Containers is the path, within each hierarchy, below which the candidate
// makes its containers' cgroups.
func (a Account) Containers() string { return filepath.Join(a.path, "containers") }

// Usage is the processor time so far, of processes that have ended as well.
func (a Account) Usage() (time.Duration, error) {
	if !a.v2 {
		return readUsage(filepath.Join(a.dir, "cpuacct.usage"), "", time.Nanosecond)
	}
	return readUsage(filepath.Join(a.dir, "cpu.stat"), "usage_usec ", time.Microsecond)
}

// Processes lists those in the cgroup and in all below it.
func (a Account) Processes() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(a.dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a container has just ended
		}
		if err != nil || e.Name() != "cgroup.procs" {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			pids = append(pids, pid)
		}
		return err
	})
	return pids, err
}

// readUsage reads the number after a prefix of one of the file's lines.
func readUsage(file, prefix string, unit time.Duration) (time.Duration, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", file, err)
			}
			return time.Duration(n) * unit, nil
		}
	}
	return 0, fmt.Errorf("read %s: no line %q", file, prefix)
}
