package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// chooseSubnet returns the bridge's subnet: the configured one, else the one it had,
// else the first of the pool that overlaps nothing the host uses.
func (s *Store) chooseSubnet(had netip.Prefix) (netip.Prefix, error) {
	taken, err := s.hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	if want := s.opts.Subnet; want.IsValid() {
		if other, overlaps := findOverlap(want, taken); overlaps {
			return netip.Prefix{}, errdefs.WithHint(errdefs.As(errdefs.ErrConflict,
				fmt.Errorf("subnet %s overlaps %s, which this host uses", want, other)),
				"configure another bridge subnet")
		}
		return want, nil
	}
	if had.IsValid() {
		// With containers on it the subnet stays, whatever route came since.
		if _, overlaps := findOverlap(had, taken); !overlaps || len(s.leases) > 0 {
			return had, nil
		}
	}
	for _, p := range s.opts.Pool {
		if _, overlaps := findOverlap(p, taken); !overlaps {
			return p.Masked(), nil
		}
	}
	return netip.Prefix{}, errdefs.WithHint(errdefs.As(errdefs.ErrConflict,
		errors.New("every subnet of the pool overlaps a network of this host")),
		"configure a bridge subnet that is free")
}

// hostPrefixes lists the IPv4 networks the host reaches or is part of, except for
// our bridge and the default route.
func (s *Store) hostPrefixes() ([]netip.Prefix, error) {
	own, err := s.route.index(s.opts.BridgeLink)
	if err != nil {
		return nil, err
	}
	var taken []netip.Prefix
	addrs, err := dump(func() ([]netlink.Addr, error) { return s.query.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && a.LinkIndex != own {
			taken = append(taken, p)
		}
	}
	// Every table: policy routing (VPNs) keeps its networks outside of main.
	routes, err := dump(func() ([]netlink.Route, error) {
		return s.query.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		p, ok := prefixOf(r.Dst)
		// 0.0.0.0/0 and VPNs' 0.0.0.0/1 pairs are defaults, not networks.
		if ok && p.Bits() > 1 && r.LinkIndex != own {
			taken = append(taken, p)
		}
	}
	return taken, nil
}

func findOverlap(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		if p.Overlaps(t) {
			return t, true
		}
	}
	return netip.Prefix{}, false
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, ones).Masked(), ok
}

// lastAddr returns the highest address of an IPv4 prefix, its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}

// usable says whether a container of the subnet may have the address.
func usable(subnet netip.Prefix, gateway, a netip.Addr) bool {
	return a.Is4() && subnet.Contains(a) && a != subnet.Addr() && a != gateway && a != lastAddr(subnet)
}
