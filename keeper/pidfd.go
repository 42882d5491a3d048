package keeper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pollable gives a descriptor of our own that the runtime's poller can wait
// for, so that waiting occupies no thread. f stays the caller's.
func pollable(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dup int
	var inner error
	err = raw.Control(func(fd uintptr) {
		if dup, inner = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); inner != nil {
			return
		}
		if inner = unix.SetNonblock(dup, true); inner != nil {
			unix.Close(dup)
		}
	})
	if err := errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(dup), f.Name()), nil
}

// reap waits for the end of our child pid, which pidfd refers to, and reaps it.
// Until then the pid cannot be another process's.
func reap(pid int, pidfd *os.File) (unix.WaitStatus, error) {
	if err := awaitEnd(pid, pidfd); err != nil {
		return 0, err
	}
	return reapNow(pid)
}

// awaitEnd waits for the end of a process without reaping it.
func awaitEnd(pid int, pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool { return polled(fd, unix.POLLIN) != 0 })
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", pid, err)
	}
	return nil
}

// reapNow reaps our child pid, waiting for its end in a thread of its own.
func reapNow(pid int) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		// __WALL: whatever signal the process's creator chose for its end.
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return status, os.NewSyscallError("wait4", err)
		}
	}
}

// polled is what poll(2) reports for fd at this moment.
func polled(fd uintptr, events int16) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return 0
		}
		return fds[0].Revents
	}
}

// sendSignal signals exactly the process that pidfd refers to.
func sendSignal(pidfd *os.File, sig unix.Signal) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	return errors.Join(err, inner)
}

// exitCode is a process's own exit code, or 128 plus its signal.
func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
