package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// branch is the group's directory in one hierarchy.
//
// Files of a v1 branch are opened by path, those of a v2 branch through the
// handle. A path is safe here: a cgroup filesystem has no symbolic links, and
// only the host's root can mount over or rename what leads to it.
type branch struct {
	hierarchy
	dir    string
	handle *os.File // O_PATH, nil on v1 and before the directory is made
}

// open opens a control file of the branch. The error is a bare errno. After
// [Group.Close] it goes by path.
func (b *branch) open(file string, flags int) (fd int, err error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if b.handle != nil {
		fd, err := -1, error(nil)
		used := b.withHandle(func(dir int) {
			fd, err = retryEINTR(func() (int, error) { return unix.Openat(dir, file, flags, 0) })
		})
		if used {
			return fd, err
		}
	}
	return retryEINTR(func() (int, error) { return unix.Open(b.dir+"/"+file, flags, 0) })
}

// withHandle calls f unless the handle is closed, and keeps it open meanwhile.
func (b *branch) withHandle(f func(dir int)) bool {
	raw, err := b.handle.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Control(func(dir uintptr) { f(int(dir)) }) == nil
}

// read returns the content of a control file.
func (b *branch) read(file string) (string, error) {
	fd, err := b.open(file, unix.O_RDONLY)
	if err != nil {
		return "", b.fail("read", file, err)
	}
	defer unix.Close(fd)
	s, err := readAll(fd)
	if err != nil {
		return "", b.fail("read", file, err)
	}
	return s, nil
}

// readPath returns the content of a file of /proc. It keeps clear of os.File,
// whose first use sets up the network poller.
func readPath(name string) (string, error) {
	fd, err := retryEINTR(func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	s, err := readAll(fd)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return s, nil
}

// readAll reads a kernfs file, which may come in several pieces, from its start.
func readAll(fd int) (string, error) {
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := retryEINTR(func() (int, error) {
			return unix.Pread(fd, buf[len(buf):cap(buf)], int64(len(buf)))
		})
		if err != nil {
			return "", err
		}
		if n == 0 {
			return string(buf), nil
		}
		buf = buf[:len(buf)+n]
	}
}

// write writes a value to a control file in one write(2).
func (b *branch) write(file, value string) error {
	fd, err := b.open(file, unix.O_WRONLY)
	if err != nil {
		return b.fail("open", file, err)
	}
	defer unix.Close(fd)
	if _, err := retryEINTR(func() (int, error) { return unix.Write(fd, []byte(value)) }); err != nil {
		return fmt.Errorf("set %s of cgroup %s to %q: %w", file, b.dir, value, err)
	}
	return nil
}

// readUint reads a file with one number; "max" and v1's -1 are all ones.
func (b *branch) readUint(file string) (uint64, error) {
	s, err := b.read(file)
	if err != nil {
		return 0, err
	}
	n, err := parseUint(strings.TrimSpace(s))
	if err != nil {
		return 0, b.fail("read", file, err)
	}
	return n, nil
}

// readKey reads one number of a file with "KEY NUMBER" lines; ok tells whether
// the key is there.
func (b *branch) readKey(file, key string) (n uint64, ok bool, err error) {
	s, err := b.read(file)
	if err != nil {
		return 0, false, err
	}
	n, ok = keyed(s, key)
	return n, ok, nil
}

func (b *branch) fail(verb, file string, err error) error {
	return fmt.Errorf("%s %s of cgroup %s: %w", verb, file, b.dir, err)
}

// Unlimited is how a limit that is not set reads in [Stats].
const Unlimited = ^uint64(0)

func parseUint(s string) (uint64, error) {
	if s == "max" || s == "-1" {
		return Unlimited, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// keyed finds the number after key in "KEY NUMBER" lines.
func keyed(s, key string) (uint64, bool) {
	for line := range strings.Lines(s) {
		if rest, ok := strings.CutPrefix(line, key); ok && rest != "" && rest[0] == ' ' {
			n, err := parseUint(strings.TrimSpace(rest))
			return n, err == nil
		}
	}
	return 0, false
}

// gone tells whether err says that the cgroup is not there (any more): opening
// finds no name, reading an open file finds no device.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// isUnsupported tells whether the kernel has the file but not what it is for.
func isUnsupported(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }

func retryEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// classify gives the kernel's answer to an act on a cgroup its class.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return errdefs.WithHint(errdefs.As(errdefs.ErrPermission, err),
			"Run as root, or in a delegated cgroup that the user may write to.")
	case errors.Is(err, unix.EBUSY):
		return errdefs.As(errdefs.ErrConflict, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return errdefs.As(errdefs.ErrInvalid, err)
	case gone(err):
		return errdefs.As(errdefs.ErrNotFound, err)
	}
	return err
}
