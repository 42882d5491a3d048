package network

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// PortBinding is a port of the container on the host.
type PortBinding struct {
	// Proto is tcp or udp. Zero: tcp.
	Proto         string
	ContainerPort uint16
	// HostIP is the host's IPv4 address to publish on. Zero or 0.0.0.0: all of them.
	HostIP netip.Addr
	// HostPort is the port on the host. Zero in a request: one the kernel chooses.
	HostPort uint16
	// HostPortEnd makes a request a range: the first free port from HostPort
	// up to and including it. Zero: HostPort only. Always zero in an Attachment.
	HostPortEnd uint16
}

// everywhere says that the port is published on every address of the host.
func (b PortBinding) everywhere() bool {
	return !b.HostIP.IsValid() || b.HostIP.Unmap() == netip.IPv4Unspecified()
}

// String returns the host's side, as 0.0.0.0:8080/tcp.
func (b PortBinding) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(b.hostIP(), b.HostPort), b.Proto)
}

func (b PortBinding) hostIP() netip.Addr {
	if b.everywhere() {
		return netip.IPv4Unspecified()
	}
	return b.HostIP.Unmap()
}

func (b PortBinding) number() uint8 {
	if b.Proto == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func checkPorts(ports []PortBinding) error {
	for _, b := range ports {
		switch {
		case b.Proto != "" && b.Proto != "tcp" && b.Proto != "udp":
			return errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("publish port %d/%s: not supported: only tcp and udp", b.ContainerPort, b.Proto))
		case b.ContainerPort == 0:
			return errdefs.As(errdefs.ErrInvalid, errors.New("publish port: container port is 0"))
		case b.HostPortEnd != 0 && b.HostPortEnd < b.HostPort, b.HostPortEnd != 0 && b.HostPort == 0:
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("publish port: invalid range %d-%d", b.HostPort, b.HostPortEnd))
		case b.HostIP.IsValid() && !b.hostIP().Is4():
			return errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("publish port on %s: not supported: only IPv4", b.HostIP))
		}
	}
	return nil
}

// reserve takes the host's ports for the lease, with what each got in l.Ports.
func (s *Store) reserve(l *lease, wanted []PortBinding) error {
	for _, b := range wanted {
		if b.Proto == "" {
			b.Proto = "tcp"
		}
		b.HostIP = b.hostIP()
		r, port, err := reserveRange(b)
		if err != nil {
			return s.explainTaken(b, err)
		}
		b.HostPort, b.HostPortEnd = port, 0
		s.mu.Lock()
		l.ports, l.Ports = append(l.ports, r), append(l.Ports, b)
		s.mu.Unlock()
	}
	return nil
}

// reserveRange takes the first free port of the binding's range.
func reserveRange(b PortBinding) (reservation, uint16, error) {
	last := max(b.HostPort, b.HostPortEnd)
	for port := int(b.HostPort); ; port++ {
		r, err := reservePort(b.number(), netip.AddrPortFrom(b.hostIP(), uint16(port)))
		if err == nil {
			got, err := r.port()
			return r, got, err
		}
		if !errors.Is(err, unix.EADDRINUSE) || port >= int(last) {
			return reservation{}, 0, err
		}
	}
}

// explainTaken says what a person can do about a port that is not to be had.
func (s *Store) explainTaken(b PortBinding, err error) error {
	wanted := b.String()
	if b.HostPortEnd > b.HostPort {
		wanted = fmt.Sprintf("%s:%d-%d/%s", b.HostIP, b.HostPort, b.HostPortEnd, b.Proto)
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		err = errdefs.As(errdefs.ErrConflict, fmt.Errorf("publish %s: port already bound", wanted))
		return errdefs.WithHint(err, s.portHint(b))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		err = errdefs.As(errdefs.ErrInvalid, fmt.Errorf("publish %s: not an address of this host", wanted))
		return errdefs.WithHint(err, "publish on an address that `ip address` lists, or on all by leaving it out")
	}
	return fmt.Errorf("publish %s: %w", wanted, err)
}

// portHint names who has the port, when that can be found out.
func (s *Store) portHint(b PortBinding) string {
	if id, ok := s.publisher(b); ok {
		return fmt.Sprintf("container %s publishes it: remove that container or publish another host port", id)
	}
	if p, ok := portHolder(b.number(), b.HostPort); ok {
		return fmt.Sprintf("%s (pid %d) has it: stop it or publish another host port", p.name, p.pid)
	}
	return "stop what uses it or publish another host port"
}

// publisher finds the container of ours that publishes the port.
func (s *Store) publisher(b PortBinding) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.leases {
		for _, p := range l.Ports {
			if p.Proto == b.Proto && p.HostPort == b.HostPort &&
				(p.everywhere() || b.everywhere() || p.hostIP() == b.hostIP()) {
				return id, true
			}
		}
	}
	return "", false
}

// reservePorts takes the ports of the leases of an earlier Store. One that
// somebody bound in between stays published, as the container runs on and
// translation comes before the socket; the log says so.
func (s *Store) reservePorts() {
	for id, l := range s.leases {
		for _, b := range l.Ports {
			r, _, err := reserveRange(b)
			if err != nil {
				s.opts.Logger.Warn("published port was bound by somebody else while no engine ran",
					"container", id, "port", b.String(), "error", err)
				continue
			}
			l.ports = append(l.ports, r)
		}
	}
}
