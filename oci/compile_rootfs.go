package oci

import (
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// rootFilesystem attaches the container's root and mounts everything in it.
// All of this happens in the container's own mount namespace, on top of the
// host's "/", which stays reachable by path until enterRoot.
func (c *compiler) rootFilesystem() error {
	if c.ownMounts() {
		// Mounts of the host may come in; none of ours may go out.
		c.Call("keep mounts private", p.Mount, p.Null, c.Str("/"), p.Null, p.Flag(unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"), p.Null)
		c.makeHidden()
	}
	if err := c.attachRoot(); err != nil {
		return err
	}
	for i := range c.spec.Mounts {
		if err := c.mount(&c.spec.Mounts[i]); err != nil {
			return err
		}
	}
	return c.devices()
}

// ownMounts tells whether the container has a mount namespace that is not the
// caller's.
func (c *compiler) ownMounts() bool { return hasNamespace(c.spec.Linux, specs.MountNamespace) }

// makeHidden makes the one empty filesystem that covers masked directories. It
// stays detached until the first of them is masked.
func (c *compiler) makeHidden() {
	if len(c.spec.Linux.MaskedPaths) == 0 {
		return
	}
	const step = "make the mask for directories"
	c.hidden = c.Slot("mask")
	c.newFilesystem(&filesystem{step: step, kind: "tmpfs", source: "tmpfs", options: []string{"nr_blocks=1", "nr_inodes=1"},
		attrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}, c.hidden)
}

// attachRoot makes c.root: the mount that becomes "/".
func (c *compiler) attachRoot() error {
	dir := c.rootPath()
	switch {
	case c.in.rootfs != nil && c.ownMounts():
		c.root = c.inherit(inherited{name: "rootfs", file: c.in.rootfs})
		// It may be a copy of a mount others share: what is mounted in it must
		// not show there.
		c.setAttr("keep root private", c.root, true, 0, 0, unix.MS_PRIVATE)
	case c.in.rootfs != nil:
		return invalid("linux.namespaces: a root filesystem of layers needs a mount namespace")
	case c.ownMounts():
		c.root = c.Slot("root")
		c.clone("bind root "+dir, atCwd, dir, true, unix.AT_SYMLINK_NOFOLLOW, c.root)
	default:
		// The caller's mount namespace is shared: its mounts stay as they are,
		// the container only gets another root directory.
		c.root = c.Slot("root")
		c.Call("open root "+dir, p.Openat, atCwd, c.Str(dir), p.Flag(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_NOFOLLOW")).Store(c.root)
	}
	if !c.ownMounts() {
		return nil
	}
	c.rootAt = "/"
	if hasCreateHooks(c.spec.Hooks) {
		// Hooks that enter the namespace look for it by the bundle's name.
		c.rootAt = dir
	}
	c.attachAt("attach root")
	return nil
}

func (c *compiler) attachAt(step string) {
	c.Call(step, p.MoveMount, c.root, c.Str(""), atCwd, c.Str(c.rootAt), p.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
}

func (c *compiler) rootPath() string { return rootPathOf(c.spec, c.in.bundle) }

// rootPathOf is the absolute path of a root filesystem.
func rootPathOf(spec *specs.Spec, bundle string) string {
	if filepath.IsAbs(spec.Root.Path) {
		return filepath.Clean(spec.Root.Path)
	}
	return filepath.Join(bundle, spec.Root.Path)
}

// mountCgroups shows the container its own cgroup: one directory on v2, a
// tmpfs with one directory for each hierarchy on v1.
func (c *compiler) mountCgroups(m *specs.Mount, o *mountOptions) error {
	if len(o.super) > 0 { // the hierarchies are the host's, mounted already
		c.warn("mounts: %s: %s: a cgroup mount shows what the host has mounted, with its options", m.Destination, strings.Join(o.super, ","))
	}
	if len(c.in.cgroups) == 0 {
		c.warn("mounts: %s: the container has no cgroup to show", m.Destination)
	}
	step := "mount cgroup on " + m.Destination
	readOnly := (o.set | o.rset) & unix.MOUNT_ATTR_RDONLY
	base := p.Arg{}
	for _, g := range c.in.cgroups {
		tree := c.Slot("tree")
		c.clone(step, atCwd, g.Source, false, 0, tree)
		c.setAttr(step, tree, false, o.set|readOnly, o.clear, unix.MS_PRIVATE)
		if g.Name == "" {
			c.attach(step, tree, c.target(step, m.Destination, directory, resolveFor(m)))
			return nil
		}
		if base == (p.Arg{}) {
			base = c.Slot("mount")
			c.newFilesystem(&filesystem{step: step, kind: "tmpfs", source: "cgroup", options: []string{"mode=755"},
				attrs: (o.set | o.rset) &^ unix.MOUNT_ATTR_RDONLY}, base)
			c.attach(step, base, c.target(step, m.Destination, directory, resolveFor(m)))
			if readOnly != 0 {
				c.late = append(c.late, lateAttr{"make " + m.Destination + " read-only", base, readOnly})
			}
		}
		c.Call(step, p.Mkdirat, base, c.Str(g.Name), p.Flag(0o755, "0755"))
		c.Call(step, p.MoveMount, tree, c.Str(""), base, c.Str(g.Name), p.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
		for _, link := range g.Links {
			c.Call(step, p.Symlinkat, c.Str(g.Name), base, c.Str(link)).Tolerate(unix.EEXIST)
		}
	}
	return nil
}

// restrictPaths hides the masked paths and makes the read-only ones so.
func (c *compiler) restrictPaths() error {
	l := c.spec.Linux
	if len(l.MaskedPaths)+len(l.ReadonlyPaths) == 0 {
		return nil
	}
	if !c.ownMounts() {
		return invalid("linux.maskedPaths, readonlyPaths: they need a mount namespace")
	}
	for _, dest := range l.ReadonlyPaths {
		c.makeReadOnly(dest)
	}
	for _, dest := range l.MaskedPaths {
		c.mask(dest)
	}
	return nil
}

func (c *compiler) makeReadOnly(dest string) {
	step := "make " + dest + " read-only"
	done := c.NewLabel()
	t, tree := c.Slot("target"), c.Slot("tree")
	c.open(step, c.root, relative(dest), unix.O_PATH, inRoot).Store(t).OnErrno(unix.ENOENT, done).OnErrno(unix.ENOTDIR, done)
	c.clone(step, t, "", true, 0, tree)
	c.setAttr(step, tree, true, unix.MOUNT_ATTR_RDONLY, 0, 0)
	c.attach(step, tree, t)
	c.Mark(done)
}

// mask covers a file with /dev/null, a directory with the empty filesystem.
func (c *compiler) mask(dest string) {
	step := "mask " + dest
	done, isDir := c.NewLabel(), c.NewLabel()
	t, tree := c.Slot("target"), c.Slot("tree")
	c.open(step, c.root, relative(dest), unix.O_PATH|unix.O_DIRECTORY, inRoot).
		Store(t).Then(isDir).OnErrno(unix.ENOENT, done).Tolerate(unix.ENOTDIR)
	// ENOTDIR also comes from a path through a file: then this fails the same.
	c.open(step, c.root, relative(dest), unix.O_PATH, inRoot).Store(t).OnErrno(unix.ENOENT, done).OnErrno(unix.ENOTDIR, done)
	c.clone(step, atCwd, "/dev/null", false, unix.AT_SYMLINK_NOFOLLOW, tree)
	c.attach(step, tree, t).Then(done)
	c.Mark(isDir)
	// Before Linux 6.15 a mount cannot be copied as long as it is attached
	// nowhere (EINVAL): then this is the first, and gets the mount itself.
	first := c.NewLabel()
	c.clone(step, c.hidden, "", false, 0, tree).OnErrno(unix.EINVAL, first)
	c.attach(step, tree, t).Then(done)
	c.Mark(first)
	c.attach(step, c.hidden, t)
	c.Mark(done)
}

// makeWorkingDirectory creates process.cwd when the image lacks it.
func (c *compiler) makeWorkingDirectory() {
	if pr := c.spec.Process; pr != nil && relative(pr.Cwd) != "" {
		c.target("make working directory "+pr.Cwd, pr.Cwd, directory, inRoot)
	}
}

// readOnlyMounts applies what had to wait for the last mount point.
func (c *compiler) readOnlyMounts() {
	for _, l := range c.late {
		c.setAttr(l.step, l.mount, false, l.set, 0, 0)
	}
	if c.spec.Root.Readonly {
		c.setAttr("make / read-only", c.root, false, unix.MOUNT_ATTR_RDONLY, 0, 0)
	}
}

// enterRoot makes c.root the root directory and lets go of the host's.
func (c *compiler) enterRoot() {
	const step = "enter root"
	c.Call(step, p.Fchdir, c.root)
	if c.ownMounts() && !c.in.noPivot {
		// Root and old root change places on one directory: no put_old inside
		// the image is needed (pivot_root(2), "pivot_root(".", ".")").
		c.Call(step, p.PivotRoot, c.Str("."), c.Str("."))
		c.leaveHost()
	} else {
		if c.ownMounts() && c.rootAt != "/" { // a chroot(2) deeper down would not be every process's root
			c.rootAt = "/"
			c.attachAt(step)
		}
		c.Call(step, p.Chroot, c.Str("."))
		c.Call(step, p.Chdir, c.Str("/"))
	}
	if name := c.spec.Linux.RootfsPropagation; name != "" {
		flag, recursive, _ := propagation(name)
		if recursive {
			flag |= unix.MS_REC
		}
		c.Call("set propagation of /", p.Mount, p.Null, c.Str("/"), p.Null, p.Flag(flag, name), p.Null)
	}
}

// leaveHost unmounts the host's root, which lies on top of the container's
// after pivot_root. Then it makes sure that nothing is left there (as when the
// host had something mounted over its "/"): ".." of the root would lead into it.
func (c *compiler) leaveHost() {
	const step = "leave the host's root"
	c.Call(step, p.Umount2, c.Str("."), p.Flag(unix.MNT_DETACH, "MNT_DETACH"))
	c.Call(step, p.Chdir, c.Str("/"))
	check := c.Slot("root")
	c.open("check that the host's root is gone", atCwd, "/..", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV).Store(check)
	c.Call("check that the host's root is gone", p.Close, check)
}
