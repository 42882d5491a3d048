package network

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
)

// socket is a netlink socket bound to the network namespace it was made in. It
// carries one request at a time.
type socket struct {
	protocol int // unix.NETLINK_ROUTE or unix.NETLINK_NETFILTER
	handles  map[int]*nl.SocketHandle
}

// openSocket opens it in the calling thread's namespace.
func openSocket(protocol int) (*socket, error) {
	sock, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := sock.SetExtAck(true); err != nil { // the kernel's own words with its errno
		sock.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return &socket{protocol: protocol, handles: map[int]*nl.SocketHandle{protocol: {Socket: sock}}}, nil
}

func (s *socket) close() {
	for _, h := range s.handles {
		h.Close()
	}
}

func (s *socket) do(typ, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = s.handles
	for _, p := range parts {
		req.AddData(p)
	}
	return req.Execute(s.protocol, 0)
}
