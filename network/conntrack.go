package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows removes UDP flows the kernel tracks to the lease's host ports. UDP has no end of connection: without this a client that went on
// sending would keep the translation, or the lack of one, from before.
func (s *Store) forgetFlows(l *lease) error {
	f := staleFlows{ports: map[uint16]bool{}, host: map[netip.Addr]bool{}}
	for _, b := range l.Ports {
		if b.Proto == "udp" {
			f.ports[b.HostPort] = true
		}
	}
	if len(f.ports) == 0 {
		return nil
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return s.query.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			f.host[ip] = true
		}
	}
	_, err = s.query.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
	// Interrupted: the table changed while it was read, as it always does under
	// load; the flows deleted are those of this moment either way. Not supported:
	// a kernel without conntrack's netlink lets the flows run into their timeout.
	if errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget UDP flows: %w", err)
	}
	return nil
}

// staleFlows matches UDP flows to ports of the host.
type staleFlows struct {
	host  map[netip.Addr]bool // the host's own addresses
	ports map[uint16]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP.To4())
	return ok && f.ports[flow.Forward.DstPort] && (f.host[to] || to.IsLoopback())
}
