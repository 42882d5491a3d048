package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// Endpoint is what is asked for a container.
type Endpoint struct {
	ContainerID string
	// NetnsPath is the container's network namespace, from [Store.NewNamespace].
	NetnsPath string
	// Network is the network's name or ID. Zero: bridge, the only one possible.
	Network string
	// IP is a wanted IPv4 address of the subnet. Zero: the next free one.
	IP netip.Addr
	// MAC is a wanted Ethernet address. Nil: derived from the address.
	MAC net.HardwareAddr
	// Ports are the ports to publish on the host.
	Ports []PortBinding
}

// Attachment is what a container got.
type Attachment struct {
	ContainerID string
	// EndpointID is 64 hexadecimal digits, new with every Connect.
	EndpointID string
	Network    string
	NetworkID  string
	IP         netip.Addr
	PrefixLen  int
	Gateway    netip.Addr
	// MAC is the Ethernet address of eth0, as 02:be:ac:1d:00:02.
	MAC string
	// HostLink is the link on the host's side, a port of the bridge.
	HostLink string
	// Ports are the published ports, each with the host port it got.
	Ports []PortBinding
}

func (a Attachment) clone() Attachment {
	a.Ports = slices.Clone(a.Ports)
	return a
}

// Connect attaches a namespace to the bridge: eth0 with address and default route,
// published ports. On an error nothing is left behind.
//
// Classes: errdefs.ErrConflict when the container is connected already, the
// wanted address is taken or a host port is already bound; ErrInvalid for an
// address or port that cannot be; ErrNotFound for the network or the
// namespace; ErrUnavailable when the subnet or the bridge is full.
func (s *Store) Connect(ctx context.Context, ep Endpoint) (*Attachment, error) {
	a, err := s.connect(ctx, ep)
	if err != nil {
		return nil, fmt.Errorf("connect container %s to network %s: %w", ep.ContainerID, Bridge, classify(err))
	}
	return a, nil
}

func (s *Store) connect(ctx context.Context, ep Endpoint) (*Attachment, error) {
	if err := s.checkEndpoint(ep); err != nil {
		return nil, err
	}
	l := s.newLease(ep)
	if err := s.take(l, ep.IP, ep.MAC); err != nil {
		return nil, err
	}
	if err := s.attach(ctx, l, ep); err != nil {
		return nil, errors.Join(err, s.disconnect(l))
	}
	a := l.Attachment.clone()
	return &a, nil
}

func (s *Store) checkEndpoint(ep Endpoint) error {
	if err := checkID(ep.ContainerID); err != nil {
		return err
	}
	n, err := s.Inspect(ep.Network)
	if err != nil {
		return err
	}
	if n.Name != Bridge {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("network %s has no endpoints", n.Name))
	}
	if len(ep.MAC) != 0 && (len(ep.MAC) != 6 || ep.MAC[0]&1 != 0) {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("invalid Ethernet address %s", ep.MAC))
	}
	return checkPorts(ep.Ports)
}

func (s *Store) newLease(ep Endpoint) *lease {
	id := randomID()
	return &lease{Created: time.Now().UTC(), Attachment: Attachment{
		ContainerID: ep.ContainerID,
		EndpointID:  id,
		Network:     Bridge,
		NetworkID:   s.record.Bridge.ID,
		PrefixLen:   s.bridge.subnet.Bits(),
		Gateway:     s.bridge.gateway,
		HostLink:    hostLinkName(id),
	}}
}

// attach does what the lease, which has its address, promises.
func (s *Store) attach(ctx context.Context, l *lease, ep Endpoint) error {
	if err := s.reserve(l, ep.Ports); err != nil {
		return err
	}
	// Written before the kernel has anything, so that what a crash leaves has an owner.
	if err := writeJSON(s.leasePath(l.ContainerID), l, false); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.link(l, ep.NetnsPath); err != nil {
		return err
	}
	fault.Here(fault.LinkReady)
	return s.publish(l)
}

// link makes the pair and configures its far end.
func (s *Store) link(l *lease, netnsPath string) error {
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return err
	}
	ns, err := unix.Open(netnsPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return errdefs.As(errdefs.ErrNotFound, fmt.Errorf("network namespace %s not found", netnsPath))
	}
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", netnsPath, err)
	}
	defer unix.Close(ns)
	inside, err := s.enter(ns)
	if err != nil {
		return err
	}
	defer inside.close()
	p := pair{hostName: l.HostLink, name: containerLink, hostMAC: hostMAC(l.HostLink), mac: mac, mtu: s.mtu, netns: ns}
	if err := s.addPort(p); err != nil {
		return err
	}
	fault.Here(fault.LinkMade)
	if err := s.route.setUp(l.HostLink, hairpin(needHairpin())); err != nil {
		return err
	}
	if err := inside.setUp(containerLink); err != nil {
		return err
	}
	index, err := inside.index(containerLink)
	if err != nil {
		return err
	}
	if err := inside.addAddress(index, netip.PrefixFrom(l.IP, l.PrefixLen)); err != nil {
		return err
	}
	return inside.addDefaultRoute(index, l.Gateway)
}

// containerLink is the name of the link in the container.
const containerLink = "eth0"

// addPort adds the pair, on a new bridge if the old one is gone.
func (s *Store) addPort(p pair) error {
	err := s.tryPort(p)
	if errors.Is(err, unix.EINVAL) {
		healed, herr := s.healBridge()
		if herr != nil {
			return errors.Join(err, herr)
		}
		if healed {
			err = s.tryPort(p)
		}
	}
	if errors.Is(err, unix.EXFULL) {
		return errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable, err), "a bridge takes 1023 containers, a limit of the kernel")
	}
	return err
}

func (s *Store) tryPort(p pair) error {
	s.bridging.RLock()
	defer s.bridging.RUnlock()
	p.bridge = s.bridge.index
	return s.route.addPair(p)
}

// enter returns a netlink socket of the namespace, in which links made from now
// on have no IPv6.
func (s *Store) enter(ns int) (*routeSocket, error) {
	var sock *routeSocket
	err := s.onThread(func() (err error) {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		// A neighbour could else give it an address and a route by router advertisements.
		if err := disableIPv6("default"); err != nil {
			return err
		}
		sock, err = openRouteSocket()
		return err
	})
	return sock, err
}

// Disconnect takes a container that goes on running off its network: published
// ports, link, address. It waits for the kernel to give up the link, some 30 ms; a
// container that ended is better served by [Store.Release]. A container that
// is not connected is no error.
func (s *Store) Disconnect(ctx context.Context, containerID string) error {
	l, ok := s.lease(containerID)
	if !ok {
		return nil
	}
	if err := s.disconnect(l); err != nil {
		return fmt.Errorf("disconnect container %s from network %s: %w", containerID, l.Network, classify(err))
	}
	return ctx.Err()
}

func (s *Store) disconnect(l *lease) error {
	if err := s.unpublish(l); err != nil {
		return err
	}
	if err := s.route.deleteLink(l.HostLink); err != nil {
		return err
	}
	return s.drop(l)
}

// Release ends the network of a container that has ended: published ports,
// attachment and the pin of its namespace. The link goes when the kernel
// destroys the namespace, some ms after the last process left it; until then
// nobody is given its address. A container that has no network is no error.
func (s *Store) Release(ctx context.Context, containerID string) error {
	if err := checkID(containerID); err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	err := s.releaseLease(containerID)
	if err := errors.Join(err, s.RemoveNamespace(containerID)); err != nil {
		return fmt.Errorf("release network of container %s: %w", containerID, classify(err))
	}
	return ctx.Err()
}

func (s *Store) releaseLease(id string) error {
	l, ok := s.lease(id)
	if !ok {
		return nil
	}
	if err := s.unpublish(l); err != nil {
		return err
	}
	return s.depart(l)
}

// hostLinkName derives a name of 15 bytes, the kernel's maximum, from the
// endpoint's ID, so that a container that starts again does not meet its old
// link. The prefix is what NetworkManager and dhcpcd leave alone.
func hostLinkName(endpointID string) string {
	return hostLinkPrefix + endpointID[:15-len(hostLinkPrefix)]
}

const hostLinkPrefix = "veth"

// hostMAC derives the address of the host's side: locally administered and fe, as
// libvirt does, above any address a bridge could want to take over.
func hostMAC(link string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(link))
	return net.HardwareAddr{0xfe, sum[0], sum[1], sum[2], sum[3], sum[4]}
}
