// Package network gives containers their network: a namespace each, an
// Ethernet pair to a bridge, an address from its subnet, translation on the
// way out and published ports on the way in. It speaks netlink and nftables to
// the kernel and executes no program.
//
// There are three networks, known by Docker's names. "bridge" is the one this
// package acts on. "host" (the host's own namespace) and "none" (a namespace
// with nothing but loopback) are records only: who starts the container does
// what they say.
//
// # What it protects against, and what not
//
// Containers of the bridge reach each other, the host's addresses and, by
// masquerade, the outside. From the outside nobody reaches a container but
// through a published port, even with a route to the subnet. A port published
// on 127.0.0.1 cannot be reached from another machine: packets that carry a
// loopback address and do not come from the host itself are not translated, and
// those that come from a container are dropped.
//
// A published port is open to every address the host accepts packets for,
// whatever a host firewall's INPUT rules say, since translation precedes them;
// publish on a single address, or filter in a forward chain, to restrict it.
// The reverse holds too: an accept verdict in our table does not override
// a drop in another one. [Store.Warnings] names the tables that drop our traffic.
//
// IPv6 is switched off on container interfaces and on the bridge.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The names of the networks.
const (
	Bridge = "bridge"
	Host   = "host"
	None   = "none"
)

// Options says where a Store keeps its things. The zero value is what a host's
// only engine uses; further engines on the same host need all of the
// directories, the link name and the subnet to be their own.
type Options struct {
	// StateDir holds network.json: identities and the subnet, which survive a
	// reboot. Zero: /var/lib/berth/network.
	StateDir string
	// RunDir holds the leases, one file per attached container; it should be
	// emptied by a reboot, as the containers are. Zero: /run/berth/network.
	RunDir string
	// NetnsDir holds the pins of the network namespaces. Zero: /run/berth/netns.
	NetnsDir string
	// BridgeLink is the name of the bridge's link and of the nftables table,
	// at most 15 bytes. Zero: berth0.
	BridgeLink string
	// Subnet is the bridge's IPv4 subnet, at least a /30; it is an error when
	// it overlaps with what the host has. Zero: the first of Pool that is free.
	Subnet netip.Prefix
	// Pool is what the subnet is chosen from. Zero: [DefaultPool].
	Pool []netip.Prefix
	// MTU of bridge and containers, bytes. Zero: that of the device of the
	// host's default route, 1500 without one.
	MTU int
	// Logger takes what happens without a caller to tell. Zero: discard.
	Logger *slog.Logger
}

// DefaultPool returns the subnets tried in turn for the bridge. Docker's
// (172.17 and upwards) and Podman's (10.88) defaults are not among them.
func DefaultPool() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("172.29.0.0/16"),
		netip.MustParsePrefix("172.30.0.0/16"),
		netip.MustParsePrefix("172.28.0.0/16"),
		netip.MustParsePrefix("172.27.0.0/16"),
		netip.MustParsePrefix("10.129.0.0/16"),
		netip.MustParsePrefix("10.130.0.0/16"),
		netip.MustParsePrefix("192.168.212.0/24"),
		netip.MustParsePrefix("192.168.213.0/24"),
	}
}

func (o Options) withDefaults() (Options, error) {
	if o.StateDir == "" {
		o.StateDir = "/var/lib/berth/network"
	}
	if o.RunDir == "" {
		o.RunDir = "/run/berth/network"
	}
	if o.NetnsDir == "" {
		o.NetnsDir = "/run/berth/netns"
	}
	if o.BridgeLink == "" {
		o.BridgeLink = "berth0"
	}
	if err := checkLinkName(o.BridgeLink); err != nil {
		return o, err
	}
	if o.Subnet.IsValid() {
		if err := checkSubnet(o.Subnet); err != nil {
			return o, err
		}
		o.Subnet = o.Subnet.Masked()
	}
	if len(o.Pool) == 0 {
		o.Pool = DefaultPool()
	}
	for _, p := range o.Pool {
		if err := checkSubnet(p); err != nil {
			return o, err
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Store is the networks of one engine. Its methods may be called from any
// goroutine. Make one with [Open]; only one may be open on the same directories.
type Store struct {
	opts   Options
	record *record
	mtu    int
	bridge bridge
	// The sockets, all in the host's namespace, stay open: closing one of netfilter's
	// waits, some 10 ms, until the kernel has freed what was deleted last.
	route     *routeSocket
	netfilter *socket
	query     *netlink.Handle
	hostNS    int // fd of the namespace the Store was opened in

	bridging sync.RWMutex // held for writing while the bridge is made anew; guards bridge.index

	mu       sync.Mutex            // guards what follows
	leases   map[string]*lease     // by container ID
	used     map[netip.Addr]string // container IDs, departed ones among them
	departed []*lease              // released, with a link that may still be there, oldest first
	cursor   netip.Addr            // last address handed out

	fw         sync.Mutex     // one firewall act at a time, so that a rebuild misses nothing; guards what follows
	nft        *nftables.Conn // nil: to be opened
	generation uint32         // of the host's firewall after our last change
}

// Open makes the host ready (forwarding, bridge, firewall table), takes up the
// leases that an earlier Store left, with their ports, and returns the Store. It
// removes nothing that belongs to a container: call [Store.Reconcile] when it
// is known which live.
//
// It fails with errdefs.ErrPermission without CAP_NET_ADMIN and CAP_SYS_ADMIN,
// and with errdefs.ErrConflict when no subnet is free or somebody else's link
// has the bridge's name.
func Open(ctx context.Context, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	s := &Store{opts: opts, hostNS: -1, leases: map[string]*lease{}, used: map[netip.Addr]string{}}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open networks: %w", classify(err)), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	for _, dir := range []string{s.opts.StateDir, s.opts.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := preparePinDir(s.opts.NetnsDir); err != nil {
		return err
	}
	var err error
	if s.hostNS, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	if s.route, err = openRouteSocket(); err != nil {
		return err
	}
	if s.netfilter, err = openSocket(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	if s.query, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err := s.loadLeases(); err != nil {
		return err
	}
	if err := s.loadRecord(); err != nil {
		return err
	}
	s.bridge.subnet, s.bridge.gateway = s.record.Subnet, s.record.Subnet.Addr().Next()
	if s.mtu, err = s.chooseMTU(); err != nil {
		return err
	}
	if err := s.ensureBridge(); err != nil {
		return err
	}
	if err := s.enableForwarding(); err != nil {
		return err
	}
	if err := s.rebuildFirewall(); err != nil {
		return err
	}
	s.reservePorts()
	return ctx.Err()
}

// Close releases the sockets, reserved ports among them. Containers keep their
// network; the next Open takes it up again.
func (s *Store) Close() error {
	s.fw.Lock()
	defer s.fw.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.nft != nil {
		err = s.nft.CloseLasting()
		s.nft = nil
	}
	for _, l := range s.leases {
		l.releasePorts()
	}
	if s.query != nil {
		s.query.Close()
		s.query = nil
	}
	if s.route != nil {
		s.route.close()
		s.route = nil
	}
	if s.netfilter != nil {
		s.netfilter.close()
		s.netfilter = nil
	}
	if s.hostNS >= 0 {
		unix.Close(s.hostNS)
		s.hostNS = -1
	}
	return err
}

// Network describes a network.
type Network struct {
	// ID is 64 hexadecimal digits, random, the same after a restart.
	ID      string
	Name    string
	Driver  string // bridge, host or null, by Docker's names
	Created time.Time
	// Subnet and Gateway are invalid for host and none.
	Subnet  netip.Prefix
	Gateway netip.Addr
	// Link is the bridge's link on the host, MTU its size in bytes.
	Link string
	MTU  int
	// Containers are the attachments, by container ID.
	Containers map[string]Attachment
}

// List returns bridge, host and none.
func (s *Store) List() []Network {
	return []Network{s.describeBridge(), s.record.Host.describe("host"), s.record.None.describe("null")}
}

// Inspect finds a network by name, ID or unambiguous start of its ID. The empty
// name and "default" are the bridge. The error's class is errdefs.ErrNotFound.
func (s *Store) Inspect(ref string) (Network, error) {
	if ref == "" || ref == "default" {
		ref = Bridge
	}
	return findNetwork(s.List(), ref)
}

func (s *Store) describeBridge() Network {
	n := s.record.Bridge.describe("bridge")
	n.Subnet, n.Gateway = s.bridge.subnet, s.bridge.gateway
	n.Link, n.MTU = s.opts.BridgeLink, s.mtu
	n.Containers = map[string]Attachment{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.leases {
		n.Containers[id] = l.Attachment.clone()
	}
	return n
}
