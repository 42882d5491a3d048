package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
)

// openFiles opens a container's root directory as the container sees it, with
// what is mounted in it: through its process when it runs, else by mounting root,
// binds and volumes where only we see them. Nothing of the container is held up
// until done is called: it can be started, stopped and removed meanwhile. ids is
// not nil when owners show as what they are on the host.
func (e *Engine) openFiles(ctx context.Context, c *ctr) (root *os.File, ids *idMapping, done func(), err error) {
	if err := c.lock(ctx); err != nil {
		return nil, nil, nil, err
	}
	defer c.unlock()
	switch st := c.rec.State.Status; st {
	case stateRunning, statePaused:
		root, err := e.openRunning(ctx, c)
		if err != nil {
			return nil, nil, nil, err
		}
		return root, c.rec.IDs, func() { root.Close() }, nil
	case stateCreated, stateExited, stateRestarting:
	default:
		return nil, nil, nil, conflictf("container %s is %s", short(c.id), st)
	}
	s, err := e.openStill(ctx, c)
	if err != nil {
		return nil, nil, nil, err
	}
	return s.root, nil, func() { e.closeStill(c, s) }, nil
}

// openRunning opens the root of the container's init. The keeper's word that it
// has not ended, asked for afterwards, says that the pid was its own. The caller
// holds act.
func (e *Engine) openRunning(ctx context.Context, c *ctr) (*os.File, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", c.rec.State.Pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errJustEnded(c.id)
	}
	if err != nil {
		return nil, err
	}
	keeper, err := e.keeper.connect(ctx)
	if err == nil {
		st, serr := keeper.Status(ctx, c.id, "")
		if err = serr; err == nil && (st.Exited || st.Pid != c.rec.State.Pid) {
			err = errJustEnded(c.id)
		}
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

func errJustEnded(id string) error {
	return conflictf("container %s has just ended; try again", short(id))
}

// stillRoot is the mounted root of a container that does not run, in a mount
// namespace without a process. It goes when the last who uses it closes it.
type stillRoot struct {
	root, ns *os.File
	users    int // guarded by the container's mu
}

// openStill mounts the root, or joins those who have. The caller holds act.
func (e *Engine) openStill(ctx context.Context, c *ctr) (*stillRoot, error) {
	c.mu.Lock()
	s := c.still
	if s != nil {
		s.users++
	}
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := e.mountStill(ctx, c)
	if err != nil {
		e.unmountStill(c)
		return nil, err
	}
	s.users = 1
	c.mu.Lock()
	c.still = s
	c.mu.Unlock()
	return s, nil
}

func (e *Engine) closeStill(c *ctr, s *stillRoot) {
	c.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		c.still = nil
	}
	c.mu.Unlock()
	if !last {
		return
	}
	s.root.Close()
	s.ns.Close()
	e.unmountStill(c)
}

// stillUser is who the volumes are mounted for, apart from the container's runs.
func stillUser(id string) string { return "files of " + id }

func (e *Engine) unmountStill(c *ctr) {
	for _, m := range c.snapshot().Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if _, err := e.volumes.Unmount(m.Name, stillUser(c.id)); err != nil {
			e.log.Error("unmount volume", "container", c.id, "volume", m.Name, "err", err)
		}
	}
}

// rootForStart mounts a container's root for its start. While its files are in
// use it is a copy of that mount: two of their own the kernel does not keep
// coherent. The caller holds act.
func (e *Engine) rootForStart(ctx context.Context, c *ctr, u *userns) (*os.File, error) {
	c.mu.Lock()
	s, rec := c.still, c.rec // the network is prepared beside this, and changes c.rec
	if s != nil {
		s.users++
	}
	c.mu.Unlock()
	if s == nil {
		return e.mountRoot(ctx, rec, u)
	}
	defer e.closeStill(c, s)
	if _, label := rec.Labels.shown(); u != nil || label != "" { // its mount is another kind than the copier's
		return nil, errdefs.WithHint(conflictf("files of container %s are being copied", short(c.id)), "start it when that has ended")
	}
	return s.copyRoot()
}

// copyRoot makes a detached copy of the root's mount, without what is mounted
// in it.
func (s *stillRoot) copyRoot() (root *os.File, err error) {
	err = inMountNamespace(s.ns, func() error {
		root, err = cloneMount(s.root, "", 0)
		if err != nil {
			return err
		}
		return setMount(root, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	})
	return root, err
}

// mountStill mounts root, binds and volumes of a container in a new mount
// namespace. They are in no table the host shows, and end with the descriptors,
// also when the engine does.
func (e *Engine) mountStill(ctx context.Context, c *ctr) (_ *stillRoot, err error) {
	root, err := e.images.MountDetached(ctx, c.id)
	if err != nil {
		return nil, err
	}
	s := &stillRoot{root: root}
	err = inMountNamespace(nil, func() error {
		// On top of "/", where it hides nothing: paths begin below it.
		if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return os.NewSyscallError("move_mount", err)
		}
		for i := range c.rec.Mounts {
			m := &c.rec.Mounts[i]
			if err := e.mountStillOne(ctx, c.id, root, m); err != nil {
				return fmt.Errorf("mount %s: %w", m.Destination, err)
			}
		}
		if err := e.mountEtc(c, root); err != nil {
			return err
		}
		if c.rec.HostConfig.ReadonlyRootfs {
			if err := setMount(root, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
				return err
			}
		}
		s.ns, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	if err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

// mountEtc binds the files in /etc the engine writes, of a container that has
// run. What the container's own mounts have in their place stays.
func (e *Engine) mountEtc(c *ctr, root *os.File) error {
	for _, name := range []string{fileHosts, fileHostname, fileResolv} {
		source, dest := filepath.Join(c.dir, name), "/etc/"+name
		if !exists(source) || covered(c.rec.Mounts, nil, dest) {
			continue
		}
		m := bindPoint(source, dest)
		m.RW = !c.rec.HostConfig.ReadonlyRootfs
		if err := e.mountStillOne(context.Background(), c.id, root, &m); err != nil {
			return fmt.Errorf("mount %s: %w", dest, err)
		}
	}
	return nil
}

// mountStillOne makes one mount. It runs in the new namespace.
func (e *Engine) mountStillOne(ctx context.Context, id string, root *os.File, m *mountPoint) error {
	tree, err := e.stillSource(ctx, id, m)
	if err != nil {
		return err
	}
	defer tree.Close()
	if !m.RW {
		flags := unix.AT_RECURSIVE
		if m.ReadOnlyNonRecursive || m.NonRecursive {
			flags = 0
		}
		if err := setMount(tree, flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return err
		}
	}
	info, err := tree.Stat()
	if err != nil {
		return err
	}
	at, err := mountTarget(root, m.Destination, info.IsDir())
	if err != nil {
		return err
	}
	defer at.Close()
	err = unix.MoveMount(int(tree.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// stillSource is a detached mount of what is mounted.
func (e *Engine) stillSource(ctx context.Context, id string, m *mountPoint) (*os.File, error) {
	recursive := unix.AT_RECURSIVE
	if m.NonRecursive {
		recursive = 0
	}
	if m.Type == mount.TypeBind {
		return cloneMount(nil, m.Source, recursive)
	}
	opened := &openedMounts{paths: map[string]string{}}
	defer opened.close()
	if m.Type == mount.TypeImage {
		if err := e.openImageMount(ctx, m, nil, opened); err != nil {
			return nil, err
		}
		return cloneMount(opened.files[len(opened.files)-1], "", 0)
	}
	where, err := e.volumes.Mount(m.Name, stillUser(id))
	if err != nil {
		return nil, err
	}
	if m.Subpath == "" {
		return cloneMount(nil, where, recursive)
	}
	dir, err := os.OpenFile(where, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	sub, err := openSubpath(dir, m.Subpath)
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	return cloneMount(sub, "", recursive)
}

// cloneMount makes a detached copy of the mount of path below at (nil: a path
// of ours).
func cloneMount(at *os.File, path string, flags int) (*os.File, error) {
	fd := unix.AT_FDCWD
	if at != nil {
		fd, flags = int(at.Fd()), flags|unix.AT_EMPTY_PATH
	}
	tree, err := unix.OpenTree(fd, path, uint(flags|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return os.NewFile(uintptr(tree), path), nil
}

func setMount(f *os.File, flags int, attr *unix.MountAttr) error {
	err := unix.MountSetattr(int(f.Fd()), "", uint(flags|unix.AT_EMPTY_PATH), attr)
	return os.NewSyscallError("mount_setattr", err)
}

// mountTarget opens what something is mounted on, making what is missing, as a
// start does.
func mountTarget(root *os.File, dest string, isDir bool) (*os.File, error) {
	rel := strings.TrimPrefix(dest, "/")
	at, err := openInRoot(root, rel, unix.O_PATH)
	if !errors.Is(err, os.ErrNotExist) {
		return at, err
	}
	parent := root
	if dir := path.Dir(rel); dir != "." {
		if parent, err = mountTarget(root, dir, true); err != nil {
			return nil, err
		}
		defer parent.Close()
	}
	base := path.Base(rel)
	if isDir {
		err = unix.Mkdirat(int(parent.Fd()), base, 0o755)
	} else {
		err = unix.Mknodat(int(parent.Fd()), base, unix.S_IFREG|0o755, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "make mount point", Path: dest, Err: err}
	}
	return openAt(parent, base, unix.O_PATH|unix.O_NOFOLLOW)
}
