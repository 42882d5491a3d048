// Package quota bounds what a directory, with all below it, takes of its file
// system: by the kernel's project quotas, which xfs and ext4 have when they are
// mounted with prjquota (xfs(5), ext4(5), quotactl(2)).
//
// A directory gets a project of its own. What is made in it belongs to the project
// too, and the kernel refuses what would exceed the project's limit: with ENOSPC
// on xfs, EDQUOT on ext4. Which project a directory has is on the directory, what
// the project uses is known to the kernel: no list of them is kept elsewhere.
//
// Quotas do not hold who owns a file, has CAP_FOWNER over it or is its host's
// root: in the first user namespace the owner can move it to another project by
// ioctl(2). Whoever confines such users keeps them from that call.
package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// The projects that are given to directories, apart from those of small number
// that people, Docker (from 1), LXD (10000) and the kubelet (1048576) use.
const (
	firstProject = 0x62000000
	lastProject  = firstProject + 1<<24 - 1
)

// FS is a file system on which project quotas are enforced. Make one with [Open].
// Its methods may be called from any goroutine, and by several processes.
type FS struct {
	root *os.File
	// next is where the search for a free project begins.
	next atomic.Uint32
}

// Usage is what a directory's project may use and uses. A Project of 0 is none.
type Usage struct {
	Project uint32
	// Limit is in bytes, 0 is none.
	Limit int64
	// Used is in bytes.
	Used int64
}

// Open finds out, by trying, whether quotas can be set below dir, an existing
// directory. If not the error is an errdefs.ErrUnsupported that names the file
// system, with what is to be done as a hint.
func Open(dir string) (_ *FS, err error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	flags, err := state(root)
	if err != nil || flags&(projectAccounting|projectEnforced) != projectAccounting|projectEnforced {
		return nil, unsupported(root, err)
	}
	q := &FS{root: root}
	q.next.Store(firstProject)
	return q, q.try(dir)
}

// try sets a quota and takes it back.
func (q *FS) try(dir string) error {
	probe, err := os.MkdirTemp(dir, ".quota-")
	if err != nil {
		return err
	}
	err = q.Claim(probe, 1<<20)
	if err == nil {
		err = q.Release(probe)
	}
	if err != nil {
		err = unsupported(q.root, err)
	}
	return errors.Join(err, os.Remove(probe))
}

// Close closes it. Quotas stay.
func (q *FS) Close() error { return q.root.Close() }

// Claim gives an empty directory a project of its own and the project a limit in
// bytes. The directory can be renamed; [FS.Release] comes before its removal.
func (q *FS) Claim(dir string, limit int64) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for range lastProject - firstProject {
		id := q.candidate()
		free, err := q.unused(id)
		if err == nil && free {
			free, err = q.take(d, id, limit)
		}
		if err != nil {
			return fmt.Errorf("set quota of %s: %w", dir, err)
		}
		if free {
			return nil
		}
	}
	return fmt.Errorf("set quota of %s: no project is free: %w", dir, errdefs.ErrUnavailable)
}

// candidate is the next project to look at.
func (q *FS) candidate() uint32 {
	for {
		id := q.next.Load()
		next := id + 1
		if next > lastProject {
			next = firstProject
		}
		if q.next.CompareAndSwap(id, next) {
			return id
		}
	}
}

// unused says whether nothing belongs to a project. What is being deleted still
// does.
func (q *FS) unused(id uint32) (bool, error) {
	d, err := q.get(id)
	return d.blocks == 0 && d.inodes == 0 && d.hard == 0 && d.soft == 0, err
}

// take gives the directory the project, unless another process was faster: then
// the project has more than this one inode.
func (q *FS) take(d *os.File, id uint32, limit int64) (mine bool, err error) {
	if err := setProject(d, id, true); err != nil {
		return false, err
	}
	now, err := q.get(id)
	if err == nil && now.inodes == 1 {
		if err = setLimit(q.root, id, limit); err == nil {
			return true, nil
		}
	}
	return false, errors.Join(err, setProject(d, 0, false))
}

// Status says what a directory's project may use and uses.
func (q *FS) Status(dir string) (Usage, error) {
	id, err := projectOf(dir)
	if err != nil || id == 0 {
		return Usage{}, err
	}
	d, err := q.get(id)
	if err != nil {
		return Usage{}, fmt.Errorf("quota of %s: %w", dir, err)
	}
	return Usage{Project: id, Limit: d.hard * blockSize, Used: d.blocks * blockSize}, nil
}

// Ensure gives a directory that [FS.Claim] has had its limit again, also when
// it has lost its project, or got the one of a directory it was copied into: then
// all below it gets another one, which is only right while nobody makes files there.
func (q *FS) Ensure(dir string, limit int64) error {
	u, err := q.Status(dir)
	switch {
	case err != nil:
		return err
	case !ours(u.Project):
		return q.claimTree(dir, limit)
	case u.Limit != roundUp(limit):
		return setLimit(q.root, u.Project, limit)
	}
	return nil
}

func (q *FS) claimTree(dir string, limit int64) error {
	if err := q.Claim(dir, limit); err != nil {
		return err
	}
	id, err := projectOf(dir)
	if err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		// The kernel gives what is no file or directory a project only when it is made.
		if err != nil || path == dir || !e.IsDir() && !e.Type().IsRegular() {
			return err
		}
		f, err := openFile(path)
		if err != nil {
			return err
		}
		return errors.Join(setProject(f, id, e.IsDir()), f.Close())
	})
	if err != nil { // what has no project yet would not count: the next Ensure begins anew
		return errors.Join(err, q.Release(dir), disown(dir))
	}
	return nil
}

// disown takes a directory's project away.
func disown(dir string) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(setProject(d, 0, false), d.Close())
}

// Release takes a directory's limit away, before the directory is deleted. Its
// files stay the project's until they are gone, and nobody gets the project
// before. Without a project, or without the directory, there is nothing to do.
func (q *FS) Release(dir string) error {
	id, err := projectOf(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ours(id) {
		return nil
	}
	if err != nil {
		return err
	}
	return q.Forget(id)
}

// Forget takes a project's limit away.
func (q *FS) Forget(id uint32) error {
	if !ours(id) {
		return fmt.Errorf("project %d is not one that was given to a directory: %w", id, errdefs.ErrInvalid)
	}
	return setLimit(q.root, id, 0)
}

// Strays lists the projects that have a limit and no files: their directories
// are gone without a [FS.Release].
func (q *FS) Strays() ([]uint32, error) {
	var list []uint32
	for id := uint32(firstProject); ; id++ {
		d, err := next(q.root, id)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || err == nil && !ours(d.id) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if id = d.id; d.hard > 0 && d.blocks == 0 && d.inodes == 0 {
			list = append(list, id)
		}
	}
}

func ours(id uint32) bool { return id >= firstProject && id <= lastProject }

// get asks for a project that may never have been used.
func (q *FS) get(id uint32) (dquot, error) {
	d, err := get(q.root, id)
	if errors.Is(err, unix.ENOENT) {
		return dquot{id: id}, nil
	}
	return d, err
}

// roundUp is a limit in the kernel's unit, in bytes.
func roundUp(limit int64) int64 { return (limit + blockSize - 1) / blockSize * blockSize }

// openDir opens a directory; a link is none.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// openFile opens a file or a directory, never a link's end, without waiting.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

func projectOf(dir string) (uint32, error) {
	d, err := openDir(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	id, err := project(d)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	return id, err
}

// unsupported says why there are no quotas on a file system, and what can be done.
func unsupported(root *os.File, cause error) error {
	kind, at := where(root)
	err := fmt.Errorf("project quotas are not enforced on the file system of %s (%s)", root.Name(), kind)
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	hint := "put it on an xfs mounted with the option prjquota, or an ext4 with the feature project"
	switch kind {
	case "xfs":
		hint = "mount " + at + " with the option prjquota (for a root file system: rootflags=prjquota on the kernel's command line); the kernel must have CONFIG_XFS_QUOTA"
	case "ext4":
		hint = "give the unmounted file system the feature (tune2fs -O project,quota -Q prjquota DEVICE) and mount " + at + " with the option prjquota; the kernel must have CONFIG_QFMT_V2"
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, err), hint)
}

// where is the type of a directory's file system and where that is mounted.
func where(root *os.File) (kind, at string) {
	var st unix.Statx_t
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Statx(int(root.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil {
		return "unknown", root.Name()
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[0] != fmt.Sprint(st.Mnt_id) {
			continue
		}
		if _, after, ok := strings.Cut(line, " - "); ok {
			kind, _, _ = strings.Cut(after, " ")
		}
		return kind, fields[4]
	}
	return "unknown", root.Name()
}
