package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// bridge is the bridge as the kernel has it.
type bridge struct {
	index   int
	subnet  netip.Prefix
	gateway netip.Addr // the bridge's own address, the subnet's first
}

// ensureBridge makes the bridge, or takes up ours, with its address and settings.
func (s *Store) ensureBridge() error {
	name := s.opts.BridgeLink
	link, err := s.query.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if err := s.route.addBridge(name, macOf(s.bridge.gateway), s.mtu); err != nil {
			return err
		}
	} else if err != nil {
		return fmt.Errorf("look up link %s: %w", name, err)
	} else if err := s.checkOurBridge(link); err != nil {
		return err
	}
	if s.bridge.index, err = s.route.index(name); err != nil {
		return err
	}
	if err := s.setBridgeAddress(); err != nil {
		return err
	}
	if err := setBridgeSysctls(name); err != nil {
		return err
	}
	return s.route.setUp(name)
}

// healBridge makes the bridge anew when somebody has deleted it since Open, and
// puts the links of all containers back on it. healed says that it did.
func (s *Store) healBridge() (healed bool, err error) {
	s.bridging.Lock()
	defer s.bridging.Unlock()
	index, err := s.route.index(s.opts.BridgeLink)
	if err != nil || index == s.bridge.index {
		return false, err
	}
	if err := s.ensureBridge(); err != nil {
		return false, err
	}
	s.mu.Lock()
	leases := slices.Collect(maps.Values(s.leases))
	s.mu.Unlock()
	for _, l := range leases {
		if _, rerr := s.reattach(l); rerr != nil {
			err = errors.Join(err, rerr)
		}
	}
	return true, err
}

// checkOurBridge refuses a link of somebody else.
func (s *Store) checkOurBridge(link netlink.Link) error {
	if isOurBridge(link) {
		return nil
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrConflict,
		fmt.Errorf("link %s exists and was not made by berth", s.opts.BridgeLink)),
		"configure another bridge name or delete the link")
}

// isOurBridge knows ours by its MAC, derived from a gateway address.
func isOurBridge(link netlink.Link) bool {
	mac := link.Attrs().HardwareAddr
	return link.Type() == "bridge" && len(mac) == 6 && mac[0] == macPrefix[0] && mac[1] == macPrefix[1]
}

// setBridgeAddress leaves the bridge with the gateway's address only: it may
// carry that of an earlier subnet.
func (s *Store) setBridgeAddress() error {
	want := netip.PrefixFrom(s.bridge.gateway, s.bridge.subnet.Bits())
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: s.opts.BridgeLink, Index: s.bridge.index}}
	addrs, err := dump(func() ([]netlink.Addr, error) { return s.query.AddrList(link, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", s.opts.BridgeLink, err)
	}
	for _, a := range addrs {
		if got, ok := netip.AddrFromSlice(a.IP.To4()); ok && got == want.Addr() {
			continue
		}
		if err := s.query.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s of %s: %w", a.IPNet, s.opts.BridgeLink, err)
		}
	}
	return s.route.addAddress(s.bridge.index, want)
}

// setBridgeSysctls: route_localnet lets the host's 127.0.0.1 talk to a container
// (the kernel else refuses to send from, and to accept for, loopback addresses
// on a link that is not loopback); the table's raw chain drops what containers
// could do with it. The bridge has no IPv6.
func setBridgeSysctls(link string) error {
	if err := writeSysctl("net/ipv4/conf/"+link+"/route_localnet", "1"); err != nil {
		return err
	}
	return disableIPv6(link)
}

// disableIPv6 does so for a link of the calling thread's namespace, or, named
// "default", for those made from now on.
func disableIPv6(link string) error {
	err := writeSysctl("net/ipv6/conf/"+link+"/disable_ipv6", "1")
	if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return nil
	}
	return err
}

// needHairpin says whether bridged frames pass through the IP hooks
// (br_netfilter, which Kubernetes and Docker switch on). A container's packet to
// a port that it publishes itself is then translated on the bridge and has to
// leave by the port it came from, which a bridge refuses unless told. It is not
// told without need, as containers get their own broadcasts back with it.
func needHairpin() bool {
	value, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(value)) == "1" // absent: no br_netfilter
}

func writeSysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", strings.ReplaceAll(name, "/", "."), value, err)
	}
	return nil
}

// hostChanges is what Open changed on the host beyond links and tables; it is
// kept where a reboot, which undoes the change, also removes it.
type hostChanges struct {
	// EnabledForwarding: net.ipv4.ip_forward was 0.
	EnabledForwarding bool
}

const forwardSysctl = "net/ipv4/ip_forward"

func hostChangesPath(runDir string) string { return filepath.Join(runDir, "host.json") }

func readHostChanges(runDir string) (hostChanges, error) {
	var c hostChanges
	path := hostChangesPath(runDir)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}

// enableForwarding lets the host route between its links, which it then does
// for all of them.
func (s *Store) enableForwarding() error {
	if on, err := forwardingIsOn(); err != nil || on {
		return err
	}
	if err := writeJSON(hostChangesPath(s.opts.RunDir), hostChanges{EnabledForwarding: true}, false); err != nil {
		return err
	}
	return writeSysctl(forwardSysctl, "1")
}

func forwardingIsOn() (bool, error) {
	value, err := os.ReadFile("/proc/sys/" + forwardSysctl)
	return strings.TrimSpace(string(value)) == "1", err
}

// chooseMTU returns the configured MTU or that of the default route's device,
// so that a packet of a container fits through it.
func (s *Store) chooseMTU() (int, error) {
	if s.opts.MTU > 0 {
		return s.opts.MTU, nil
	}
	const usual = 1500
	routes, err := dump(func() ([]netlink.Route, error) { return s.query.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); r.LinkIndex == 0 || r.Dst != nil && (!ok || p.Bits() != 0) {
			continue
		}
		link, err := s.query.LinkByIndex(r.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("look up device of the default route: %w", err)
		}
		return link.Attrs().MTU, nil
	}
	return usual, nil
}

// macPrefix begins the Ethernet addresses of containers and bridge: locally
// administered, unicast, and not Docker's 02:42.
var macPrefix = [2]byte{0x02, 0xbe}

// macOf derives the Ethernet address from the IPv4 address, as Docker does. A container that
// gets the address of an earlier one so has its Ethernet address as well, and
// no neighbour's ARP cache is wrong.
func macOf(ip netip.Addr) net.HardwareAddr {
	a := ip.As4()
	return net.HardwareAddr{macPrefix[0], macPrefix[1], a[0], a[1], a[2], a[3]}
}
