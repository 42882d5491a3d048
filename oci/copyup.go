package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// copyUp mounts a tmpfs that holds at first what the image has at that place
// (option tmpcopyup). The parent makes and fills it: a program does not walk
// directories.
func (c *compiler) copyUp(m *specs.Mount, o *mountOptions) error {
	if m.Type != "tmpfs" {
		return invalid("mounts: %s: tmpcopyup: is for tmpfs, not %s", m.Destination, m.Type)
	}
	if !c.in.host.sysAdmin {
		return errdefs.WithHint(unsupported("mounts: "+m.Destination+": tmpcopyup without CAP_SYS_ADMIN on the host"),
			"leave tmpcopyup out and let the container's command copy what it needs, or bind a copy of the directory")
	}
	step := fmt.Sprintf("mount tmpfs on %s", m.Destination)
	options := c.labelled(m, o.super)
	ids, err := c.idsFor(m, o)
	if err != nil {
		return err
	}
	root, dir := c.in.rootfs, c.rootPath()
	attrs := (o.set | o.rset) &^ unix.MOUNT_ATTR_RDONLY
	fs := c.inherit(inherited{name: "copy of " + m.Destination, make: func(r *Runner) (*os.File, error) {
		tmpfs, err := filledTmpfs(root, dir, m, options, attrs)
		if err != nil {
			return nil, fmt.Errorf("%s: copy what is there: %w", step, err)
		}
		if ids != nil {
			if err := mapIDs(r, tmpfs, ids, false); err != nil {
				tmpfs.Close()
				return nil, mapError(err, m.Type, m.Destination, m.Type)
			}
		}
		return tmpfs, nil
	}})
	c.placeFilesystem(step, m, o, fs)
	return nil
}

// filledTmpfs makes a detached tmpfs with a copy of what is at the mount's
// destination below the root.
func filledTmpfs(root *os.File, rootPath string, m *specs.Mount, options []string, attrs uint64) (*os.File, error) {
	if root == nil {
		var err error
		if root, err = os.OpenFile(rootPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
		defer root.Close()
	}
	fd, err := newMount("tmpfs", m.Source, options, attrs)
	if err != nil {
		return nil, err
	}
	tmpfs := os.NewFile(uintptr(fd), "tmpfs")
	if err := copyInto(tmpfs, root, m, options); err != nil {
		tmpfs.Close()
		return nil, err
	}
	return tmpfs, nil
}

func copyInto(tmpfs, root *os.File, m *specs.Mount, options []string) error {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolveFor(m)}
	from, err := unix.Openat2(int(root.Fd()), relative(m.Destination), &how)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(from), m.Destination)
	defer source.Close()
	to, err := unix.Openat(int(tmpfs.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(to), m.Destination)
	defer target.Close()
	if err := copyDirectory(source, target); err != nil {
		return err
	}
	// The directory itself is as in the image, but for what the options say.
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	uid, gid, mode := int(st.Uid), int(st.Gid), true
	for _, o := range options {
		switch key, _, _ := strings.Cut(o, "="); key {
		case "uid":
			uid = -1
		case "gid":
			gid = -1
		case "mode":
			mode = false
		}
	}
	if err := unix.Fchown(to, uid, gid); err != nil || !mode {
		return err
	}
	return unix.Fchmod(to, st.Mode&0o7777)
}

// copyDirectory copies the entries of one directory into another, each by its
// name below a held directory: no link is followed.
func copyDirectory(from, to *os.File) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(int(from.Fd()), int(to.Fd()), name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// copyEntry copies a file, link, node or directory with its owner, mode and
// times.
func copyEntry(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copySubdirectory(from, to, name)
	case unix.S_IFREG:
		err = copyFile(from, to, name)
	case unix.S_IFLNK:
		err = copyLink(from, to, name)
	default:
		err = unix.Mknodat(to, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	}
	if err == nil {
		err = unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.Fchmodat(to, name, st.Mode&0o7777, 0)
	}
	if err == nil {
		err = unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

func copySubdirectory(from, to int, name string) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	return withBoth(from, to, name, flags, flags, copyDirectory)
}

func copyFile(from, to int, name string) error {
	// Looked at before it is opened for reading: another container of the same
	// image could have put a device there.
	return withBoth(from, to, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		func(held, out *os.File) error {
			if st, err := held.Stat(); err != nil || !st.Mode().IsRegular() {
				return errors.Join(err, errors.New("is no regular file any more"))
			}
			in, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", held.Fd()))
			if err != nil {
				return err
			}
			defer in.Close()
			_, err = io.Copy(out, in)
			return err
		})
}

func withBoth(from, to int, name string, inFlags, outFlags int, act func(in, out *os.File) error) error {
	in, err := unix.Openat(from, name, inFlags, 0)
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(in), name)
	defer source.Close()
	out, err := unix.Openat(to, name, outFlags, 0o600)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(out), name)
	defer target.Close()
	return act(source, target)
}

func copyLink(from, to int, name string) error {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, name, b)
	if err != nil {
		return err
	}
	return unix.Symlinkat(string(b[:n]), to, name)
}
