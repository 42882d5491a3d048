package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// NewNamespace makes a network namespace with loopback up, keeps it alive by
// a bind mount named id in [Options.NetnsDir], and returns that path. The mount is
// private: it shows in no other mount namespace that exists, so none can keep
// the namespace alive after [Store.RemoveNamespace]. Whoever joins it by path must
// live in the mount namespace of the caller.
//
// An id that is in use fails with errdefs.ErrConflict.
func (s *Store) NewNamespace(id string) (path string, err error) {
	return s.pin(id, func(path string) error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return bindNamespace(path)
	})
}

// pin makes the file a namespace is bound to, by enter on a thread of its own.
func (s *Store) pin(id string, enter func(path string) error) (path string, err error) {
	if err := checkID(id); err != nil {
		return "", fmt.Errorf("make network namespace: %w", err)
	}
	path = filepath.Join(s.opts.NetnsDir, id)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", errdefs.As(errdefs.ErrConflict, fmt.Errorf("network namespace %s exists already", id))
	}
	if err != nil {
		return "", fmt.Errorf("make network namespace: %w", err)
	}
	f.Close()
	fault.Here(fault.NetnsFile)
	if err = s.onThread(func() error { return enter(path) }); err != nil {
		return "", errors.Join(fmt.Errorf("make network namespace %s: %w", id, classify(err)), os.Remove(path))
	}
	fault.Here(fault.NetnsBound)
	return path, nil
}

// PinNamespace is [Store.NewNamespace] for a network namespace that is there
// already: one that belongs to a container's user namespace. The file stays the
// caller's.
func (s *Store) PinNamespace(id string, ns *os.File) (path string, err error) {
	return s.pin(id, func(path string) error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		return bindNamespace(path)
	})
}

// bindNamespace gives the calling thread's network namespace its pin.
func bindNamespace(path string) error {
	if err := setLoopbackUp(); err != nil {
		return err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind to %s: %w", path, err)
	}
	return nil
}

// RemoveNamespace removes the pin of a namespace. The kernel destroys the
// namespace, with the links in it, some ms after the last process left it.
// Removing what is not there is no error.
func (s *Store) RemoveNamespace(id string) error {
	if err := checkID(id); err != nil {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return removePin(filepath.Join(s.opts.NetnsDir, id))
}

func removePin(path string) error {
	// EINVAL: a crash between making the file and mounting on it.
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
		!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove network namespace: unmount %s: %w", path, classify(err))
	}
	fault.Here(fault.NetnsReleased)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	fault.Here(fault.NetnsRemoved)
	return nil
}

// onThread runs f on a thread of its own choice whose network namespace f may
// change, and brings the thread back to the host's. A thread that cannot be
// brought back ends with its goroutine.
func (s *Store) onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := f()
		if back := unix.Setns(s.hostNS, unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// setLoopbackUp brings lo up in the calling thread's namespace.
func setLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// preparePinDir makes dir a private mount of its own. Under systemd everything
// is shared by default, and a pin that propagated into another mount namespace
// could outlive its removal here.
func preparePinDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := isMountRoot(dir)
	if err != nil {
		return err
	}
	if !root {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s to itself: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mount %s private: %w", dir, err)
	}
	return nil
}

func isMountRoot(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return false, fmt.Errorf("statx %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
