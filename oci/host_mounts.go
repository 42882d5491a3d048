package oci

import (
	"fmt"
	"os"
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
			return nil, fmt.Errorf("map ids of %s for %s: %w", source, m.Destination, err)
		}
		return tree, nil
	}, nil
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
	err = unix.MountSetattr(int(tree.Fd()), "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err == unix.EINVAL {
		return errdefs.WithHint(fmt.Errorf("not supported by the filesystem: %w", err), "the kernel must know idmapped mounts for it, and they cannot be mapped twice")
	}
	return err
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

// holdNamespaces makes a user namespace and, in it, those of flags, and opens
// those that are named as in /proc/PID/ns.
func (r *Runner) holdNamespaces(ids *idSource, flags uintptr, names ...string) (files []*os.File, err error) {
	var wait p.Program
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
	pid, pidfd, err := r.interpreter.Start(&p.Launch{Image: image, Sync: theirs, Name: "berth:ids", Attr: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | flags, UidMappings: ids.uid, GidMappings: ids.gid, GidMappingsEnableSetgroups: true,
	}})
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	holder := &Process{Pid: pid, Pidfd: pidfd}
	defer holder.Close()
	defer holder.abandon()
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
