package main

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/oci"
)

// forwarded are the signals people and service managers send, which are for
// the container while a command waits for it.
func forwarded() []unix.Signal {
	return []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}
}

// signals are those that came for the container: a byte each in a pipe.
type signals struct {
	read int
}

// catchSignals makes the signals wait to be passed on, unless nobody waits. (A
// handler of our own: package os/signal needs 0.4 ms for these seven, in threads
// that wake each other.)
func catchSignals(detached bool) (*signals, error) {
	if detached {
		return nil, nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("catch signals: %w", err)
	}
	signalPipe = int32(ends[1])
	err := noteSignals(forwarded())
	if err == nil {
		// The default is to ignore it. Go's runtime would have two threads woken,
		// to do nothing: the process is waited for by its descriptor.
		err = setAction(unix.SIGCHLD, &sigaction{})
	}
	if err != nil {
		return nil, fmt.Errorf("catch signals: %w", err)
	}
	return &signals{ends[0]}, nil
}

// wait passes the signals on until the process has ended, and the word that it is
// ready the other way.
func (s *signals) wait(pr *oci.Process, n *notification) (syscall.WaitStatus, error) {
	defer n.close()
	for {
		fds := []unix.PollFd{{Fd: int32(pr.Pidfd.Fd()), Events: unix.POLLIN}, {Fd: int32(s.read), Events: unix.POLLIN}, n.pollFd()}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for process %d: %w", pr.Pid, err)
		}
		if err := s.forward(pr); err != nil {
			return 0, err
		}
		if fds[2].Revents != 0 {
			if err := n.receive(0); err != nil {
				return 0, err
			}
		}
		if fds[0].Revents != 0 {
			return pr.Wait()
		}
	}
}

// forward passes on what has come so far.
func (s *signals) forward(pr *oci.Process) error {
	var noted [64]byte
	n, err := unix.Read(s.read, noted[:])
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return fmt.Errorf("read signals: %w", err)
	}
	for _, sig := range noted[:max(n, 0)] {
		if syscall.Signal(sig) == unix.SIGWINCH {
			resizeTerminal(pr)
		} else {
			_ = pr.Signal(syscall.Signal(sig)) // it may just have ended
		}
	}
	return nil
}
