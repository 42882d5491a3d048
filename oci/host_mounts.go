package oci

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// Mounts the parent makes, with its rights and in its mount namespace: detached
// ones, whose descriptor the container's process is given to attach.

// treeFor is how the parent makes a bind mount's tree.
func (c *compiler) treeFor(m *specs.Mount, source string, o *mountOptions) (func(*Runner) (*os.File, error), error) {
	ids, err := c.idsFor(m, o)
	if err != nil {
		return nil, err
	}
	return func(r *Runner) (*os.File, error) {
		tree, err := openTree(source, o.recursive)
		if err != nil {
			return nil, fmt.Errorf("bind %s on %s: %w", source, m.Destination, err)
		}
		if ids == nil {
			return tree, nil
		}
		if err := mapIDs(r, tree, ids, o.recursiveIdmap); err != nil {
			tree.Close()
			return nil, mapError(err, source, m.Destination, filesystemOf(source))
		}
		return tree, nil
	}, nil
}

// mountMapped mounts a filesystem with mapped ids. That takes a right on the
// filesystem: the parent makes it.
func (c *compiler) mountMapped(m *specs.Mount, o *mountOptions) error {
	ids, err := c.idsFor(m, o)
	if err != nil {
		return err
	}
	step := fmt.Sprintf("mount %s on %s", m.Type, m.Destination)
	options := c.labelled(m, o.super)
	if o.readOnly() && ownReadOnly(m) {
		options = append(options[:len(options):len(options)], "ro")
	}
	attrs := (o.set | o.rset) &^ unix.MOUNT_ATTR_RDONLY
	fs := c.inherit(inherited{name: "mapped " + m.Destination, make: func(r *Runner) (*os.File, error) {
		fd, err := newMount(m.Type, m.Source, options, attrs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step, err)
		}
		mount := os.NewFile(uintptr(fd), m.Type)
		if err := mapIDs(r, mount, ids, false); err != nil {
			mount.Close()
			return nil, mapError(err, m.Type, m.Destination, m.Type)
		}
		return mount, nil
	}})
	c.placeFilesystem(step, m, o, fs)
	return nil
}

// labelled are a filesystem's options with the container's label.
func (c *compiler) labelled(m *specs.Mount, options []string) []string {
	if label := c.mountLabel(m.Type); label != "" && !hasContext(options) {
		return append(options[:len(options):len(options)], "context="+label)
	}
	return options
}

// newMount makes a filesystem as a detached mount of the calling process's.
func newMount(kind, source string, options []string, attrs uint64) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if source != "" {
		options = append([]string{"source=" + source}, options...)
	}
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(ctx, key, unquoted(value))
		} else {
			err = unix.FsconfigSetFlag(ctx, o)
		}
		if err != nil {
			return -1, fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(attrs))
}

// mapError explains why ids could not be mapped in a filesystem of that kind.
func mapError(err error, what, dest, kind string) error {
	err = fmt.Errorf("mounts: %s: map ids of %s: %w", dest, what, err)
	if errors.Is(err, unix.EINVAL) {
		return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("%w: the kernel maps none in %s", err, kind)),
			"leave idmap out, or use a filesystem it maps ids in: ext4, xfs, btrfs, since Linux 6.3 tmpfs")
	}
	return err
}

// filesystemOf is the type of the filesystem a path is on, as the mount table has
// it.
func filesystemOf(path string) string {
	var st unix.Stat_t
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil && unix.Stat(path, &st) == nil {
		device := fmt.Sprintf(" %d:%d ", unix.Major(st.Dev), unix.Minor(st.Dev))
		for line := range strings.Lines(string(table)) {
			if _, kind, ok := strings.Cut(line, " - "); ok && strings.Contains(line, device) {
				kind, _, _ = strings.Cut(kind, " ")
				return kind
			}
		}
	}
	return "the filesystem " + path + " is on"
}

func openTree(path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// idSource is where a mount's id mapping comes from: a user namespace by path,
// or mappings for which one is made.
type idSource struct {
	path     string
	uid, gid []syscall.SysProcIDMap
}

// idsFor is the mapping of an idmapped mount: its own, or the container's. Nil
// when ids are not mapped.
func (c *compiler) idsFor(m *specs.Mount, o *mountOptions) (*idSource, error) {
	own := len(m.UIDMappings) > 0
	switch {
	case !o.idmap:
		return nil, nil
	case own != (len(m.GIDMappings) > 0):
		return nil, invalid("mounts: %s: uidMappings and gidMappings: one needs the other", m.Destination)
	case own:
		return &idSource{uid: idMap(m.UIDMappings), gid: idMap(m.GIDMappings)}, nil
	}
	for _, n := range c.spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			return &idSource{path: n.Path, uid: idMap(c.spec.Linux.UIDMappings), gid: idMap(c.spec.Linux.GIDMappings)}, nil
		}
	}
	return nil, invalid("mounts: %s: idmap: needs uidMappings and gidMappings, or a user namespace of the container", m.Destination)
}

// mapIDs maps the ids of a detached mount (mount_setattr(2), ID-mapped mounts).
func mapIDs(r *Runner, tree *os.File, ids *idSource, recursive bool) error {
	ns, err := r.userNamespace(ids)
	if err != nil {
		return err
	}
	defer ns.Close()
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(tree.Fd()), "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}

// userNamespace opens a user namespace that has the mapping. One that is made
// for it needs no process but one that waits; the descriptor keeps the namespace
// when it has ended.
func (r *Runner) userNamespace(ids *idSource) (*os.File, error) {
	if ids.path != "" {
		return os.Open(ids.path)
	}
	files, err := r.holdNamespaces(ids, 0, "user")
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// UserNamespace makes a user namespace with these mappings, and a network
// namespace that belongs to it, in which its root has every right. Both live as
// long as they are held open or somebody is in them.
func (r *Runner) UserNamespace(uids, gids []specs.LinuxIDMapping) (user, network *os.File, err error) {
	files, err := r.holdNamespaces(&idSource{uid: idMap(uids), gid: idMap(gids)}, unix.CLONE_NEWNET, "user", "net")
	if err != nil {
		return nil, nil, err
	}
	return files[0], files[1], nil
}

// NetworkNamespace makes a network namespace that belongs to a user namespace,
// which user is an open file of. It lives as long as it is held open or somebody
// is in it.
func (r *Runner) NetworkNamespace(user *os.File) (*os.File, error) {
	var join p.Program
	join.Call("join user namespace", p.Setns, p.Fd(p.FirstFile, "<user>"), p.Flag(unix.CLONE_NEWUSER, "CLONE_NEWUSER"))
	join.Call("make network namespace", p.Unshare, p.Flag(unix.CLONE_NEWNET, "CLONE_NEWNET"))
	join.Call("say so", p.Write, p.Fd(fdSync, "<sync>"), join.Str("n"), p.Int(1))
	files, err := r.hold(&join, &p.Launch{Files: []*os.File{user}, Attr: &syscall.SysProcAttr{}}, true, "net")
	if err != nil {
		return nil, fmt.Errorf("make a network namespace in a user namespace: %w", err)
	}
	return files[0], nil
}

// holdNamespaces makes a user namespace and, in it, those of flags, and opens
// those that are named as in /proc/PID/ns.
func (r *Runner) holdNamespaces(ids *idSource, flags uintptr, names ...string) (files []*os.File, err error) {
	files, err = r.hold(new(p.Program), &p.Launch{Attr: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | flags, UidMappings: ids.uid, GidMappings: ids.gid, GidMappingsEnableSetgroups: true,
	}}, false, names...)
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return files, nil
}

// hold runs a program in a process that waits afterwards, and opens namespaces of
// it; with says once the program has written a byte.
func (r *Runner) hold(wait *p.Program, l *p.Launch, says bool, names ...string) (files []*os.File, err error) {
	wait.Call("wait", p.Read, p.Fd(fdSync, "<sync>"), wait.Data(make([]byte, 8), "byte"), p.Int(1))
	wait.Call("end", p.ExitGroup, p.Int(0))
	code, err := wait.Encode()
	if err != nil {
		return nil, err
	}
	image, err := p.NewImage(code)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	l.Image, l.Sync, l.Name = image, theirs, "berth:ids"
	pid, pidfd, err := r.interpreter.Start(l)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	holder := &Process{Pid: pid, Pidfd: pidfd}
	defer holder.Close()
	defer holder.abandon()
	if says {
		if _, err := ours.Read(make([]byte, 1)); err != nil { // it has ended
			return nil, errdefs.As(errdefs.ErrUnsupported, errors.New("the kernel has refused it"))
		}
	}
	for _, name := range names {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}
