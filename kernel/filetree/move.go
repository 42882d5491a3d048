package filetree

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Move renames a file or directory, as [os.Rename] does, and detaches first
// what somebody has mounted on it.
func Move(from, to string) error {
	for range tries {
		err := os.Rename(from, to)
		if !errors.Is(err, unix.EBUSY) || unix.Unmount(from, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			return err
		}
	}
	return &os.PathError{Op: "rename", Path: from, Err: unix.EBUSY}
}
