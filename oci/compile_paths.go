package oci

import (
	"encoding/binary"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// Everything below the container's root is reached by a descriptor that one
// openat2 resolved under that root; symbolic links the image brought cannot
// lead out of it (RESOLVE_IN_ROOT), nor can /proc's magic ones.

var (
	atCwd     = p.Flag(uint64(0xffffffffffffff9c), "AT_FDCWD")
	emptyPath = p.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")
	// a mount onto what a descriptor holds
	moveFlags = p.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, "F_EMPTY_PATH|T_EMPTY_PATH")
)

const (
	inRoot  = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	noLinks = inRoot | unix.RESOLVE_NO_SYMLINKS
)

// open resolves rel under the container's root. EAGAIN means that a rename or
// mount somewhere on the host met our "..": try again.
func (c *compiler) open(step string, at p.Arg, rel string, flags, resolve uint64) *p.Op {
	how := make([]byte, 24)
	binary.LittleEndian.PutUint64(how[0:], flags|unix.O_CLOEXEC)
	binary.LittleEndian.PutUint64(how[16:], resolve)
	return c.Call(step, p.Openat2, at, c.Str(rel), c.Data(how, "{"+openText(flags, resolve)+"}"), p.Int(len(how))).Retry(unix.EAGAIN)
}

func openText(flags, resolve uint64) string {
	s := []string{}
	for _, f := range []struct {
		bit  uint64
		name string
	}{{unix.O_PATH, "O_PATH"}, {unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_RDWR, "O_RDWR"}, {unix.O_WRONLY, "O_WRONLY"}} {
		if flags&f.bit == f.bit {
			s = append(s, f.name)
		}
	}
	if resolve&unix.RESOLVE_IN_ROOT != 0 {
		s = append(s, "IN_ROOT")
	}
	if resolve&unix.RESOLVE_BENEATH != 0 {
		s = append(s, "BENEATH")
	}
	if resolve&unix.RESOLVE_NO_SYMLINKS != 0 {
		s = append(s, "NO_SYMLINKS")
	}
	if resolve&unix.RESOLVE_NO_MAGICLINKS != 0 && resolve&unix.RESOLVE_IN_ROOT == 0 {
		s = append(s, "NO_MAGICLINKS")
	}
	if resolve&unix.RESOLVE_NO_XDEV != 0 {
		s = append(s, "NO_XDEV")
	}
	return strings.Join(s, "|")
}

// relative is a container path without its leading slash, cleaned; "" is the
// root itself.
func relative(dest string) string { return strings.TrimPrefix(path.Clean("/"+dest), "/") }

// nodeKind says what is made where a mount point is missing.
type nodeKind int

const (
	directory nodeKind = iota
	regularFile
)

// target opens the place dest in the container for mounting on it, and makes
// what is missing of the path: one call when it exists.
func (c *compiler) target(step, dest string, kind nodeKind, resolve uint64) p.Arg {
	rel := relative(dest)
	if rel == "" {
		return c.root
	}
	t := c.Slot("target")
	done := c.NewLabel()
	c.open(step, c.root, rel, unix.O_PATH, resolve).Store(t).Then(done).Tolerate(unix.ENOENT)
	parts := strings.Split(rel, "/")
	parent := c.root
	for i, part := range parts {
		prefix := strings.Join(parts[:i+1], "/")
		here := t
		if i < len(parts)-1 {
			here = c.Slot("parent")
		}
		have := c.NewLabel()
		c.open(step, c.root, prefix, unix.O_PATH, resolve).Store(here).Then(have).Tolerate(unix.ENOENT)
		// A single name below a held directory: no link is followed here. Where
		// one dangles, this says EEXIST and the next open fails.
		if i == len(parts)-1 && kind == regularFile {
			c.Call(step, p.Mknodat, parent, c.Str(part), p.Flag(unix.S_IFREG|0o644, "S_IFREG|0644"), p.Int(0)).Tolerate(unix.EEXIST)
		} else {
			c.Call(step, p.Mkdirat, parent, c.Str(part), p.Flag(0o755, "0755")).Tolerate(unix.EEXIST)
		}
		c.open(step, c.root, prefix, unix.O_PATH, resolve).Store(here)
		c.Mark(have)
		parent = here
	}
	c.Mark(done)
	return t
}

// attach puts a detached mount onto what target holds.
func (c *compiler) attach(step string, mount, target p.Arg) *p.Op {
	return c.Call(step, p.MoveMount, mount, c.Str(""), target, c.Str(""), moveFlags)
}

// clone makes a detached copy of the mount at (dir, path), as bind mounts do.
func (c *compiler) clone(step string, dir p.Arg, name string, recursive bool, flags uint64, into p.Arg) *p.Op {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	text := "CLONE"
	if recursive {
		flags |= unix.AT_RECURSIVE
		text += "|RECURSIVE"
	}
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		text += "|NOFOLLOW"
	}
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return c.Call(step, p.OpenTree, dir, c.Str(name), p.Flag(flags, text)).Store(into)
}

// setAttr changes a mount's attributes and propagation.
func (c *compiler) setAttr(step string, mount p.Arg, recursive bool, set, clr, propagation uint64) *p.Op {
	text := attrText(set)
	if clr != 0 {
		text += " clear " + attrText(clr)
	}
	if propagation != 0 {
		text += " " + propagationText(propagation)
	}
	flags := emptyPath
	if recursive {
		flags = p.Flag(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "AT_EMPTY_PATH|AT_RECURSIVE")
	}
	attr := mountAttr(set, clr, propagation)
	return c.Call(step, p.MountSetattr, mount, c.Str(""), flags, c.Data(attr, "{"+text+"}"), p.Int(len(attr)))
}

func propagationText(v uint64) string {
	switch v {
	case unix.MS_SHARED:
		return "shared"
	case unix.MS_SLAVE:
		return "slave"
	case unix.MS_PRIVATE:
		return "private"
	}
	return "unbindable"
}
