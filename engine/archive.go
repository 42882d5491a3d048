package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/image"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// ExtractOptions says how an archive is unpacked into a container.
type ExtractOptions struct {
	// NoOverwriteDirNonDir refuses to replace a directory by something else, or
	// something else by a directory.
	NoOverwriteDirNonDir bool
	// CopyUIDGID gives the files to the container's user, if it has one.
	CopyUIDGID bool
}

// ContainerArchive describes the file at name in a container and writes it, with
// a directory all that is in it, as a tar to what begin returns. begin is called
// once the file is held; it returns nil for those who want the description alone. A
// link at the end of name is what is described, not where it leads, unless a slash
// follows.
//
// All of it works on descriptors opened below the container's root: whatever the
// container changes meanwhile, nothing outside of it is read.
func (e *Engine) ContainerArchive(ctx context.Context, ref, name string, begin func(container.PathStat) (io.Writer, error)) error {
	var out outlet
	defer out.close()
	return unlessHeld(ctx, func() error {
		return e.archive(ctx, ref, name, func(stat container.PathStat) (io.Writer, error) {
			return out.open(func() (io.Writer, error) { return begin(stat) })
		})
	})
}

// archive does it.
func (e *Engine) archive(ctx context.Context, ref, name string, begin func(container.PathStat) (io.Writer, error)) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	root, ids, done, err := e.openFiles(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	abs := containerPath(name)
	opened := awaitsText(ctx, time.Time{}, "the file system of "+abs)
	f, err := openInRoot(root, insideRoot(abs), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return errContainerFile(c.id, name, err)
	}
	defer f.Close()
	stat, err := pathStat(root, f, abs)
	opened()
	if err != nil {
		return errContainerFile(c.id, name, err)
	}
	w, err := begin(stat)
	if err != nil || w == nil {
		return err
	}
	t := &tarWriter{Writer: tar.NewWriter(w), links: map[inode]string{}, live: newLiveMounts(root), ids: ids}
	err = t.file(ctx, f, path.Base(abs))
	if err == nil {
		err = t.Close()
	}
	if err != nil {
		return fmt.Errorf("copy %s from container %s: %w", name, short(c.id), err)
	}
	e.emitContainer(c.snapshot(), events.ActionArchivePath, nil)
	return nil
}

// liveMounts are what a container's mounts hold that is no file of anybody: a
// copy of / that took them along would be of no use, and not end.
type liveMounts struct {
	root uint64 // the root's mount
	dev  inode  // /dev, when something is mounted there
}

func newLiveMounts(root *os.File) *liveMounts {
	l := &liveMounts{}
	var st unix.Statx_t
	if statx(root, "", unix.AT_EMPTY_PATH, &st) == nil {
		l.root = st.Mnt_id
	}
	if dev, err := openInRoot(root, "dev", unix.O_PATH|unix.O_NOFOLLOW); err == nil {
		if statx(dev, "", unix.AT_EMPTY_PATH, &st) == nil && st.Mnt_id != l.root {
			l.dev = inode{st.Dev_major, st.Dev_minor, st.Ino}
		}
		dev.Close()
	}
	return l
}

// kernelFilesystems show what is not on any disk.
var kernelFilesystems = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true,
	unix.BPF_FS_MAGIC: true, mqueueMagic: true,
}

// mqueueMagic is the kernel's MQUEUE_MAGIC (ipc/mqueue.c).
const mqueueMagic = 0x19800202

// hides says whether a directory is left out.
func (l *liveMounts) hides(f *os.File, st *unix.Statx_t) bool {
	if l == nil || st.Mnt_id == l.root {
		return false
	}
	var fs unix.Statfs_t
	return l.dev == inode{st.Dev_major, st.Dev_minor, st.Ino} ||
		unix.Fstatfs(int(f.Fd()), &fs) == nil && kernelFilesystems[int64(fs.Type)]
}

// containerPath makes a path absolute. A slash, or a slash and a dot, at its end
// stay: they mean the directory rather than the link.
func containerPath(name string) string {
	abs := path.Join("/", name)
	switch {
	case abs == "/":
	case strings.HasSuffix(name, "/.") || name == ".":
		abs += "/."
	case strings.HasSuffix(name, "/"):
		abs += "/"
	}
	return abs
}

// insideRoot is an absolute path as openInRoot takes it.
func insideRoot(abs string) string {
	if rel := strings.TrimPrefix(abs, "/"); rel != "" {
		return rel
	}
	return "."
}

func pathStat(root, f *os.File, abs string) (container.PathStat, error) {
	info, err := f.Stat()
	if err != nil {
		return container.PathStat{}, err
	}
	st := container.PathStat{Name: path.Base(abs), Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime()}
	if info.Mode()&os.ModeSymlink != 0 {
		st.LinkTarget = linkEnd(root, abs)
	}
	return st, nil
}

// maxLinks is how many links a path may have (path_resolution(7)).
const maxLinks = 40

// linkEnd follows all links of a path in the container, as far as there is
// something, and returns where that leads. It is for people and clients to read:
// nothing is opened by it.
func linkEnd(root *os.File, abs string) string {
	at, rest := "/", strings.Split(strings.Trim(abs, "/"), "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		next := path.Join(at, part) // also for "..": at has no link in it
		target := ""
		if f, err := openInRoot(root, insideRoot(next), unix.O_PATH|unix.O_NOFOLLOW); err == nil {
			target, _ = readlinkAt(f, "") // fails for what is no link
			f.Close()
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return abs
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
	}
	return at
}

// errContainerFile says which file of which container.
func errContainerFile(id, name string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errdefs.As(errdefs.ErrNotFound, fmt.Errorf("could not find the file %s in container %s", name, short(id)))
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("file %s in container %s: %w", name, short(id), err))
	}
	return fmt.Errorf("file %s in container %s: %w", name, short(id), err)
}

// ContainerExtract unpacks a tar, compressed or not, into a directory of a
// container. What is mounted read-only, or a container's root that is, is an
// ErrPermission; nothing is unpacked then.
func (e *Engine) ContainerExtract(ctx context.Context, ref, name string, r io.Reader, opt ExtractOptions) error {
	return unlessHeld(ctx, func() error { return e.extract(ctx, ref, name, r, opt) })
}

// extract does it.
func (e *Engine) extract(ctx context.Context, ref, name string, r io.Reader, opt ExtractOptions) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	root, ids, done, err := e.openFiles(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	abs := containerPath(name)
	opened := awaitsText(ctx, time.Time{}, "the file system of "+abs)
	dest, err := openInRoot(root, insideRoot(abs), unix.O_PATH|unix.O_DIRECTORY)
	opened()
	if errors.Is(err, unix.ENOTDIR) {
		return invalidf("extraction point is not a directory: %s", name)
	}
	if err != nil {
		return errContainerFile(c.id, name, err)
	}
	defer dest.Close()
	if err := checkWritable(root, dest); err != nil {
		return err
	}
	x := &extractor{root: root, dest: dest, abs: path.Clean(abs), noOverwrite: opt.NoOverwriteDirNonDir, mapped: ids}
	defer x.close()
	if user := c.snapshot().Config.User; opt.CopyUIDGID && user != "" {
		u, err := resolveUser(root, user, nil)
		if err != nil {
			return err
		}
		x.owner = &[2]int{int(u.UID), int(u.GID)}
	}
	plain, err := image.Decompress(r)
	if err != nil {
		return invalidf("read archive: %w", err)
	}
	defer plain.Close()
	if err := asRootOf(ids, func() error { return x.all(ctx, tar.NewReader(plain)) }); err != nil {
		return fmt.Errorf("copy to %s in container %s: %w", name, short(c.id), err)
	}
	fault.Here(fault.CopyDone)
	e.emitContainer(c.snapshot(), events.ActionExtractToDir, nil)
	return nil
}

// checkWritable refuses what is mounted read-only before anything is read.
func checkWritable(root, dest *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dest.Fd()), &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	var a, b unix.Statx_t
	if err := errors.Join(statx(root, "", unix.AT_EMPTY_PATH, &a), statx(dest, "", unix.AT_EMPTY_PATH, &b)); err != nil {
		return err
	}
	what := "container rootfs is marked read-only"
	if a.Mnt_id != b.Mnt_id {
		what = "mounted volume is marked read-only"
	}
	return errdefs.As(errdefs.ErrPermission, errors.New(what))
}
