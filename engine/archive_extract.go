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
	"golang.org/x/sys/unix"
)

// extractor unpacks a tar below an open directory of a container. Each entry's
// directory is opened by one openat2(2) that cannot leave the container, and what
// is made is made by the descriptor of that directory, without following a link:
// a container that swaps directories for links meanwhile moves its own files
// about, nothing else.
type extractor struct {
	root, dest *os.File
	abs        string // dest's path in the container
	// noOverwrite: see ExtractOptions.
	noOverwrite bool
	// mapped are the container's ids on the host, where files show those; nil: they
	// show the container's.
	mapped *idMapping
	// owner is whose the files become; nil: the archive's word.
	owner *[2]int

	// parent is the directory of the last entry, for the next one.
	parent     *os.File
	parentName string
	// dirs are the directories made, whose times are set at the end.
	dirs []madeDir
}

// madeDir is a directory whose time is to be set.
type madeDir struct {
	name string
	id   inode
	hdr  *tar.Header
}

func (x *extractor) close() {
	if x.parent != nil {
		x.parent.Close()
	}
}

// all unpacks the whole archive.
func (x *extractor) all(ctx context.Context, r *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return invalidf("read archive: %w", err)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.entry(ctx, hdr, r); err != nil {
			return x.explain(err)
		}
	}
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.setDirTime(&x.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

// explain gives errors of the kernel their class.
func (x *extractor) explain(err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return errdefs.As(errdefs.ErrPermission, err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	return explainFullDisk(err, x.abs+" in the container")
}

// insideName is an entry's name below the destination.
func insideName(name string) (string, error) {
	clean := path.Clean(name)
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0) {
		return "", invalidf("archive entry %q leads out of the destination", name)
	}
	return insideRoot(path.Clean("/" + clean)), nil
}

// entry unpacks one entry.
func (x *extractor) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	name, err := insideName(hdr.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil // the destination stays what it is
	}
	parent, err := x.open(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	there, err := x.makeRoom(parent, base, hdr)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeDir {
		return x.dir(parent, base, name, hdr, there)
	}
	err = x.leaf(ctx, parent, base, hdr, r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// open opens a directory below the destination, making what is missing.
func (x *extractor) open(name string) (*os.File, error) {
	if name == "." {
		return x.dest, nil
	}
	if x.parent != nil && x.parentName == name {
		return x.parent, nil
	}
	dir, err := x.resolve(name)
	if errors.Is(err, os.ErrNotExist) {
		above, aerr := x.open(path.Dir(name))
		if aerr != nil {
			return nil, aerr
		}
		if err := unix.Mkdirat(int(above.Fd()), path.Base(name), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
		dir, err = openAt(above, path.Base(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	}
	if err != nil {
		return nil, err
	}
	x.close()
	x.parent, x.parentName = dir, name
	return dir, nil
}

// resolve opens an existing directory: below the one held; where a link leads out
// of that, below the container's root.
func (x *extractor) resolve(name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(x.dest.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EXDEV):
			return openInRoot(x.root, insideRoot(path.Join(x.abs, name)), unix.O_PATH|unix.O_DIRECTORY)
		default:
			return nil, &os.PathError{Op: "openat2", Path: name, Err: err}
		}
	}
}

// makeRoom removes what is in the entry's place, but a directory that stays one: then
// it returns true. A file that another one replaces is there until that is whole.
func (x *extractor) makeRoom(parent *os.File, base string, hdr *tar.Header) (stays bool, err error) {
	var st unix.Statx_t
	err = statx(parent, base, unix.AT_SYMLINK_NOFOLLOW, &st)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir, wantDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, hdr.Typeflag == tar.TypeDir
	switch {
	case isDir && wantDir:
		return true, nil
	case x.noOverwrite && isDir:
		return false, invalidf("cannot overwrite directory %q with non-directory %q", hdr.Name, x.abs)
	case x.noOverwrite && wantDir:
		return false, invalidf("cannot overwrite non-directory %q with directory %q", hdr.Name, x.abs)
	}
	if !isDir && hdr.Typeflag == tar.TypeReg {
		return false, nil
	}
	return false, removeAt(parent, base)
}

// removeAt removes a file, or a directory with all in it, by descriptors.
func removeAt(parent *os.File, base string) error {
	err := unix.Unlinkat(int(parent.Fd()), base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &os.PathError{Op: "unlink", Path: base, Err: err}
	}
	dir, err := openAt(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAt(dir, name); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(int(parent.Fd()), base, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: base, Err: err}
	}
	return nil
}

// dir makes a directory, or gives one that is there the entry's attributes.
func (x *extractor) dir(parent *os.File, base, name string, hdr *tar.Header, there bool) error {
	if !there {
		if err := unix.Mkdirat(int(parent.Fd()), base, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
	}
	d, err := openAt(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer d.Close()
	var st unix.Statx_t
	if err := statx(d, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return err
	}
	x.dirs = append(x.dirs, madeDir{name, inode{st.Dev_major, st.Dev_minor, st.Ino}, hdr})
	return x.attributes(d, hdr)
}

// setDirTime sets a directory's time when all in it is made, if it is still the
// same.
func (x *extractor) setDirTime(made *madeDir) error {
	d, err := x.resolve(made.name)
	if err != nil {
		return nil // moved away by the container
	}
	defer d.Close()
	var st unix.Statx_t
	if statx(d, "", unix.AT_EMPTY_PATH, &st) != nil || made.id != (inode{st.Dev_major, st.Dev_minor, st.Ino}) {
		return nil
	}
	return setTimes(d, "", made.hdr)
}

// leaf makes what is no directory.
func (x *extractor) leaf(ctx context.Context, parent *os.File, base string, hdr *tar.Header, r io.Reader) error {
	at := int(parent.Fd())
	switch hdr.Typeflag {
	case tar.TypeReg:
		return x.regular(ctx, parent, base, hdr, r)
	case tar.TypeLink:
		return x.link(parent, base, hdr)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(hdr.Linkname, at, base); err != nil {
			return os.NewSyscallError("symlinkat", err)
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
		dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if err := unix.Mknodat(at, base, kind|0o600, int(dev)); err != nil {
			return os.NewSyscallError("mknodat", err)
		}
	default:
		return invalidf("unhandled tar header type %q", hdr.Typeflag)
	}
	made, err := openAt(parent, base, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer made.Close()
	return x.pathAttributes(made, hdr)
}

// regular makes a file. It has no name before it is whole (O_TMPFILE): a full disk, or
// an end of this process, leaves what was there. Where the file system cannot do that
// what was there goes first.
func (x *extractor) regular(ctx context.Context, parent *os.File, base string, hdr *tar.Header, r io.Reader) error {
	fd, err := unix.Openat(int(parent.Fd()), ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		return x.regularInPlace(ctx, parent, base, hdr, r)
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: base, Err: err}
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if err := x.fill(ctx, f, hdr, r); err != nil {
		return err
	}
	fault.Here(fault.CopyWritten)
	return giveName(f, parent, base)
}

func (x *extractor) regularInPlace(ctx context.Context, parent *os.File, base string, hdr *tar.Header, r io.Reader) error {
	if err := removeAt(parent, base); err != nil {
		return err
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: base, Err: err}
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if err := x.fill(ctx, f, hdr, r); err != nil {
		return errors.Join(err, removeAt(parent, base)) // half a file is none
	}
	return nil
}

// fill gives a new file its content and attributes.
func (x *extractor) fill(ctx context.Context, f *os.File, hdr *tar.Header, r io.Reader) error {
	if _, err := io.Copy(f, contextReader{ctx, r}); err != nil {
		return err
	}
	if err := x.attributes(f, hdr); err != nil {
		return err
	}
	return setTimes(f, "", hdr)
}

// giveName gives a file without a name one, which may be another file's.
func giveName(f, parent *os.File, base string) error {
	dir := int(parent.Fd())
	err := unix.Linkat(int(f.Fd()), "", dir, base, unix.AT_EMPTY_PATH)
	if !errors.Is(err, unix.EEXIST) {
		return nameError(base, err)
	}
	temporary := ".berth-copy-" + short(newID())
	if err := unix.Linkat(int(f.Fd()), "", dir, temporary, unix.AT_EMPTY_PATH); err != nil {
		return nameError(base, err)
	}
	if err := unix.Renameat(dir, temporary, dir, base); err != nil {
		return errors.Join(nameError(base, err), removeAt(parent, temporary))
	}
	return nil
}

func nameError(base string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: "name", Path: base, Err: err}
}

// link makes a further name of a file of the archive, or of one below the
// destination.
func (x *extractor) link(parent *os.File, base string, hdr *tar.Header) error {
	target, err := insideName(hdr.Linkname)
	if err != nil {
		return err
	}
	dir := x.dest
	if above := path.Dir(target); above != "." {
		if dir, err = x.resolve(above); err != nil {
			return err
		}
		defer dir.Close()
	}
	// Not followed: a link to a link is a name of the link.
	if err := unix.Linkat(int(dir.Fd()), path.Base(target), int(parent.Fd()), base, 0); err != nil {
		return &os.LinkError{Op: "link", Old: target, New: base, Err: err}
	}
	return nil
}

// ids are a file's owner and group as they are set.
func (x *extractor) ids(hdr *tar.Header) (uid, gid int, err error) {
	uid, gid = hdr.Uid, hdr.Gid
	if x.owner != nil {
		uid, gid = x.owner[0], x.owner[1]
	}
	return x.mapped.outside(uid, gid)
}

// attributes sets owner, mode and extended attributes of an open file or
// directory: the owner first, which clears set-user-id bits and capabilities.
func (x *extractor) attributes(f *os.File, hdr *tar.Header) error {
	uid, gid, err := x.ids(hdr)
	if err != nil {
		return err
	}
	if err := unix.Fchown(int(f.Fd()), uid, gid); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	if err := unix.Fchmod(int(f.Fd()), uint32(hdr.Mode)&0o7777); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue // the host's, or overlayfs' own
		}
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return &os.PathError{Op: "fsetxattr", Path: name, Err: err}
		}
	}
	return nil
}

// pathAttributes sets owner, mode and times of what must not be opened.
func (x *extractor) pathAttributes(f *os.File, hdr *tar.Header) error {
	uid, gid, err := x.ids(hdr)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if hdr.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(self, uint32(hdr.Mode)&0o7777); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	return setTimes(f, "", hdr)
}

// setTimes sets the times of a file by its descriptor.
func setTimes(f *os.File, name string, hdr *tar.Header) error {
	accessed := hdr.AccessTime
	if accessed.IsZero() || accessed.Before(time.Unix(0, 0)) {
		accessed = hdr.ModTime
	}
	times := []unix.Timespec{unix.NsecToTimespec(accessed.UnixNano()), unix.NsecToTimespec(hdr.ModTime.UnixNano())}
	err := unix.UtimesNanoAt(int(f.Fd()), name, times, unix.AT_EMPTY_PATH)
	return os.NewSyscallError("utimensat", err)
}
