package oci

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrAborted is the error of a start or an exec that was given up, see
// [StartRequest].Abort.
var ErrAborted = errors.New("given up")

// awaitEvent waits until poll(2) reports something of f, the events asked for or
// that the other end is gone. It is ErrAborted when abort, unless nil, is readable
// before, and false when the deadline, unless zero, has passed.
func awaitEvent(f *os.File, events int16, abort *os.File, deadline time.Time) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: events}}
	if abort != nil {
		fds = append(fds, unix.PollFd{Fd: int32(abort.Fd()), Events: unix.POLLIN})
	}
	for {
		wait := -1
		if !deadline.IsZero() {
			left := max(time.Until(deadline), 0)
			wait = int((left + time.Millisecond - 1) / time.Millisecond)
		}
		n, err := unix.Poll(fds, wait)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return false, err
		case abort != nil && fds[1].Revents != 0:
			return false, ErrAborted
		case n > 0:
			return true, nil
		case wait >= 0:
			return false, nil
		}
	}
}
