package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// RootOptions are what a container's root has of its own. The zero value is
// that of a container with the host's ids and without a label.
type RootOptions struct {
	// Label is the SELinux label of every file; empty leaves each its own.
	Label string
	// Userns is the user namespace of a container whose root is not the host's,
	// UID and GID who its root is on the host; nil: the host's.
	Userns   *os.File
	UID, GID uint32
}

// MountRoot is [Store.MountDetached] with options. In a user namespace files
// show the owners they have on disk, and what is made there gets such owners on
// disk, so that images, commits and exports know nothing of the mapping.
//
// overlayfs itself cannot be mapped (mount_setattr(2)), the directories it lies
// on can, since Linux 5.19: each is mounted mapped, where nobody sees it, and the
// overlay is made of these.
func (s *Store) MountRoot(ctx context.Context, key string, opt RootOptions) (f *os.File, err error) {
	o, err := s.mountOf(ctx, key)
	if err != nil {
		return nil, err
	}
	o.label, o.ids = opt.Label, opt.mapping()
	if f, err = s.snap.mount(ctx, o); err != nil {
		return nil, fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	return f, nil
}

func (o *RootOptions) mapping() *mapping {
	if o.Userns == nil {
		return nil
	}
	return &mapping{o.Userns, int(o.UID), int(o.GID)}
}

// mapping is a user namespace and who its root is on the host.
type mapping struct {
	userns   *os.File
	uid, gid int
}

// mountMapped makes the mapped mounts in a mount namespace that ends with its
// thread; the overlay keeps copies of them.
func (m *mounter) mountMapped(o snapshotMount, ids *mapping) (f *os.File, err error) {
	err = onThread(unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return mountError("make mounts private", -1, err)
		}
		at := filepath.Join(m.root, "mnt")
		if err := unix.Mount("berth-layers", at, "tmpfs", 0, "mode=700"); err != nil {
			return mountError("places for layers", -1, err)
		}
		mapped := snapshotMount{volatile: o.volatile, label: o.label}
		for i, dir := range o.lower {
			place := filepath.Join(at, strconv.Itoa(i))
			if err := mountIDs(dir, place, ids.userns); err != nil {
				return err
			}
			mapped.lower = append(mapped.lower, place)
		}
		if o.upper != "" {
			// Both on one mount, as overlayfs wants them.
			place := filepath.Join(at, "upper")
			if err := mountIDs(filepath.Dir(o.upper), place, ids.userns); err != nil {
				return err
			}
			mapped.upper = filepath.Join(place, filepath.Base(o.upper))
			mapped.work = filepath.Join(place, filepath.Base(o.work))
		}
		if err := BecomeOwner(ids.uid, ids.gid); err != nil {
			return err
		}
		f, err = m.mount(mapped)
		return err
	})
	return f, err
}

// mountIDs mounts dir on a new directory at place, with mapped ids.
func mountIDs(dir, place string, userns *os.File) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := mapIDs(fd, dir, userns); err != nil {
		return err
	}
	if err := os.Mkdir(place, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: place, Err: err}
	}
	return nil
}

// mapIDs maps the ids of a mount that is attached nowhere.
func mapIDs(fd int, dir string, userns *os.File) error {
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
	if errors.Is(err, unix.EINVAL) {
		err = errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("map ids of %s: %w", dir, err)),
			"the file system of the image store must know idmapped mounts (ext4, xfs, btrfs; tmpfs since Linux 6.3)")
	}
	return err
}

// BecomeOwner makes the calling thread, which ends soon, own the files it makes
// as a user namespace's root. overlayfs does its own work (copies of files, its work
// directory) as who has mounted it; as the host's root, whom the mapping does not
// know, it could make nothing. Every capability stays.
func BecomeOwner(uid, gid int) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if err := unix.Setfsgid(gid); err != nil {
		return os.NewSyscallError("setfsgid", err)
	}
	if err := unix.Setfsuid(uid); err != nil { // takes the rights over files out of the effective set
		return os.NewSyscallError("setfsuid", err)
	}
	return os.NewSyscallError("capset", unix.Capset(&hdr, &caps[0]))
}
