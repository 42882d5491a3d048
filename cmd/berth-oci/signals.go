package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/oci"
)

// forwarded are the signals people and service managers send, which are for
// the container while a command waits for it. The program's entry point
// (entry_amd64.s) blocks them before there are threads.
func forwarded() (set unix.Sigset_t) {
	for _, sig := range []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
	} {
		set.Val[0] |= 1 << (sig - 1)
	}
	return set
}

// releaseSignals lets the signals act on this process again: nobody will pass
// them on. Those that came meanwhile act now.
func releaseSignals() {
	set := forwarded()
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil) // cannot fail with these arguments
}

// signals are those that came for the container.
type signals struct {
	file *os.File       // signalfd(2)
	ch   chan os.Signal // where the entry point is Go's own: os/signal
}

// catchSignals makes the signals wait to be passed on, unless nobody waits.
// (Package os/signal needs 0.4 ms for it, in threads that wake each other; a
// descriptor for what is blocked anyway, next to nothing.)
func catchSignals(detached bool) (*signals, error) {
	if detached {
		releaseSignals()
		return nil, nil
	}
	want := forwarded()
	var have unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &have); err != nil || have.Val[0]&want.Val[0] != want.Val[0] {
		ch := make(chan os.Signal, 64)
		signal.Notify(ch, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
		return &signals{ch: ch}, nil
	}
	fd, err := unix.Signalfd(-1, &want, unix.SFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("catch signals: %w", err)
	}
	return &signals{file: os.NewFile(uintptr(fd), "signals")}, nil
}

// wait passes the signals on until the process has ended.
func (s *signals) wait(pr *oci.Process) (syscall.WaitStatus, error) {
	if s.ch != nil {
		go func() { // until we exit
			for sig := range s.ch {
				forward(pr, sig.(syscall.Signal))
			}
		}()
		return pr.Wait()
	}
	for {
		fds := []unix.PollFd{{Fd: int32(pr.Pidfd.Fd()), Events: unix.POLLIN}, {Fd: int32(s.file.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for process %d: %w", pr.Pid, err)
		}
		if fds[0].Revents != 0 {
			return pr.Wait()
		}
		if fds[1].Revents != 0 {
			if err := s.forwardOne(pr); err != nil {
				return 0, err
			}
		}
	}
}

// forwardOne reads a signal and passes it on.
func (s *signals) forwardOne(pr *oci.Process) error {
	var info [128]byte // struct signalfd_siginfo; its first field is the number
	if _, err := s.file.Read(info[:]); err != nil {
		return fmt.Errorf("read signal: %w", err)
	}
	forward(pr, syscall.Signal(binary.NativeEndian.Uint32(info[:])))
	return nil
}

func forward(pr *oci.Process, sig syscall.Signal) {
	if sig == unix.SIGWINCH {
		resizeTerminal(pr)
		return
	}
	_ = pr.Signal(sig) // it may just have ended
}
