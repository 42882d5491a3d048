package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rig is a host with a bridge, and a machine outside on 192.0.2.2, beside the
// host's 192.0.2.1, that has a route to the bridge's subnet through the host.
type rig struct {
	t       testing.TB
	store   *Store
	opts    Options
	outside string // path of the namespace
}

const (
	hostAddr    = "192.0.2.1"
	outsideAddr = "192.0.2.2"
)

func newRig(t testing.TB) *rig {
	t.Helper()
	opts := testOptions(t)
	r := &rig{t: t, opts: opts, store: openStore(t, opts)}
	path, err := r.store.NewNamespace("outside")
	if err != nil {
		t.Fatal(err)
	}
	r.outside = path
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It goes with the namespace outside, where a second store was purged before.
		if err := netlink.LinkDel(veth); err != nil && !errors.Is(err, unix.ENODEV) {
			t.Error(err)
		}
	})
	configure(t, "out0", hostAddr+"/24")
	r.in(path, func() error {
		configure(t, "eth0", outsideAddr+"/24")
		return netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: opts.Subnet.Addr().AsSlice(), Mask: net.CIDRMask(opts.Subnet.Bits(), 32)},
			Gw:  net.ParseIP(hostAddr)})
	})
	return r
}

func configure(t testing.TB, link, addr string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	if err == nil {
		var a *netlink.Addr
		if a, err = netlink.ParseAddr(addr); err == nil {
			err = errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
		}
	}
	if err != nil {
		t.Errorf("configure %s: %v", link, err)
	}
}

// in runs f in the namespace.
func (r *rig) in(path string, f func() error) {
	r.t.Helper()
	if err := runIn(path, f); err != nil {
		r.t.Fatal(err)
	}
}

// runIn runs f on a thread in the namespace; "" is the host's. The thread ends
// with it.
func runIn(path string, f func() error) error {
	if path == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
				err = f()
			}
			unix.Close(fd)
		}
		done <- err
	}()
	return <-done
}

// container makes a namespace and connects it.
func (r *rig) container(id string, ports ...PortBinding) (*Attachment, string) {
	r.t.Helper()
	path, err := r.store.NewNamespace(id)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := r.store.Connect(context.Background(), Endpoint{ContainerID: id, NetnsPath: path, Ports: ports})
	if err != nil {
		r.t.Fatal(err)
	}
	return a, path
}

// serve answers each connection (tcp) or packet (udp) in the namespace with
// the server's name and the client's address, until the test ends.
func (r *rig) serve(path, proto, addr, name string) {
	r.t.Helper()
	switch proto {
	case "tcp":
		var ln net.Listener
		r.in(path, func() (err error) { ln, err = net.Listen("tcp4", addr); return err })
		done := make(chan struct{})
		go func() { defer close(done); serveTCP(ln, name) }()
		r.t.Cleanup(func() { ln.Close(); <-done })
	case "udp":
		var pc net.PacketConn
		r.in(path, func() (err error) { pc, err = net.ListenPacket("udp4", addr); return err })
		done := make(chan struct{})
		go func() { defer close(done); serveUDP(pc, name) }()
		r.t.Cleanup(func() { pc.Close(); <-done })
	}
}

func serveTCP(ln net.Listener, name string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s %s\n", name, hostOf(c.RemoteAddr()))
		c.Close()
	}
}

func serveUDP(pc net.PacketConn, name string) {
	buf := make([]byte, 64)
	for {
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		fmt.Fprintf(packetWriter{pc, from}, "%s %s\n", name, hostOf(from))
	}
}

type packetWriter struct {
	net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

func hostOf(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().String() }

// reach bounds how long a client waits for what should arrive, refuse for what
// should not: only the failure of a test takes the one, only its success the other.
const reach, refuse = 10 * time.Second, 300 * time.Millisecond

// ask connects from the namespace and returns what the server says.
func ask(path, proto, addr string, timeout time.Duration) (string, error) {
	var answer string
	err := runIn(path, func() error {
		c, err := net.DialTimeout(proto+"4", addr, timeout)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if proto == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		answer = strings.TrimSpace(string(buf[:n]))
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	return answer, err
}

// wantAnswer asks and compares: "name client-address".
func (r *rig) wantAnswer(path, proto, addr, want string) {
	r.t.Helper()
	got, err := ask(path, proto, addr, reach)
	if err != nil || got != want {
		r.t.Errorf("%s %s: answer %q, error %v; want %q", proto, addr, got, err, want)
	}
}

// wantNoAnswer asks what must not be reachable.
func (r *rig) wantNoAnswer(path, proto, addr string) {
	r.t.Helper()
	if got, err := ask(path, proto, addr, refuse); err == nil {
		r.t.Errorf("%s %s answered %q, want nothing", proto, addr, got)
	}
}

// ruleset is what `nft list ruleset` prints: the test's own witness.
func ruleset(t testing.TB) string {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("needs the nft program as a witness")
	}
	out, err := exec.Command(nft, "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft list ruleset: %v: %s", err, out)
	}
	return string(out)
}

func linkNames(t testing.TB) []string {
	t.Helper()
	links, err := dump(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readWithin(c net.Conn, buf []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(reach)); err != nil {
		return 0, err
	}
	return c.Read(buf)
}
