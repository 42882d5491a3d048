package engine

import (
	"errors"
	"fmt"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// invalidf is an error of the class ErrInvalid.
func invalidf(format string, args ...any) error {
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf(format, args...))
}

// conflictf is an error of the class ErrConflict.
func conflictf(format string, args ...any) error {
	return errdefs.As(errdefs.ErrConflict, fmt.Errorf(format, args...))
}

// errUnsupported refuses a flag or field that this version does not do.
func errUnsupported(what string) error {
	return fmt.Errorf("%s: %w", what, errdefs.ErrUnsupported)
}

// explainFullDisk says which file system it is that has no room, and what to do.
func explainFullDisk(err error, path string) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) || errdefs.Hint(err) != "" {
		return err
	}
	return errdefs.WithHint(err, "make room on the file system of "+path+"; berth system df shows what can go")
}

// errNotRunning is the conflict of everything that needs a process.
func errNotRunning(id string) error {
	return errdefs.WithHint(conflictf("container %s is not running", short(id)), "start it first: berth start "+short(id))
}

// errNoContainer: nothing is called ref.
func errNoContainer(ref string) error {
	return errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such container: %s", ref))
}
