package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/filetree"
)

// extractor writes the entries of a layer into its directory. What a path goes
// through is resolved by the kernel inside the directory, once, and kept as a
// descriptor: files are made, changed and linked relative to those. That is what
// keeps a layer inside, and what makes it fast: a file costs an open, a stat, a
// write, its time and a close, and no walk along its path.
//
// The last one of several entries with a name counts, whatever it is; only a
// directory that comes again keeps what is in it. Nobody else writes there.
type extractor struct {
	dirs  *layerDirs
	marks *whiteouts
	times []dirTimes
	buf   []byte
}

// dirTimes are set at the end: every file that is made in a directory changes them.
type dirTimes struct {
	name  string
	times [2]unix.Timespec
}

// copySize is how much of a file is written at once.
const copySize = 256 << 10

func newExtractor(dir string, marks *whiteouts) (*extractor, error) {
	dirs, err := newLayerDirs(dir)
	if err != nil {
		return nil, err
	}
	return &extractor{dirs: dirs, marks: marks, buf: make([]byte, copySize)}, nil
}

func (x *extractor) close() { x.dirs.close() }

// run extracts what admit lets through of an archive.
func (x *extractor) run(ctx context.Context, r io.Reader, admit func(*tar.Header) (bool, error)) error {
	archive := tar.NewReader(r)
	for ctx.Err() == nil {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return x.setTimes()
		}
		if err != nil {
			return err
		}
		ok, err := admit(hdr)
		if err != nil {
			return err
		}
		if !ok || hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.entry(ctx, hdr, archive); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// entry extracts one entry; r is its content.
func (x *extractor) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	name := insideName(hdr.Name)
	if name == "" {
		return nil // the layer's directory stays what it is
	}
	parent, base := splitName(name)
	dir, err := x.dirs.make(parent)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return x.mark(hdr, dir, parent, base)
	}
	err = x.create(ctx, dir, base, hdr, r)
	if errors.Is(err, unix.EEXIST) {
		return x.replace(ctx, dir, base, hdr, r)
	}
	return err
}

// insideName is a name below the layer's directory, "" for that itself: what
// leads up ends at the top.
func insideName(name string) string { return path.Clean("/" + name)[1:] }

func splitName(name string) (parent, base string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

// mark takes note of a whiteout.
func (x *extractor) mark(hdr *tar.Header, dir int, parent, base string) error {
	if hidden := base[len(whiteoutPrefix):]; hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("invalid whiteout %q", hdr.Name)
	}
	parent, err := x.dirs.resolve(parent)
	if err != nil {
		return err
	}
	return x.marks.add(hdr, dir, parent, base)
}

// replace removes what is in an entry's place, and creates it. All descriptors are
// given up: some may be of what is gone, or were reached through a link that is.
func (x *extractor) replace(ctx context.Context, dir int, base string, hdr *tar.Header, r io.Reader) error {
	dir, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	defer unix.Close(dir)
	defer x.dirs.forget()
	if err := filetree.Remove(ctx, procEntry(dir, base)); err != nil {
		return err
	}
	x.dirs.forget()
	return x.create(ctx, dir, base, hdr, r)
}

// procEntry is a path to an entry of a directory, for calls that take no descriptor.
func procEntry(dir int, base string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir, base) }

// create makes the entry base of a directory. An error that is EEXIST says that
// something else is in its place; nothing was read then.
func (x *extractor) create(ctx context.Context, dir int, base string, hdr *tar.Header, r io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(ctx, dir, base, hdr, r)
	case tar.TypeDir:
		return x.dir(dir, base, hdr)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(hdr.Linkname, dir, base); err != nil {
			return &os.LinkError{Op: "symlink", Old: hdr.Linkname, New: hdr.Name, Err: err}
		}
	case tar.TypeLink:
		if err := x.link(dir, base, hdr); err != nil {
			return &os.LinkError{Op: "link", Old: hdr.Linkname, New: hdr.Name, Err: err}
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if hdr.Typeflag != tar.TypeFifo && userns.RunningInUserNS() {
			return nil // nobody could make it there
		}
		if err := mknod(dir, base, hdr); err != nil {
			return &os.PathError{Op: "mknod", Path: hdr.Name, Err: err}
		}
	default:
		return fmt.Errorf("%q is of a kind nobody knows: %q", hdr.Name, hdr.Typeflag)
	}
	return setEntryAttributes(dir, base, hdr)
}

// file writes a regular file.
func (x *extractor) file(ctx context.Context, dir int, base string, hdr *tar.Header, r io.Reader) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, permissions(hdr))
	if err != nil {
		return &os.PathError{Op: "create", Path: hdr.Name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // what is written is synced with all of the store
	if err := x.copy(ctx, fd, r); err != nil {
		return fmt.Errorf("write %q: %w", hdr.Name, err)
	}
	if err := setAttributes(fd, hdr); err != nil {
		return err
	}
	times := entryTimes(hdr)
	if err := unix.UtimesNanoAt(fd, "", times[:], unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "set the times of", Path: hdr.Name, Err: err}
	}
	return nil
}

func (x *extractor) copy(ctx context.Context, fd int, r io.Reader) error {
	for ctx.Err() == nil {
		n, rerr := r.Read(x.buf)
		for rest := x.buf[:n]; len(rest) > 0; {
			m, err := unix.Write(fd, rest)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			rest = rest[max(m, 0):]
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
	return context.Cause(ctx)
}

// dir makes a directory, or gives the one that is there its attributes.
func (x *extractor) dir(dir int, base string, hdr *tar.Header) error {
	err := unix.Mkdirat(dir, base, permissions(hdr))
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if serr := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); serr == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = nil
		}
	}
	if err != nil {
		return &os.PathError{Op: "mkdir", Path: hdr.Name, Err: err}
	}
	name := insideName(hdr.Name)
	own, err := x.dirs.enter(dir, base, name)
	if err != nil {
		return err
	}
	x.times = append(x.times, dirTimes{name, entryTimes(hdr)})
	return setAttributes(own, hdr)
}

// link makes a hard link to what the layer has already. The target's last part is
// not followed: a link to a link is one.
func (x *extractor) link(dir int, base string, hdr *tar.Header) error {
	parent, target := splitName(insideName(hdr.Linkname))
	from, err := x.dirs.open(parent)
	if err != nil {
		return err
	}
	if target == "" {
		return unix.EPERM // the layer's directory
	}
	return unix.Linkat(from, target, dir, base, 0)
}

// The kernel keeps 12 and 20 bits of a device's number (linux/kdev_t.h), and does
// not say when there are more.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

var errDeviceNumber = errors.New("the device number is out of range")

func mknod(dir int, base string, hdr *tar.Header) error {
	if hdr.Typeflag == tar.TypeFifo {
		return unix.Mknodat(dir, base, unix.S_IFIFO|permissions(hdr), 0)
	}
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[hdr.Typeflag]
	if min(hdr.Devmajor, hdr.Devminor) < 0 || hdr.Devmajor > maxMajor || hdr.Devminor > maxMinor {
		return errDeviceNumber
	}
	return unix.Mknodat(dir, base, kind|permissions(hdr), int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))))
}

// setTimes gives the directories their times, those that are still there.
func (x *extractor) setTimes() error {
	for _, d := range x.times {
		parent, base := splitName(d.name)
		dir, err := x.dirs.open(parent)
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
			continue // a later entry has taken its place, or that of one above it
		case err == nil:
			err = unix.UtimesNanoAt(dir, base, d.times[:], unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return &os.PathError{Op: "set the times of", Path: d.name, Err: err}
		}
	}
	return nil
}
