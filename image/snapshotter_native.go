package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive"
	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// nativeSnapshotter needs nothing of the kernel: a container gets a copy of its
// image, which costs the time and the space of one, unless the file system
// shares blocks between copies (btrfs, xfs).
type nativeSnapshotter struct{ root string }

func (*nativeSnapshotter) seal(context.Context, string) error          { return nil }
func (*nativeSnapshotter) lower(dir string) (string, io.Closer, error) { return dir, nil, nil }

// prepare copies the layers together, the lowest first.
func (*nativeSnapshotter) prepare(ctx context.Context, m snapshotMount) error {
	for i := len(m.lower) - 1; i >= 0; i-- {
		f := &flattener{from: m.lower[i], to: m.upper, links: map[uint64]string{}}
		if err := f.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *nativeSnapshotter) mount(ctx context.Context, m snapshotMount) (*os.File, error) {
	if m.label != "" {
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, errors.New("the snapshotter native gives files no SELinux label")),
			"use the snapshotter overlayfs, or --security-opt label=disable")
	}
	if m.upper != "" {
		return bindTree(m.upper, m.ids)
	}
	// An image alone: a copy on a file system of its own, that goes with it.
	f, err := newTmpfs()
	if err != nil {
		return nil, err
	}
	m.upper = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if err := s.prepare(ctx, m); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if m.ids != nil {
		if err := mapIDs(int(f.Fd()), "the image's copy", m.ids.userns); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, mountReadOnly(f)
}

func bindTree(path string, ids *mapping) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, mountError("open_tree "+path, -1, err)
	}
	if ids != nil {
		if err := mapIDs(fd, path, ids.userns); err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
	}
	return os.NewFile(uintptr(fd), "native"), nil
}

// newTmpfs is a detached, empty file system in memory.
func newTmpfs() (*os.File, error) {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, mountError("fsopen tmpfs", -1, err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(fd, "mode", "755"); err != nil {
		return nil, mountError("mode", fd, err)
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, mountError("mount tmpfs", fd, err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, mountError("fsmount tmpfs", fd, err)
	}
	return os.NewFile(uintptr(mnt), "native"), nil
}

func mountReadOnly(f *os.File) error {
	err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	return os.NewSyscallError("mount_setattr", err)
}

// diff compares the container's files with those of a fresh copy's plan.
func (*nativeSnapshotter) diff(ctx context.Context, m snapshotMount, w io.Writer) (changed bool, err error) {
	below, err := viewOf(ctx, m.lower)
	if err != nil {
		return false, err
	}
	upper, err := os.Open(m.upper)
	if err != nil {
		return false, err
	}
	defer upper.Close()
	err = inside(upper, func() error {
		cw := archive.NewChangeWriter(w, "/")
		if err := walkTree(ctx, func(path string, fi fs.FileInfo) error {
			kind := cfs.ChangeKind(cfs.ChangeKindModify)
			old, ok := below[path]
			if delete(below, path); ok && old.same(stateOf(path, fi)) {
				kind = cfs.ChangeKindUnmodified
			} else {
				changed = true
			}
			return cw.HandleChange(kind, path, fi, nil)
		}); err != nil {
			return err
		}
		for path := range below {
			if _, parentGone := below[filepath.Dir(path)]; parentGone {
				continue
			}
			changed = true
			if err := cw.HandleChange(cfs.ChangeKindDelete, path, nil, nil); err != nil {
				return err
			}
		}
		return cw.Close()
	})
	return changed, err
}

// copiedChanges is [Store.Changes] where the upper directory is a copy.
func copiedChanges(ctx context.Context, lower []string, upper string) ([]Change, error) {
	below, err := viewOf(ctx, lower)
	if err != nil {
		return nil, err
	}
	d := &comparison{changed: map[string]bool{"/": true}}
	err = walkLayer(ctx, upper, func(rel, path string, fi fs.FileInfo) error {
		old, there := below[rel]
		delete(below, rel)
		switch {
		case !there:
			d.add(rel, Added)
		case !old.same(stateOf(path, fi)):
			d.add(rel, Modified)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, rel := range slices.Sorted(maps.Keys(below)) {
		if _, parentGone := below[filepath.Dir(rel)]; !parentGone {
			d.add(rel, Deleted)
		}
	}
	return d.list, nil
}

// fileState is what makes a file another one.
type fileState struct {
	mode, uid, gid uint32
	rdev           uint64
	size           int64
	mtime          syscall.Timespec
	target         string // of a link
	capability     string
}

func stateOf(path string, fi fs.FileInfo) fileState {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileState{}
	}
	f := fileState{mode: st.Mode, uid: st.Uid, gid: st.Gid, rdev: uint64(st.Rdev)}
	switch {
	case fi.Mode().IsRegular():
		f.size, f.mtime = st.Size, st.Mtim
		b := make([]byte, 64)
		if n, err := unix.Lgetxattr(path, "security.capability", b); err == nil {
			f.capability = string(b[:n])
		}
	case fi.Mode()&fs.ModeSymlink != 0:
		f.target, _ = os.Readlink(path)
	}
	return f
}

// same compares; directories change their time with every file in them, and
// count by their own attributes.
func (f fileState) same(g fileState) bool { return f == g }

// viewOf is what the layers show together, by path.
func viewOf(ctx context.Context, lower []string) (map[string]fileState, error) {
	view := map[string]fileState{}
	hide := func(path string) {
		delete(view, path)
		for p := range view {
			if strings.HasPrefix(p, path+"/") {
				delete(view, p)
			}
		}
	}
	for i := len(lower) - 1; i >= 0; i-- {
		err := walkLayer(ctx, lower[i], func(rel, path string, fi fs.FileInfo) error {
			old, known := view[rel]
			switch {
			case isWhiteout(fi):
				hide(rel)
				return nil
			case known && old.mode&unix.S_IFMT == unix.S_IFDIR && (!fi.IsDir() || isOpaque(path)):
				hide(rel)
			}
			view[rel] = stateOf(path, fi)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return view, nil
}

// walkLayer visits all files of a layer, parents first. Rel begins with a slash.
func walkLayer(ctx context.Context, dir string, visit func(rel, path string, fi fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if path == dir {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		return visit(strings.TrimPrefix(path, dir), path, fi)
	})
}

// flattener copies one layer over what those below it have made of a directory.
// Nobody else writes there, and a directory of the layer replaces a link that
// was in its place before anything is written below it.
type flattener struct {
	from, to string
	links    map[uint64]string // inode to its copy
	dirs     []copiedDir
}

type copiedDir struct {
	path string
	fi   fs.FileInfo
}

func (f *flattener) run(ctx context.Context) error {
	if err := walkLayer(ctx, f.from, f.copy); err != nil {
		return err
	}
	// Their times change with every file in them.
	for _, d := range f.dirs {
		if err := copyTimes(d.path, d.fi); err != nil {
			return err
		}
	}
	return nil
}

func (f *flattener) copy(rel, path string, fi fs.FileInfo) error {
	to := filepath.Join(f.to, rel)
	old, err := os.Lstat(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if old != nil && !(old.IsDir() && fi.IsDir() && !isOpaque(path)) {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		old = nil
	}
	if isWhiteout(fi) {
		return nil
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("stat: no inode")
	}
	if first := f.links[st.Ino]; first != "" {
		return os.Link(first, to)
	}
	if st.Nlink > 1 && !fi.IsDir() {
		f.links[st.Ino] = to
	}
	switch {
	case fi.IsDir():
		if old == nil {
			err = os.Mkdir(to, 0o700)
		} else {
			err = nil
		}
		f.dirs = append(f.dirs, copiedDir{to, fi})
	case fi.Mode().IsRegular():
		err = copyData(to, path)
	case fi.Mode()&fs.ModeSymlink != 0:
		var target string
		if target, err = os.Readlink(path); err == nil {
			err = os.Symlink(target, to)
		}
	default:
		err = unix.Mknod(to, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	return copyMetadata(to, path, fi, st)
}

// copyData copies a file. io.Copy asks the kernel, which shares the blocks where
// the file system can.
func copyData(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

func copyMetadata(to, from string, fi fs.FileInfo, st *syscall.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink == 0 { // clears no capability, where chown does
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	if err := copyXattrs(to, from); err != nil {
		return err
	}
	return copyTimes(to, fi)
}

func copyXattrs(to, from string) error {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "listxattr", Path: from, Err: err}
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" || !layerAttribute(name) {
			continue
		}
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return &os.PathError{Op: "copy " + name, Path: from, Err: err}
		}
	}
	return nil
}

func copyTimes(path string, fi fs.FileInfo) error {
	t := unix.NsecToTimespec(fi.ModTime().UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}
