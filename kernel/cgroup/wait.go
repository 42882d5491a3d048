package cgroup

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// waitEvent blocks until cgroup.events of a v2 branch has key at value ("0" or
// "1"), woken by the kernel at every change of the file (v2 kernel doc, "Core
// Interface Files"). Past the deadline it returns [os.ErrDeadlineExceeded].
func (b *branch) waitEvent(key string, value uint64, deadline time.Time) error {
	fd, err := b.open("cgroup.events", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		s, err := readAll(fd)
		if err != nil {
			return err
		}
		now, ok := keyed(s, key)
		if !ok {
			return fmt.Errorf("cgroup.events has no %q", key)
		}
		if now == value {
			return nil
		}
		if err := poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, deadline); err != nil {
			return err
		}
	}
}

// poll waits for one of the descriptors.
func poll(fds []unix.PollFd, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timeout := unix.NsecToTimespec(int64(left))
		n, err := unix.Ppoll(fds, &timeout, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n > 0:
			return nil
		}
	}
}

// pause gives the kernel d to get on with what it does not announce. Cgroup v1
// has no events: nothing else in this package waits without one.
func pause(d time.Duration) {
	timeout := unix.NsecToTimespec(int64(d))
	unix.Ppoll(nil, &timeout, nil)
}
