package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// notification passes the word of a container's command that it is ready
// (sd_notify(3), READY=1) on to the service manager of whoever called us. Its other
// messages stay here: they are about processes the manager does not know.
// The zero value is nobody's: nothing comes, nobody waits.
type notification struct {
	host   string // NOTIFY_SOCKET: a path, or @ and an abstract name
	socket int    // the container's; only with host
}

// offerNotify lets the command of a new container say that it is ready, if
// anybody wants to hear it; created: start will listen.
func (l *launchFlags) offerNotify(c *oci.Container, spec *specs.Spec, created bool) (err error) {
	l.notify = &notification{}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	if err := c.OfferNotify(spec); err != nil || created {
		return err
	}
	l.notify, err = listenNotify(c)
	return err
}

// listenNotify makes the container's socket, before its command begins.
func listenNotify(c *oci.Container) (*notification, error) {
	n := &notification{host: os.Getenv("NOTIFY_SOCKET")}
	if n.host == "" {
		return n, nil
	}
	if n.host[0] != '/' && n.host[0] != '@' {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("NOTIFY_SOCKET=%s: neither a path nor an abstract name", n.host))
	}
	var err error
	n.socket, err = c.ListenNotify()
	if errors.Is(err, errdefs.ErrNotFound) { // whoever created it did not want to hear
		return &notification{}, nil
	}
	return n, err
}

// pollFd is for poll(2), which passes over the descriptor of nobody.
func (n *notification) pollFd() unix.PollFd {
	if n.host == "" {
		return unix.PollFd{Fd: -1}
	}
	return unix.PollFd{Fd: int32(n.socket), Events: unix.POLLIN}
}

// receive takes a message. Once the command is ready the manager is told, with the
// main process's id unless that is to be ours (pid 0), and nobody waits any more.
func (n *notification) receive(pid int) error {
	message := make([]byte, 4096)
	size, _, err := unix.Recvfrom(n.socket, message, unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil
	}
	if err != nil {
		return fmt.Errorf("receive from the notify socket: %w", err)
	}
	for line := range bytes.Lines(message[:size]) {
		if string(bytes.TrimSpace(line)) == "READY=1" {
			defer n.close()
			return n.ready(pid)
		}
	}
	return nil
}

func (n *notification) ready(pid int) error {
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer unix.Close(out)
	message := "READY=1"
	if pid > 0 {
		message += "\nMAINPID=" + strconv.Itoa(pid)
	}
	if err := unix.Sendto(out, []byte(message), 0, &unix.SockaddrUnix{Name: n.host}); err != nil {
		return fmt.Errorf("notify the service manager at %s: %w", n.host, err)
	}
	return nil
}

func (n *notification) close() {
	if n.host != "" {
		unix.Close(n.socket)
		n.host = ""
	}
}

// waitReady waits until the command has said that it is ready, or has ended.
func (n *notification) waitReady(pidfd *os.File, pid int) error {
	defer n.close()
	for n.host != "" {
		fds := []unix.PollFd{n.pollFd(), {Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the command to be ready: %w", err)
		}
		if fds[0].Revents != 0 {
			if err := n.receive(pid); err != nil {
				return err
			}
		} else if fds[1].Revents != 0 {
			return nil
		}
	}
	return nil
}
