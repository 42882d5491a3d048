package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeSocket asks for links, addresses and routes. The messages are built here rather
// than by the netlink library's Link types because those cannot set the master at
// creation nor the peer's address generation, and look every link up once more.
type routeSocket struct{ *socket }

func openRouteSocket() (*routeSocket, error) {
	s, err := openSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &routeSocket{s}, nil
}

// linkMessage is the header of a link request; index 0 means "by IFLA_IFNAME".
func linkMessage(index int, up bool) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	if up {
		m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	}
	return m
}

func nameAttr(name string) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))
}

// noIPv6Address keeps the kernel from giving the link a link-local address:
// IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE = IN6_ADDR_GEN_MODE_NONE } }.
func noIPv6Address() *nl.RtAttr {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(1))
	return spec
}

// addBridge makes a bridge. Without multicast snooping: there is no querier on a
// container network, and without one snooping loses groups.
func (r *routeSocket) addBridge(name string, mac net.HardwareAddr, mtu int) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))
	_, err := r.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, linkMessage(0, false),
		nameAttr(name), nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))),
		// A bridge without an address of its own changes it with its ports.
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac), info)
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return nil
}

// pair describes an Ethernet pair between a bridge and a container.
type pair struct {
	hostName, name string // eth0 is name
	hostMAC, mac   net.HardwareAddr
	mtu, bridge    int // bytes; link index
	netns          int // fd of the container's namespace
}

// addPair makes the pair with the far end in its namespace from the beginning
// and the near end a port of the bridge: no link is moved, and a crash leaves
// no link that is not on the bridge.
func (r *routeSocket) addPair(p pair) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.name))
	peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu)))
	peer.AddRtAttr(unix.IFLA_ADDRESS, p.mac)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(p.netns)))
	_, err := r.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, linkMessage(0, false),
		nameAttr(p.hostName), nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu))),
		// An address given here is one udev's MACAddressPolicy leaves alone.
		nl.NewRtAttr(unix.IFLA_ADDRESS, p.hostMAC),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(p.bridge))), info)
	if err != nil {
		return fmt.Errorf("add link pair %s: %w", p.hostName, err)
	}
	return nil
}

// setUp brings a link up, without IPv6 addresses.
func (r *routeSocket) setUp(name string, more ...nl.NetlinkRequestData) error {
	parts := append([]nl.NetlinkRequestData{linkMessage(0, true), nameAttr(name)}, more...)
	_, err := r.do(unix.RTM_NEWLINK, unix.NLM_F_ACK, append(parts, noIPv6Address())...)
	if errors.Is(err, unix.EAFNOSUPPORT) { // a kernel booted with ipv6.disable=1
		_, err = r.do(unix.RTM_NEWLINK, unix.NLM_F_ACK, parts...)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// hairpin lets a bridge send a frame back through the port it came from:
// IFLA_LINKINFO { IFLA_INFO_SLAVE_DATA { IFLA_BRPORT_MODE = on } }.
func hairpin(on bool) *nl.RtAttr {
	value := nl.Uint8Attr(0)
	if on {
		value = nl.Uint8Attr(1)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(nl.IFLA_BRPORT_MODE, value)
	return info
}

// setMaster makes a link a port of the bridge.
func (r *routeSocket) setMaster(name string, bridge int) error {
	_, err := r.do(unix.RTM_NEWLINK, unix.NLM_F_ACK, linkMessage(0, false), nameAttr(name),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	if err != nil {
		return fmt.Errorf("put %s on the bridge: %w", name, err)
	}
	return nil
}

// deleteLink removes a link and its peer; a link that is gone is no error.
func (r *routeSocket) deleteLink(name string) error {
	_, err := r.do(unix.RTM_DELLINK, unix.NLM_F_ACK, linkMessage(0, false), nameAttr(name))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// index returns the link's index, 0 when there is no such link.
func (r *routeSocket) index(name string) (int, error) {
	msgs, err := r.do(unix.RTM_GETLINK, 0, linkMessage(0, false), nameAttr(name))
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up link %s: %w", name, err)
	}
	if len(msgs) != 1 {
		return 0, fmt.Errorf("look up link %s: %d answers", name, len(msgs))
	}
	return int(nl.DeserializeIfInfomsg(msgs[0]).Index), nil
}

// addAddress gives a link an IPv4 address with its subnet's broadcast address.
// An address the link has already is no error.
func (r *routeSocket) addAddress(index int, p netip.Prefix) error {
	m := nl.NewIfAddrmsg(unix.AF_INET)
	m.Index, m.Prefixlen = uint32(index), uint8(p.Bits())
	addr, broadcast := p.Addr().As4(), lastAddr(p).As4()
	_, err := r.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, m,
		nl.NewRtAttr(unix.IFA_LOCAL, addr[:]), nl.NewRtAttr(unix.IFA_ADDRESS, addr[:]),
		nl.NewRtAttr(unix.IFA_BROADCAST, broadcast[:]))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

func (r *routeSocket) addDefaultRoute(index int, gateway netip.Addr) error {
	gw := gateway.As4()
	m := nl.NewRtMsg()
	m.Family = unix.AF_INET
	_, err := r.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, m,
		nl.NewRtAttr(unix.RTA_GATEWAY, gw[:]), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	if err != nil {
		return fmt.Errorf("add default route via %s: %w", gateway, err)
	}
	return nil
}
