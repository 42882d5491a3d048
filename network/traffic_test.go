package network

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestPublishedPortIsReachedFromEverywhere(t *testing.T) {
	needRoot(t)
	// Per network namespace; absent when the kernel has no br_netfilter.
	const bridgeHooks = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	for _, hooks := range []string{"0", "1"} {
		if err := os.WriteFile(bridgeHooks, []byte(hooks), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		t.Run("bridge hooks "+hooks, testReachedFromEverywhere)
	}
}

func testReachedFromEverywhere(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			r := newRig(t)
			web, webNS := r.container("web", PortBinding{Proto: proto, ContainerPort: 80, HostPort: 8080})
			other, otherNS := r.container("other")
			r.serve(webNS, proto, ":80", "web")
			gateway := web.Gateway.String()

			r.wantAnswer(r.outside, proto, hostAddr+":8080", "web "+outsideAddr)
			r.wantAnswer("", proto, "127.0.0.1:8080", "web "+gateway)
			r.wantAnswer("", proto, "127.0.0.9:8080", "web "+gateway)
			r.wantAnswer("", proto, gateway+":8080", "web "+gateway)
			r.wantAnswer("", proto, hostAddr+":8080", "web "+hostAddr)
			r.wantAnswer("", proto, web.IP.String()+":80", "web "+gateway)
			// Containers, itself among them, must get the answer from where they asked.
			r.wantAnswer(otherNS, proto, hostAddr+":8080", "web "+gateway)
			r.wantAnswer(otherNS, proto, gateway+":8080", "web "+gateway)
			r.wantAnswer(webNS, proto, hostAddr+":8080", "web "+gateway)
			r.wantAnswer(webNS, proto, gateway+":8080", "web "+gateway)
			// Without the published port.
			r.wantAnswer(otherNS, proto, web.IP.String()+":80", "web "+other.IP.String())
		})
	}
}

func TestContainerReachesOutsideMasqueraded(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			r := newRig(t)
			_, ns := r.container("c")
			r.serve(r.outside, proto, ":7000", "outside")
			r.wantAnswer(ns, proto, outsideAddr+":7000", "outside "+hostAddr)
		})
	}
}

func TestOutsideReachesOnlyWhatIsPublished(t *testing.T) {
	r := newRig(t)
	c, ns := r.container("c", PortBinding{ContainerPort: 80, HostPort: 8080})
	r.serve(ns, "tcp", ":80", "c")
	r.serve(ns, "tcp", ":81", "c")
	r.wantNoAnswer(r.outside, "tcp", c.IP.String()+":80")
	r.wantNoAnswer(r.outside, "tcp", c.IP.String()+":81")
	r.wantNoAnswer(r.outside, "tcp", hostAddr+":81")
	r.wantAnswer(r.outside, "tcp", hostAddr+":8080", "c "+outsideAddr)
}

func TestPortPublishedOnOneAddress(t *testing.T) {
	r := newRig(t)
	local := netip.MustParseAddr("127.0.0.1")
	a, ns := r.container("c",
		PortBinding{ContainerPort: 80, HostIP: local, HostPort: 8080},
		PortBinding{ContainerPort: 81, HostIP: netip.MustParseAddr(hostAddr), HostPort: 8080})
	r.serve(ns, "tcp", ":80", "local")
	r.serve(ns, "tcp", ":81", "public")
	gateway := a.Gateway.String()
	r.wantAnswer("", "tcp", "127.0.0.1:8080", "local "+gateway)
	r.wantAnswer("", "tcp", hostAddr+":8080", "public "+hostAddr)
	r.wantAnswer(r.outside, "tcp", hostAddr+":8080", "public "+outsideAddr)
	r.wantNoAnswer("", "tcp", "127.0.0.2:8080")
	r.wantNoAnswer("", "tcp", gateway+":8080")

	// A machine next to the host sends it packets for 127.0.0.1.
	sendLoopbackTo(r, r.outside, hostAddr)
	r.wantNoAnswer(r.outside, "tcp", "127.0.0.1:8080")
}

// TestHostLoopbackStaysClosed: route_localnet must not let a container reach
// what the host serves on 127.0.0.1, published ports or others.
func TestHostLoopbackStaysClosed(t *testing.T) {
	r := newRig(t)
	a, ns := r.container("c")
	_, web := r.container("web", PortBinding{ContainerPort: 80, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080})
	r.serve(web, "tcp", ":80", "web")
	r.serve("", "tcp", "127.0.0.1:9000", "host")
	r.serve("", "udp", "127.0.0.1:9000", "host")
	r.wantAnswer("", "tcp", "127.0.0.1:9000", "host 127.0.0.1")
	sendLoopbackTo(r, ns, a.Gateway.String())
	r.wantNoAnswer(ns, "tcp", "127.0.0.1:9000")
	r.wantNoAnswer(ns, "udp", "127.0.0.1:9000")
	r.wantNoAnswer(ns, "tcp", "127.0.0.1:8080")
}

// sendLoopbackTo makes the namespace route 127.0.0.1 to a neighbour.
func sendLoopbackTo(r *rig, ns, gateway string) {
	r.t.Helper()
	r.in(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		own, err := netlink.ParseAddr("127.0.0.1/8")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.AddrDel(lo, own), netlink.LinkSetDown(lo)); err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := writeSysctl("net/ipv4/conf/eth0/route_localnet", "1"); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.ParseIP(gateway),
			Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(32, 32)}})
	})
}

// TestLoopbackSourceIsDropped: a packet from a container must not look as if the
// host's loopback had sent it, even where the host accepts its own addresses as
// source (accept_local), as load balancers configure it.
func TestLoopbackSourceIsDropped(t *testing.T) {
	r := newRig(t)
	a, ns := r.container("c")
	if err := writeSysctl("net/ipv4/conf/"+r.opts.BridgeLink+"/accept_local", "1"); err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", ":9001")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	r.in(ns, func() error {
		if err := writeSysctl("net/ipv4/conf/eth0/route_localnet", "1"); err != nil {
			return err
		}
		for _, source := range []string{"127.0.0.1", a.IP.String()} {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
			c, err := d.Dial("udp4", a.Gateway.String()+":9001")
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		return nil
	})
	if err := pc.SetReadDeadline(time.Now().Add(reach)); err != nil {
		t.Fatal(err)
	}
	_, from, err := pc.ReadFrom(make([]byte, 8))
	if err != nil || hostOf(from) != a.IP.String() {
		t.Errorf("first packet from %v, %v", from, err)
	}
}
