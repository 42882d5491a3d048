package network

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/berth-containers/berth/errdefs"
)

func TestIdentitiesSurviveARestart(t *testing.T) {
	opts := testOptions(t)
	s := openStore(t, opts)
	before := s.List()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after := openStore(t, opts).List()
	for i, n := range before {
		if n.ID != after[i].ID || len(n.ID) != 64 || n.Name != after[i].Name || !n.Created.Equal(after[i].Created) {
			t.Errorf("network %+v became %+v", n, after[i])
		}
	}
	if got := []string{before[0].Driver, before[1].Driver, before[2].Driver}; !slices.Equal(got, []string{"bridge", "host", "null"}) {
		t.Errorf("drivers %v", got)
	}
	b := before[0]
	if b.Gateway.String() != "10.77.0.1" || b.Subnet != opts.Subnet || b.Link != "test0" || b.MTU != 1500 {
		t.Errorf("bridge %+v", b)
	}
	for _, ref := range []string{"", "default", "bridge", b.ID, b.ID[:12]} {
		if n, err := s.Inspect(ref); err != nil || n.ID != b.ID {
			t.Errorf("Inspect(%q) = %s, %v", ref, n.Name, err)
		}
	}
	if _, err := s.Inspect("nowhere"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown network: %v", err)
	}
}

// useOnHost gives the host an address in the subnet.
func useOnHost(t *testing.T, link, addr string) {
	t.Helper()
	l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: link}}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(l); err != nil {
			t.Error(err)
		}
	})
	configure(t, link, addr)
}

func TestSubnetIsChosenBesideTheHosts(t *testing.T) {
	opts := testOptions(t)
	opts.Subnet = netip.Prefix{}
	opts.Pool = []netip.Prefix{netip.MustParsePrefix("10.80.0.0/16"), netip.MustParsePrefix("10.81.0.0/16")}
	needRoot(t)
	useOnHost(t, "lan0", "10.80.7.1/24")
	s := openStore(t, opts)
	if got := s.List()[0].Subnet.String(); got != "10.81.0.0/16" {
		t.Errorf("subnet %s", got)
	}
	a, err := tryConnect(t, s, "a")
	if err != nil {
		t.Fatal(err)
	}
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(context.Background(), opts); err != nil {
			t.Fatal(err)
		}
	}
	// The host moves to a network that overlaps: nothing changes under a container.
	useOnHost(t, "lan1", "10.81.7.1/24")
	opts.Pool = append(opts.Pool, netip.MustParsePrefix("10.82.0.0/16"))
	reopen()
	if got := s.List()[0].Containers["a"].IP; got != a.IP || s.List()[0].Subnet.String() != "10.81.0.0/16" {
		t.Errorf("address %s, subnet %s", got, s.List()[0].Subnet)
	}
	if err := s.Release(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	reopen()
	if got := s.List()[0].Subnet.String(); got != "10.82.0.0/16" {
		t.Errorf("subnet %s after the containers left", got)
	}
	addrs, err := s.query.AddrList(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: s.bridge.index}}, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.82.0.1/16" {
		t.Errorf("addresses of the bridge %v, %v", addrs, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	needRoot(t)
	useOnHost(t, "lan0", "10.80.7.1/24")
	for name, c := range map[string]struct {
		change func(*Options)
		class  error
	}{
		"configured subnet overlaps": {func(o *Options) { o.Subnet = netip.MustParsePrefix("10.80.0.0/16") }, errdefs.ErrConflict},
		"pool overlaps": {func(o *Options) {
			o.Subnet, o.Pool = netip.Prefix{}, []netip.Prefix{netip.MustParsePrefix("10.80.7.0/25")}
		}, errdefs.ErrConflict},
		"somebody's link": {func(o *Options) { o.BridgeLink = "lan0" }, errdefs.ErrConflict},
		"name too long":   {func(o *Options) { o.BridgeLink = "sixteen-letters0" }, errdefs.ErrInvalid},
		"name with slash": {func(o *Options) { o.BridgeLink = "a/b" }, errdefs.ErrInvalid},
		"IPv6":            {func(o *Options) { o.Subnet = netip.MustParsePrefix("fd00::/64") }, errdefs.ErrInvalid},
		"no room":         {func(o *Options) { o.Subnet = netip.MustParsePrefix("10.1.1.0/31") }, errdefs.ErrInvalid},
		"bad pool":        {func(o *Options) { o.Pool = []netip.Prefix{{}} }, errdefs.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			opts := testOptions(t)
			c.change(&opts)
			s, err := Open(context.Background(), opts)
			if !errors.Is(err, c.class) {
				t.Errorf("Open: %v, want class %v", err, c.class)
			}
			if s != nil {
				s.Close()
			}
			opts.BridgeLink = "test0"
			if err := Purge(context.Background(), Options{StateDir: opts.StateDir, RunDir: opts.RunDir, NetnsDir: opts.NetnsDir, BridgeLink: "test0"}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTwoEngines: with names and subnets of their own they do not disturb each
// other.
func TestTwoEngines(t *testing.T) {
	r := newRig(t)
	opts := testOptions(t)
	opts.BridgeLink, opts.Subnet = "test1", netip.MustParsePrefix("10.78.0.0/24")
	other, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	_, ns := r.container("a", PortBinding{ContainerPort: 80, HostPort: 8001})
	r.serve(ns, "tcp", ":80", "a")
	b, err := tryConnect(t, other, "b", PortBinding{ContainerPort: 80, HostPort: 8002})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryConnect(t, other, "c", PortBinding{ContainerPort: 80, HostPort: 8001}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("port of the other engine: %v", err)
	}
	path := filepath.Join(opts.NetnsDir, "b")
	r.serve(path, "tcp", ":80", "b")
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "a "+outsideAddr)
	r.wantAnswer(r.outside, "tcp", hostAddr+":8002", "b "+outsideAddr)
	r.wantNoAnswer(ns, "tcp", b.IP.String()+":80") // isolated from each other
	if err := errors.Join(other.Close(), Purge(context.Background(), opts)); err != nil {
		t.Fatal(err)
	}
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "a "+outsideAddr)
	if rules := ruleset(t); strings.Contains(rules, "test1") {
		t.Errorf("rules:\n%s", rules)
	}
}

func TestStatsAreTheContainersView(t *testing.T) {
	r := newRig(t)
	_, ns := r.container("a")
	var received, sent uint64
	r.serve(ns, "tcp", ":80", "a")
	r.wantAnswer("", "tcp", "10.77.0.2:80", "a 10.77.0.1")
	look := func() {
		r.in(ns, func() error {
			l, err := netlink.LinkByName("eth0")
			if err == nil {
				received, sent = l.Attrs().Statistics.RxBytes, l.Attrs().Statistics.TxBytes
			}
			return err
		})
	}
	var got Stats
	var err error
	for before := uint64(0); before == 0 || before != received+sent; { // the end of the connection may be under way
		look()
		before = received + sent
		if got, err = r.store.Stats("a"); err != nil {
			t.Fatal(err)
		}
		look()
	}
	if got.RxBytes != received || got.TxBytes != sent || received == sent || got.RxPackets == 0 || got.TxPackets == 0 {
		t.Errorf("stats %+v, eth0 received %d, sent %d", got, received, sent)
	}
	if _, err := r.store.Stats("nobody"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("stats of nobody: %v", err)
	}
}
