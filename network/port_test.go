package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// tryConnect connects a new namespace and returns Connect's error.
func tryConnect(t *testing.T, s *Store, id string, ports ...PortBinding) (*Attachment, error) {
	t.Helper()
	path, err := s.NewNamespace(id)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Connect(context.Background(), Endpoint{ContainerID: id, NetnsPath: path, Ports: ports})
	if err != nil {
		if err := s.RemoveNamespace(id); err != nil {
			t.Error(err)
		}
	}
	return a, err
}

// wantNothingOf checks that a failed Connect left no trace.
func wantNothingOf(t *testing.T, s *Store, linksBefore []string) {
	t.Helper()
	if got := linkNames(t); !slices.Equal(got, linksBefore) {
		t.Errorf("links %v, before %v", got, linksBefore)
	}
	if len(s.leases)+len(s.used)+len(s.departed) != 0 {
		t.Errorf("leases %v, addresses %v, departed %v", s.leases, s.used, s.departed)
	}
	entries, err := os.ReadDir(s.opts.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), leaseSuffix) {
			t.Errorf("file %s is left", e.Name())
		}
	}
	if rules := ruleset(t); strings.Contains(rules, "elements") {
		t.Errorf("ports are left:\n%s", rules)
	}
}

func TestPortAlreadyBoundOnHost(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:8080", "127.0.0.1:8080"} {
		t.Run(listen, func(t *testing.T) {
			s := openStore(t, testOptions(t))
			ln, err := net.Listen("tcp4", listen)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			before := linkNames(t)
			free := PortBinding{ContainerPort: 81, HostPort: 8081}
			_, err = tryConnect(t, s, "c", free, PortBinding{ContainerPort: 80, HostPort: 8080})
			if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "0.0.0.0:8080/tcp: port already bound") {
				t.Errorf("error %v, want a conflict that names the port", err)
			}
			if hint := errdefs.Hint(err); !strings.Contains(hint, fmt.Sprintf("(pid %d)", os.Getpid())) {
				t.Errorf("hint %q does not name this process", hint)
			}
			wantNothingOf(t, s, before)
			other, err := net.Listen("tcp4", ":8081") // given back
			if err != nil {
				t.Fatal(err)
			}
			other.Close()
		})
	}
}

func TestPublishedPortIsTakenUntilReleased(t *testing.T) {
	s := openStore(t, testOptions(t))
	ctx := context.Background()
	tcp, udp := PortBinding{ContainerPort: 80, HostPort: 8080}, PortBinding{Proto: "udp", ContainerPort: 80, HostPort: 8080}
	if _, err := tryConnect(t, s, "first", tcp, udp); err != nil {
		t.Fatal(err)
	}
	for _, b := range []PortBinding{tcp, udp, {ContainerPort: 80, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080}} {
		_, err := tryConnect(t, s, "second", b)
		if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(errdefs.Hint(err), "container first publishes it") {
			t.Errorf("publish %v: %v, hint %q", b, err, errdefs.Hint(err))
		}
	}
	// Servers set SO_REUSEADDR, as Go's Listen does, and must be refused all the same.
	if ln, err := net.Listen("tcp4", ":8080"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("listen on the published port: %v, %v", ln, err)
	}
	if pc, err := net.ListenPacket("udp4", ":8080"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("listen on the published UDP port: %v, %v", pc, err)
	}
	if err := s.Release(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	if _, err := tryConnect(t, s, "second", tcp, udp); err != nil {
		t.Errorf("after release: %v", err)
	}
}

// TestReservedPortIsClosed: the reservation must neither accept nor keep quiet.
func TestReservedPortIsClosed(t *testing.T) {
	needRoot(t)
	r, err := reservePort(unix.IPPROTO_TCP, netip.MustParseAddrPort("127.0.0.1:8090"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.release()
	if _, err := net.DialTimeout("tcp4", "127.0.0.1:8090", reach); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect: %v, want refused", err)
	}
}

// TestReserveAfterServer: connections of a server that stopped (TIME_WAIT) do not
// keep its port from being published.
func TestReserveAfterServer(t *testing.T) {
	needRoot(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:8091")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp4", "127.0.0.1:8091")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // first, so that TIME_WAIT is the server's
	buf := make([]byte, 1)
	if _, err := client.Read(buf); err == nil {
		t.Fatal("read something")
	}
	client.Close()
	ln.Close()
	r, err := reservePort(unix.IPPROTO_TCP, netip.MustParseAddrPort("0.0.0.0:8091"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.release()
	second, err := reservePort(unix.IPPROTO_TCP, netip.MustParseAddrPort("0.0.0.0:8091"))
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second reservation: %v, %v", second, err)
	}
}

func TestHostPortIsChosen(t *testing.T) {
	s := openStore(t, testOptions(t))
	any := PortBinding{ContainerPort: 80}
	ranged := PortBinding{ContainerPort: 81, HostPort: 9000, HostPortEnd: 9001}
	a, err := tryConnect(t, s, "a", any, any, ranged)
	if err != nil {
		t.Fatal(err)
	}
	if p := a.Ports; p[0].HostPort == 0 || p[1].HostPort == 0 || p[0].HostPort == p[1].HostPort || p[2].HostPort != 9000 {
		t.Errorf("ports %v", p)
	}
	b, err := tryConnect(t, s, "b", ranged)
	if err != nil {
		t.Fatal(err)
	}
	if b.Ports[0].HostPort != 9001 || b.Ports[0].HostPortEnd != 0 || b.Ports[0].Proto != "tcp" || b.Ports[0].HostIP != netip.IPv4Unspecified() {
		t.Errorf("second of the range: %+v", b.Ports[0])
	}
	_, err = tryConnect(t, s, "c", ranged)
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "9000-9001") {
		t.Errorf("range exhausted: %v", err)
	}
}

func TestPortsThatCannotBe(t *testing.T) {
	s := openStore(t, testOptions(t))
	before := linkNames(t)
	for _, c := range []struct {
		b     PortBinding
		class error
	}{
		{PortBinding{Proto: "sctp", ContainerPort: 1}, errdefs.ErrUnsupported},
		{PortBinding{ContainerPort: 1, HostIP: netip.IPv6Unspecified()}, errdefs.ErrUnsupported},
		{PortBinding{}, errdefs.ErrInvalid},
		{PortBinding{ContainerPort: 1, HostPort: 9, HostPortEnd: 8}, errdefs.ErrInvalid},
		{PortBinding{ContainerPort: 1, HostPortEnd: 8}, errdefs.ErrInvalid},
		{PortBinding{ContainerPort: 1, HostPort: 9, HostIP: netip.MustParseAddr("203.0.113.7")}, errdefs.ErrInvalid},
	} {
		if _, err := tryConnect(t, s, "c", c.b); !errors.Is(err, c.class) {
			t.Errorf("%+v: %v, want class %v", c.b, err, c.class)
		}
	}
	wantNothingOf(t, s, before)
}

// TestUDPFlowsFollowThePort: a client that keeps its socket reaches the next
// container, and one that sent before the port was published the first.
func TestUDPFlowsFollowThePort(t *testing.T) {
	r := newRig(t)
	var c net.Conn
	r.in(r.outside, func() (err error) { c, err = net.Dial("udp4", hostAddr+":5353"); return err })
	defer c.Close()
	// Goes to nobody, and the kernel tracks it. The host's refusal is read, so it
	// is past.
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("before publishing: %v", err)
	}
	for _, name := range []string{"first", "second"} {
		_, ns := r.container(name, PortBinding{Proto: "udp", ContainerPort: 53, HostPort: 5353})
		r.serve(ns, "udp", ":53", name)
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := readWithin(c, buf)
		if got := strings.TrimSpace(string(buf[:n])); got != name+" "+outsideAddr {
			t.Errorf("answer %q, %v; want of %s", got, err, name)
		}
		if err := r.store.Release(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChosenPortIsHeld: a port the kernel chose is as much ours as one asked for.
func TestChosenPortIsHeld(t *testing.T) {
	needRoot(t)
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		r, err := reservePort(proto, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.release()
		port, err := r.port()
		if err != nil || port == 0 {
			t.Fatalf("port %d, %v", port, err)
		}
		again, err := reservePort(proto, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("protocol %d: port %d was given twice: %v", proto, port, err)
			again.release()
		}
	}
}
