package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// errNeedsSocket: a detached container with a terminal has nowhere to put it.
var errNeedsSocket = errdefs.As(errdefs.ErrInvalid, errors.New("process.terminal: a detached container needs --console-socket"))

// sendFile passes a terminal's master, or a pidfd, to whoever listens on the socket,
// as runc does: one message with the descriptor and its name.
func sendFile(socket string, f *os.File) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("send %s: %w", f.Name(), err)
	}
	defer conn.Close()
	fd := int(f.Fd())
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte(f.Name()), unix.UnixRights(fd), nil); err != nil {
		return fmt.Errorf("send %s to %s: %w", f.Name(), socket, err)
	}
	return nil
}

// attachTerminal joins the container's terminal to ours: raw mode, size, both
// directions. restore ends it, after all output is written.
func attachTerminal(pr *oci.Process) (restore func(), err error) {
	if pr.Console == nil {
		return func() {}, nil
	}
	old, err := makeRaw()
	if err != nil {
		return nil, err
	}
	resizeTerminal(pr)
	runtime.GOMAXPROCS(4)            // each direction and the signals wait in system calls of their own
	go io.Copy(pr.Console, os.Stdin) //nolint:errcheck // ends with us
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(os.Stdout, pr.Console) //nolint:errcheck // EIO when the last user is gone
	}()
	return func() {
		<-drained
		if old != nil {
			_ = unix.IoctlSetTermios(0, unix.TCSETS, old)
		}
	}, nil
}

// makeRaw puts our terminal into raw mode (cfmakeraw(3)); nil when standard
// input is none.
func makeRaw() (*unix.Termios, error) {
	old, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return nil, nil
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set terminal: %w", err)
	}
	return old, nil
}

// resizeTerminal gives the container's terminal the size of ours.
func resizeTerminal(pr *oci.Process) {
	if pr.Console == nil {
		return
	}
	size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	if raw, err := pr.Console.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	}
}
