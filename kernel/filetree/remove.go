// Package filetree removes directory trees that somebody else has made, and may
// still be using: a container's files.
package filetree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// levels is how deep a tree is walked. What lies deeper is moved up first,
	// so that neither the descriptors nor the stack grow with a tree's depth:
	// a container can make one of any.
	levels = 32
	// batch is how many bytes of a directory's entries are read at once.
	batch = 32 << 10
	// tries bounds how often one entry is freed of what keeps it: mounts may lie
	// on one another.
	tries = 64
)

// Remove removes path and all below it, as [os.RemoveAll] does, with these
// differences: it goes into no other mount, wherever one lies in the tree, but
// detaches it, so that what somebody has mounted there stays whole; files and
// directories marked immutable or append-only (chattr(1)) go too; a tree of any
// depth needs the same few descriptors; and it ends soon after ctx. What cannot
// be removed is named by the error, and the rest is removed all the same.
// A path that is not there is no error.
func Remove(ctx context.Context, path string) error {
	dir, name := filepath.Split(filepath.Clean(path))
	if dir == "" {
		dir = "."
	}
	parent, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(parent)
	r := &remover{ctx: ctx}
	return r.entry(parent, name, 0)
}

// remover is one removal.
type remover struct {
	ctx context.Context
	// top is the tree's own directory, where what lies too deep is moved to.
	top   int
	moved int
}

// entry removes an entry of the directory parent, whatever it is.
func (r *remover) entry(parent int, name string, level int) error {
	for range tries {
		err := unix.Unlinkat(parent, name, 0)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EISDIR):
			return r.directory(parent, name, level)
		}
		if !free(parent, name, err) {
			return pathError("unlink", parent, name, err)
		}
	}
	return pathError("unlink", parent, name, unix.EBUSY)
}

// directory removes a directory with all that is in it.
func (r *remover) directory(parent int, name string, level int) error {
	if level == levels {
		return r.moveUp(parent, name)
	}
	for range tries {
		fd, err := openDirectory(parent, name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if errors.Is(err, unix.EXDEV) && detach(parent, name) {
			continue // what was hidden below the mount is ours
		}
		if err != nil {
			return pathError("open", parent, name, err)
		}
		err = r.contents(fd, level)
		unix.Close(fd)
		if err != nil {
			return err
		}
		err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.ENOTEMPTY): // somebody is at work there
		case !free(parent, name, err):
			return pathError("rmdir", parent, name, err)
		}
	}
	return pathError("rmdir", parent, name, unix.ENOTEMPTY)
}

// moveUp puts a directory that lies too deep into the top one, whose contents
// are gone through until there are none.
func (r *remover) moveUp(parent int, name string) error {
	for range tries {
		r.moved++
		to := ".berth-deep-" + strconv.Itoa(r.moved)
		err := unix.Renameat2(parent, name, r.top, to, unix.RENAME_NOREPLACE)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EEXIST):
			continue // somebody has called his so
		case !free(parent, name, err):
			return pathError("rename", parent, name, err)
		}
	}
	return pathError("rename", parent, name, unix.EBUSY)
}

// contents empties the directory fd. It is read again until it is empty:
// entries may be moved into it meanwhile.
func (r *remover) contents(fd, level int) error {
	if level == 0 {
		r.top = fd
	}
	for {
		n, err := r.pass(fd, level)
		if err != nil || n == 0 {
			return err
		}
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return os.NewSyscallError("lseek", err)
		}
	}
}

// pass goes through a directory's entries once and says how many there were.
func (r *remover) pass(fd, level int) (entries int, err error) {
	buf := make([]byte, batch)
	var errs []error
	for {
		if err := context.Cause(r.ctx); err != nil {
			return entries, err
		}
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return entries, os.NewSyscallError("getdents64", err)
		}
		if n == 0 {
			return entries, errors.Join(errs...)
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		entries += len(names)
		for _, name := range names {
			if err := r.entry(fd, name, level+1); err != nil && len(errs) < 8 {
				errs = append(errs, err)
			}
			if r.ctx.Err() != nil {
				return entries, context.Cause(r.ctx)
			}
		}
	}
}

// openDirectory opens a directory of the same mount: EXDEV is another's.
func openDirectory(parent int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(parent, name, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// free does away with what made an entry's removal fail, and says whether there
// was something: a mount on it, or a mark on it or on its directory.
func free(parent int, name string, cause error) bool {
	switch {
	case errors.Is(cause, unix.EBUSY):
		return detach(parent, name)
	case errors.Is(cause, unix.EPERM):
		if unmark(parent) {
			return true
		}
		// Not to be held up by a fifo or a device, nor to follow a link.
		fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		return unmark(fd)
	}
	return false
}

// detach takes the uppermost mount off an entry (umount2(2), MNT_DETACH): who
// has something open there goes on using it.
func detach(parent int, name string) bool {
	at := fmt.Sprintf("/proc/self/fd/%d/%s", parent, name)
	return unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil
}

// The marks of linux/fs.h that keep a file from being removed.
const marks = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL

// unmark removes them, and says whether there were any.
func unmark(fd int) bool {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&marks == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^marks) == nil
}

// pathError names an entry in full.
func pathError(op string, parent int, name string, err error) error {
	buf := make([]byte, unix.PathMax)
	if n, rerr := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", parent), buf); rerr == nil {
		name = filepath.Join(string(bytes.Clone(buf[:n])), name)
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}
