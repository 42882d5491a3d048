package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/berth-containers/berth/errdefs"
)

// Stats are the counters of a container's eth0 since it was connected: Rx is what
// the container received.
type Stats struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Stats reads the counters off the host's end of the link, where the
// container's Rx is Tx. The error's class is errdefs.ErrNotFound when the container
// is not connected or its link is gone.
func (s *Store) Stats(containerID string) (Stats, error) {
	l, ok := s.lease(containerID)
	if !ok {
		return Stats{}, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("container %s is not connected to a network", containerID))
	}
	link, err := s.query.LinkByName(l.HostLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return Stats{}, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("link %s of container %s not found", l.HostLink, containerID))
	}
	if err != nil {
		return Stats{}, fmt.Errorf("read counters of %s: %w", l.HostLink, err)
	}
	h := link.Attrs().Statistics
	if h == nil {
		return Stats{}, fmt.Errorf("read counters of %s: the kernel gave none", l.HostLink)
	}
	return Stats{
		RxBytes: h.TxBytes, RxPackets: h.TxPackets, RxErrors: h.TxErrors, RxDropped: h.TxDropped,
		TxBytes: h.RxBytes, TxPackets: h.RxPackets, TxErrors: h.RxErrors, TxDropped: h.RxDropped,
	}, nil
}
