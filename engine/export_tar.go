package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tarWriter writes a directory tree as a tar. It walks by descriptors and
// follows no link, so that a container which changes its files meanwhile
// cannot make it read the host's.
type tarWriter struct {
	*tar.Writer
	mount uint64           // the tree's mount; what is mounted on it is left out; 0: it is not
	links map[inode]string // first names of files with several
	ids   *idMapping       // of the tree's owners on the host; nil: they are the host's
	// live: the tree is a running container's. What the kernel shows in it (proc
	// and its like) and its /dev are left out as well.
	live *liveMounts
}

// inode is a file's identity.
type inode struct {
	major, minor uint32
	number       uint64
}

// statxMask is what a header is made from.
const statxMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID

// writeTar writes everything below root, with owners as the container sees them.
func writeTar(ctx context.Context, w io.Writer, root *os.File, ids *idMapping) error {
	dir, err := openAt(root, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Statx_t
	if err := statx(dir, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return err
	}
	t := &tarWriter{Writer: tar.NewWriter(w), mount: st.Mnt_id, links: map[inode]string{}, ids: ids}
	if err := t.dir(ctx, dir, ""); err != nil {
		return err
	}
	return t.Close()
}

// dir writes the entries of an open directory by name.
func (t *tarWriter) dir(ctx context.Context, dir *os.File, name string) error {
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(entries)
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := t.entry(ctx, dir, entry, below(name, entry))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join("/", name, entry), err)
		}
	}
	return nil
}

// below is the name of a directory's entry in the archive.
func below(dir, entry string) string {
	if dir == "" {
		return entry
	}
	return strings.TrimSuffix(dir, "/") + "/" + entry
}

// entry writes one file, and with a directory what is in it.
func (t *tarWriter) entry(ctx context.Context, dir *os.File, entry, name string) error {
	f, err := openAt(dir, entry, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.file(ctx, f, name)
}

// file writes what an O_PATH descriptor holds. A device or a pipe is never
// opened: that alone may do something.
func (t *tarWriter) file(ctx context.Context, f *os.File, name string) error {
	var st unix.Statx_t
	if err := statx(f, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return err
	}
	t.ids.inside(&st)
	hdr, ok := tarHeader(name, &st)
	switch {
	case !ok:
		return nil // a socket: tar has no word for it
	case t.mount != 0 && st.Mnt_id != t.mount, hdr.Typeflag == tar.TypeDir && t.live.hides(f, &st):
		return t.mountPoint(hdr)
	case t.linked(hdr, &st):
		return t.WriteHeader(hdr)
	}
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		target, err := readlinkAt(f, "")
		if err != nil {
			return err
		}
		hdr.Linkname = target
		return t.WriteHeader(hdr)
	case tar.TypeReg:
		return t.regular(ctx, f, hdr)
	case tar.TypeDir:
		sub, err := openAt(f, ".", unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer sub.Close()
		if err := addXattrs(hdr, sub); err != nil {
			return err
		}
		if err := t.WriteHeader(hdr); err != nil {
			return err
		}
		return t.dir(ctx, sub, name)
	}
	return t.WriteHeader(hdr)
}

// mountPoint writes an empty stand-in for what is mounted at a place: the
// mount hides what the container's own file there is like.
func (t *tarWriter) mountPoint(hdr *tar.Header) error {
	stand := &tar.Header{Format: tar.FormatPAX, Name: hdr.Name, ModTime: hdr.ModTime, Typeflag: tar.TypeReg, Mode: 0o644}
	if hdr.Typeflag == tar.TypeDir {
		stand.Typeflag, stand.Mode = tar.TypeDir, 0o755
	}
	return t.WriteHeader(stand)
}

// linked turns the header of a further name of a file into a hard link.
func (t *tarWriter) linked(hdr *tar.Header, st *unix.Statx_t) bool {
	if st.Nlink < 2 || hdr.Typeflag == tar.TypeDir {
		return false
	}
	id := inode{st.Dev_major, st.Dev_minor, st.Ino}
	first, seen := t.links[id]
	if !seen {
		t.links[id] = hdr.Name
		return false
	}
	hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
	return true
}

// regular writes a file's content: as much as its size was when it was opened.
func (t *tarWriter) regular(ctx context.Context, held *os.File, hdr *tar.Header) error {
	f, err := reopen(held, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	hdr.Size = info.Size()
	if err := addXattrs(hdr, f); err != nil {
		return err
	}
	if err := t.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.Copy(t, io.LimitReader(contextReader{ctx, f}, hdr.Size))
	if err != nil || n == hdr.Size {
		return err
	}
	_, err = io.CopyN(t, zeros{}, hdr.Size-n) // it shrank while it was read
	return err
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// reopen opens the very file an O_PATH descriptor holds, by our own procfs.
func reopen(f *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// zeros reads as zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// tarTypes are the kinds of file a tar has.
var tarTypes = map[uint16]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink,
	unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock, unix.S_IFIFO: tar.TypeFifo,
}

func tarHeader(name string, st *unix.Statx_t) (*tar.Header, bool) {
	kind, ok := tarTypes[st.Mode&unix.S_IFMT]
	if kind == tar.TypeDir && !strings.HasSuffix(name, "/") {
		name += "/"
	}
	hdr := &tar.Header{
		Format: tar.FormatPAX, Name: name, Typeflag: kind, Mode: int64(st.Mode & 0o7777),
		Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
	}
	if kind == tar.TypeChar || kind == tar.TypeBlock {
		hdr.Devmajor, hdr.Devminor = int64(st.Rdev_major), int64(st.Rdev_minor)
	}
	return hdr, ok
}

// addXattrs adds the extended attributes images carry: file capabilities and
// the users' own. Overlay's and labels of the host are not the container's.
func addXattrs(hdr *tar.Header, f *os.File) error {
	names, err := listXattrs(f)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fgetxattr", Path: name, Err: err}
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
	}
	return nil
}

func listXattrs(f *os.File) ([]string, error) {
	size, err := unix.Flistxattr(int(f.Fd()), nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	if err == nil {
		size, err = unix.Flistxattr(int(f.Fd()), buf)
	}
	if err != nil {
		return nil, &os.PathError{Op: "flistxattr", Path: f.Name(), Err: err}
	}
	return strings.FieldsFunc(string(buf[:size]), func(r rune) bool { return r == 0 }), nil
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func statx(dir *os.File, name string, flags int, st *unix.Statx_t) error {
	if err := unix.Statx(int(dir.Fd()), name, flags|unix.AT_NO_AUTOMOUNT, statxMask, st); err != nil {
		return &os.PathError{Op: "statx", Path: name, Err: err}
	}
	return nil
}

func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlinkat", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}
