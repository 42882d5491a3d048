package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/berth-containers/berth/errdefs"
)

// connectAt connects a new namespace with a wanted address; "" wants none.
func connectAt(t *testing.T, s *Store, id, ip string) (*Attachment, error) {
	t.Helper()
	path, err := s.NewNamespace(id)
	if err != nil {
		t.Fatal(err)
	}
	ep := Endpoint{ContainerID: id, NetnsPath: path}
	if ip != "" {
		ep.IP = netip.MustParseAddr(ip)
	}
	a, err := s.Connect(context.Background(), ep)
	if err != nil {
		if err := s.RemoveNamespace(id); err != nil {
			t.Error(err)
		}
	}
	return a, err
}

func mustConnectAt(t *testing.T, s *Store, id, ip, want string) {
	t.Helper()
	a, err := connectAt(t, s, id, ip)
	if err != nil {
		t.Fatal(err)
	}
	if a.IP.String() != want {
		t.Errorf("container %s has address %s, want %s", id, a.IP, want)
	}
}

func TestAddressesAreSequentialAndNeverTwice(t *testing.T) {
	opts := testOptions(t)
	opts.Subnet = netip.MustParsePrefix("10.77.0.0/29") // .1 gateway, .2 to .6
	s := openStore(t, opts)
	ctx := context.Background()
	mustConnectAt(t, s, "a", "", "10.77.0.2")
	mustConnectAt(t, s, "b", "10.77.0.4", "10.77.0.4")
	mustConnectAt(t, s, "c", "", "10.77.0.3")
	if err := s.Disconnect(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := s.Disconnect(ctx, "c"); err != nil {
		t.Errorf("second Disconnect: %v", err)
	}
	mustConnectAt(t, s, "d", "", "10.77.0.5") // not the one that just became free
	for _, c := range []struct {
		ip    string
		class error
	}{
		{"10.77.0.5", errdefs.ErrConflict},
		{"10.77.0.1", errdefs.ErrInvalid}, // gateway
		{"10.77.0.0", errdefs.ErrInvalid}, // network
		{"10.77.0.7", errdefs.ErrInvalid}, // broadcast
		{"10.77.0.9", errdefs.ErrInvalid}, // outside
		{"fd00::1", errdefs.ErrInvalid},   // IPv6
	} {
		if _, err := connectAt(t, s, "e", c.ip); !errors.Is(err, c.class) {
			t.Errorf("address %s: %v, want class %v", c.ip, err, c.class)
		}
	}

	// Another life of the engine.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, opts)
	mustConnectAt(t, s, "e", "", "10.77.0.6")
	mustConnectAt(t, s, "f", "", "10.77.0.3") // wrapped around
	if _, err := connectAt(t, s, "g", ""); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("full subnet: %v", err)
	}
	n := s.List()[0]
	if len(n.Containers) != 5 || n.Containers["b"].IP.String() != "10.77.0.4" {
		t.Errorf("containers %v", n.Containers)
	}
}

// TestReleasedAddressRestsWhileItsLinkLives: a process may hold the namespace of a
// container that ended.
func TestReleasedAddressRestsWhileItsLinkLives(t *testing.T) {
	opts := testOptions(t)
	opts.Subnet = netip.MustParsePrefix("10.77.0.0/30") // one container
	s := openStore(t, opts)
	ctx := context.Background()
	mustConnectAt(t, s, "a", "", "10.77.0.2")
	first, _ := s.lease("a")
	path := opts.NetnsDir + "/a"
	held := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- runIn(path, func() error { held <- struct{}{}; <-held; return nil })
	}()
	<-held
	if err := s.Release(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := connectAt(t, s, "b", ""); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("address of a link that lives: %v", err)
	}
	// Who wants this very address, as a container with a fixed one that starts
	// again, gets it: the old link goes.
	mustConnectAt(t, s, "a", "10.77.0.2", "10.77.0.2")
	if index, err := s.route.index(first.HostLink); err != nil || index != 0 {
		t.Errorf("old link: index %d, %v", index, err)
	}
	held <- struct{}{}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDepartedQueueStaysShort(t *testing.T) {
	s := openStore(t, testOptions(t))
	for range 40 {
		if _, err := connectAt(t, s, "a", ""); err != nil {
			t.Fatal(err)
		}
		// The link is gone at once here, so that nothing depends on when the kernel
		// gets to it.
		l, _ := s.lease("a")
		if err := s.route.deleteLink(l.HostLink); err != nil {
			t.Fatal(err)
		}
		if err := s.Release(context.Background(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.departed) > 2 || len(s.used) > 2 {
		t.Errorf("%d departed, %d used", len(s.departed), len(s.used))
	}
}

func TestAttachmentIsWhatTheContainerHas(t *testing.T) {
	s := openStore(t, testOptions(t))
	path, err := s.NewNamespace("a")
	if err != nil {
		t.Fatal(err)
	}
	mac, _ := net.ParseMAC("02:00:00:00:00:77")
	ctx := context.Background()
	ep := Endpoint{ContainerID: "a", NetnsPath: path, MAC: mac}
	a, err := s.Connect(ctx, ep)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(ctx, ep); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second Connect: %v", err)
	}
	if a.MAC != mac.String() || a.Network != Bridge || a.NetworkID != s.List()[0].ID || len(a.EndpointID) != 64 {
		t.Errorf("attachment %+v", a)
	}
	if err := runIn(path, func() error { return checkInside(t, a, s.mtu) }); err != nil {
		t.Error(err)
	}
	// Derived from the address.
	b, err := connectAt(t, s, "b", "10.77.0.16")
	if err != nil {
		t.Fatal(err)
	}
	if b.MAC != "02:be:0a:4d:00:10" {
		t.Errorf("derived MAC %s", b.MAC)
	}
}

func checkInside(t *testing.T, a *Attachment, mtu int) error {
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if got := eth.Attrs(); got.HardwareAddr.String() != a.MAC || got.MTU != mtu {
		t.Errorf("eth0 has MAC %s and MTU %d, want %s and %d", got.HardwareAddr, got.MTU, a.MAC, mtu)
	}
	addrs, err := netlink.AddrList(eth, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	want := netip.PrefixFrom(a.IP, a.PrefixLen).String()
	if len(addrs) != 1 || addrs[0].IPNet.String() != want {
		t.Errorf("eth0 has addresses %v, want %s only", addrs, want)
	}
	routes, err := netlink.RouteList(eth, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw.String() == a.Gateway.String() }) {
		t.Errorf("routes %v, none by %s", routes, a.Gateway)
	}
	return nil
}

func TestConnectUndoesItself(t *testing.T) {
	s := openStore(t, testOptions(t))
	ctx := context.Background()
	before := linkNames(t)
	port := PortBinding{ContainerPort: 80, HostPort: 8080}

	_, err := s.Connect(ctx, Endpoint{ContainerID: "a", NetnsPath: s.opts.NetnsDir + "/none", Ports: []PortBinding{port}})
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no namespace: %v", err)
	}
	wantNothingOf(t, s, before)

	// A namespace that has an eth0.
	path, err := s.NewNamespace("taken")
	if err != nil {
		t.Fatal(err)
	}
	if err := runIn(path, func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(ctx, Endpoint{ContainerID: "taken", NetnsPath: path, Ports: []PortBinding{port}}); err == nil {
		t.Error("connected a namespace that has an eth0")
	}
	wantNothingOf(t, s, before)

	// A default route in the way: the last step before the ports.
	path, err = s.NewNamespace("routed")
	if err != nil {
		t.Fatal(err)
	}
	if err := runIn(path, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(ctx, Endpoint{ContainerID: "routed", NetnsPath: path, Ports: []PortBinding{port}}); err == nil {
		t.Error("connected a namespace that has a default route")
	}
	wantNothingOf(t, s, before)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Connect(cancelled, Endpoint{ContainerID: "a", NetnsPath: path, Ports: []PortBinding{port}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	wantNothingOf(t, s, before)

	if _, err := s.Connect(ctx, Endpoint{ContainerID: "a", NetnsPath: path, Network: "nowhere"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown network: %v", err)
	}
	if _, err := s.Connect(ctx, Endpoint{ContainerID: "a", NetnsPath: path, Network: None}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("network none: %v", err)
	}
}
