package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows removes UDP flows the kernel tracks to the lease's host ports or
// its container. UDP has no end of connection: without this a client that went on
// sending would keep the translation, or the lack of one, from before.
func (s *Store) forgetFlows(l *lease) error {
	f := staleFlows{lease: l, ports: map[uint16]bool{}}
	for _, b := range l.Ports {
		if b.Proto == "udp" {
			f.ports[b.HostPort] = true
		}
	}
	if len(f.ports) == 0 {
		return nil
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
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

// staleFlows matches the flows of a lease's UDP ports.
type staleFlows struct {
	lease *lease
	ports map[uint16]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	if f.ports[flow.Forward.DstPort] {
		return true
	}
	return flow.Reverse.SrcIP.Equal(f.lease.IP.AsSlice())
}
