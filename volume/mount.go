package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/sys/mount"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Mount makes a volume ready for user, a container that starts, and returns
// where it is. A volume that is a file system of its own is mounted for the
// first user and unmounted after the last: see [Store.Unmount].
func (s *Store) Mount(name, user string) (string, error) {
	e, err := s.find(name)
	if err != nil {
		return "", err
	}
	defer e.mount.Unlock()
	if err := s.ready(e); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	e.users[user] = true
	return e.Path, nil
}

// Unmount ends what Mount began and says whether it had. What is not mounted,
// or not there, is fine.
func (s *Store) Unmount(name, user string) (used bool, err error) {
	e, err := s.find(name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer e.mount.Unlock()
	used = e.users[user]
	delete(e.users, user)
	return used, e.rest()
}

// Running says, when an engine begins, which containers run and use which
// volumes (volume to containers): a volume that is mounted and used by none of
// them is unmounted.
func (s *Store) Running(users map[string][]string) error {
	var errs []error
	for _, v := range s.List() {
		e, err := s.find(v.Name)
		if err != nil {
			continue
		}
		for _, user := range users[v.Name] {
			e.users[user] = true
		}
		errs = append(errs, e.rest())
		e.mount.Unlock()
	}
	return errors.Join(errs...)
}

// find returns a volume with its mount lock taken.
func (s *Store) find(name string) (*entry, error) {
	s.mu.Lock()
	e := s.byID[name]
	s.mu.Unlock()
	if e == nil {
		return nil, errNotFound(name)
	}
	e.mount.Lock()
	if e.removed {
		e.mount.Unlock()
		return nil, errNotFound(name)
	}
	return e, nil
}

// ready mounts the volume if it wants that and is not, or sees that its limit is
// set. The caller holds mount.
func (s *Store) ready(e *entry) error {
	if !e.mounts() {
		if _, err := os.Stat(e.Path); err != nil {
			return errdefs.WithHint(err, "the volume's directory is gone; remove the volume, or put the directory back")
		}
		return s.ensureQuota(e)
	}
	mounted, err := isMount(e.Path)
	if err != nil || mounted {
		return err
	}
	kind := e.Options["type"]
	device, options, err := source(e.Options, resolveHost)
	if err != nil {
		return err
	}
	err = mount.Mount(device, e.Path, kind, options)
	if err == nil {
		return nil
	}
	text := withoutPassword(err.Error(), options)
	switch {
	case errors.Is(err, unix.ENODEV):
		return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("the kernel knows no file system %q: %w", kind, unix.ENODEV)),
			"load its module (modprobe "+kind+"), or correct the volume's option type")
	case errors.Is(err, unix.ENOENT):
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, errors.New(text)), "the volume's device must exist on this host: "+device)
	}
	return errdefs.WithHint(errors.New(text), "the volume's options are as those of mount -t "+kind+" -o "+withoutPassword(options, options))
}

// rest unmounts the volume if it is mounted and nobody uses it. The caller
// holds mount.
func (e *entry) rest() error {
	if !e.mounts() || len(e.users) > 0 {
		return nil
	}
	return unmount(e.Path)
}

// unmount detaches all that is mounted at path.
func unmount(path string) error {
	for {
		mounted, err := isMount(path)
		if err != nil || !mounted {
			return err
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
}

// isMount asks the kernel whether something is mounted at path.
func isMount(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Fill copies what an image has at the volume's place, the open directory from,
// into a volume that is empty, with owners, modes and attributes. Were it
// interrupted, the volume would still be empty: the copy gets its place when it
// is whole. (Not in a volume that running containers use or that is mounted: what
// they have open must stay what it is.)
func (s *Store) Fill(ctx context.Context, name string, from *os.File) error {
	e, err := s.find(name)
	if err != nil {
		return err
	}
	defer e.mount.Unlock()
	if err := s.ready(e); err != nil {
		return fmt.Errorf("mount volume %s: %w", name, err)
	}
	err = e.fill(ctx, fmt.Sprintf("/proc/self/fd/%d/.", from.Fd()))
	if err != nil {
		err = fmt.Errorf("fill volume %s: %w", name, err)
	}
	return errors.Join(err, e.rest())
}

func (e *entry) fill(ctx context.Context, from string) error {
	if empty, err := isEmpty(e.Path); err != nil || !empty {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.mounts() || len(e.users) > 0 {
		return cfs.CopyDir(e.Path, from)
	}
	whole := filepath.Join(filepath.Dir(e.Path), ".fill")
	if err := os.RemoveAll(whole); err != nil { // of one that was interrupted
		return err
	}
	err := cfs.CopyDir(whole, from)
	if err == nil {
		err = unix.Rename(whole, e.Path) // over an empty directory, which os.Rename refuses
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(whole))
	}
	return nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// UnmountAll unmounts the volumes below root, for who removes the root.
func UnmountAll(root string) error {
	list, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range list {
		errs = append(errs, unmount(filepath.Join(root, entry.Name(), dataDir)))
	}
	return errors.Join(errs...)
}
