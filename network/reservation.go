package network

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// reservation is a bound socket that nobody talks to: packets for it are
// translated before the kernel looks for a socket. It keeps others from the port, and
// us from a port that others have.
type reservation struct{ fd int }

// chooseAttempts bounds how often a port the kernel chose may be gone again
// before it is ours.
const chooseAttempts = 100

// reservePort binds addr; port 0 lets the kernel choose. unix.EADDRINUSE when
// it is taken.
func reservePort(proto uint8, addr netip.AddrPort) (reservation, error) {
	if addr.Port() != 0 || proto == unix.IPPROTO_UDP {
		return bindPort(proto, addr)
	}
	// The kernel takes back a TCP port it chose itself when the socket stops
	// listening (SOCK_BINDPORT_LOCK is not set), so it is only asked for one.
	for range chooseAttempts {
		port, err := freePort(addr.Addr())
		if err != nil {
			return reservation{}, err
		}
		r, err := bindPort(proto, netip.AddrPortFrom(addr.Addr(), port))
		if !errors.Is(err, unix.EADDRINUSE) {
			return r, err
		}
	}
	return reservation{}, unix.EADDRINUSE
}

// freePort asks the kernel for a TCP port nobody has.
func freePort(addr netip.Addr) (uint16, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	r := reservation{fd: fd}
	defer r.release()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	return r.port()
}

func bindPort(proto uint8, addr netip.AddrPort) (reservation, error) {
	typ := unix.SOCK_STREAM
	if proto == unix.IPPROTO_UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return reservation{}, fmt.Errorf("open socket: %w", err)
	}
	sa := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	if proto == unix.IPPROTO_UDP {
		err = holdUDP(fd, sa)
	} else {
		err = holdTCP(fd, sa)
	}
	if err != nil {
		return reservation{}, errors.Join(err, unix.Close(fd))
	}
	return reservation{fd: fd}, nil
}

// holdTCP binds without leaving the socket listening, so that a packet that is
// not translated is answered with a reset and no connection waits in a queue.
//
// SO_REUSEADDR for the bind, as servers do, for connections of an earlier
// server in TIME_WAIT; the listen makes the kernel check for conflicts in full
// (a bind with SO_REUSEADDR does not see other such sockets). SO_REUSEADDR is
// then taken back, or others that set it could bind and listen on the port.
func holdTCP(fd int, sa *unix.SockaddrInet4) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0); err != nil {
		return fmt.Errorf("clear SO_REUSEADDR: %w", err)
	}
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil { // back to bound
		return fmt.Errorf("stop listening: %w", err)
	}
	return nil
}

// holdUDP binds, and drops what is not translated (a broadcast) instead of
// collecting it.
func holdUDP(fd int, sa *unix.SockaddrInet4) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := &unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func (r reservation) port() (uint16, error) {
	sa, err := unix.Getsockname(r.fd)
	if err != nil {
		return 0, fmt.Errorf("read bound port: %w", err)
	}
	in, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("read bound port: address of type %T", sa)
	}
	return uint16(in.Port), nil
}

func (r reservation) release() { unix.Close(r.fd) }
