package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/berth-containers/berth/errdefs"
)

func TestReconcileAfterKill(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	published := func(port uint16) PortBinding { return PortBinding{ContainerPort: 80, HostPort: port} }
	_, aliveNS := r.container("alive", published(8001))
	dead, _ := r.container("dead", published(8002))
	broken, _ := r.container("broken")
	if _, err := r.store.NewNamespace("orphan"); err != nil {
		t.Fatal(err)
	}
	r.serve(aliveNS, "tcp", ":80", "alive")

	// The engine is gone; the firewall was flushed; a link belongs to nobody; an
	// administrator's own link is on the bridge.
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := deleteTable(r.opts.BridgeLink); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.store.leasePath("dead")); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(broken.HostLink)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	addForeignPort(t, r.opts.BridgeLink)

	s := openStore(t, r.opts)
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "alive "+outsideAddr) // before Reconcile
	rep, err := s.Reconcile(ctx, []string{"alive", "broken", "outside"})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rep.Namespaces)
	if got, want := fmt.Sprint(rep), fmt.Sprint(Report{Namespaces: []string{"dead", "orphan"},
		Links: []string{dead.HostLink}, Broken: []string{"broken"}}); got != want {
		t.Errorf("report %s, want %s", got, want)
	}
	if names := linkNames(t); slices.Contains(names, dead.HostLink) || !slices.Contains(names, "vethadmin") {
		t.Errorf("links %v", names)
	}
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "alive "+outsideAddr)
	if _, err := tryConnect(t, s, "next", published(8001)); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("port of the living: %v", err)
	}
	if _, err := tryConnect(t, s, "next", published(8002)); err != nil {
		t.Errorf("port of the dead: %v", err)
	}

	rep, err = s.Reconcile(ctx, []string{"next", "outside"})
	if err != nil || !slices.Contains(rep.Leases, "alive") || len(rep.Leases) != 2 {
		t.Errorf("report %+v, %v", rep, err)
	}
	r.wantNoAnswer(r.outside, "tcp", hostAddr+":8001")
}

// TestReconcileAfterBridgeWasDeleted: the links of those who live are put back.
func TestReconcileAfterBridgeWasDeleted(t *testing.T) {
	r := newRig(t)
	_, ns := r.container("a", PortBinding{ContainerPort: 80, HostPort: 8001})
	r.serve(ns, "tcp", ":80", "a")
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: r.opts.BridgeLink}}); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, r.opts)
	rep, err := s.Reconcile(context.Background(), []string{"a", "outside"})
	if err != nil || len(rep.Broken)+len(rep.Links)+len(rep.Leases) != 0 {
		t.Errorf("report %+v, %v", rep, err)
	}
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "a "+outsideAddr)
}

// addForeignPort puts a pair of an administrator on the bridge.
func addForeignPort(t *testing.T, bridge string) {
	t.Helper()
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	foreign := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vethadmin", MasterIndex: br.Attrs().Index}, PeerName: "vethadmin1"}
	if err := netlink.LinkAdd(foreign); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(foreign); err != nil {
			t.Error(err)
		}
	})
}

func TestPurgeLeavesTheHostAsItWas(t *testing.T) {
	needRoot(t)
	if err := writeSysctl(forwardSysctl, "0"); err != nil {
		t.Fatal(err)
	}
	links, rules, mounts := linkNames(t), ruleset(t), readFile(t, "/proc/self/mountinfo")
	opts := testOptions(t)
	s, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := tryConnect(t, s, fmt.Sprint("c", i), PortBinding{ContainerPort: 80}); err != nil {
			t.Fatal(err)
		}
	}
	if got := readFile(t, "/proc/sys/"+forwardSysctl); got != "1\n" {
		t.Errorf("forwarding is %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing
		if err := Purge(context.Background(), opts); err != nil {
			t.Fatal(err)
		}
	}
	if got := linkNames(t); !slices.Equal(got, links) {
		t.Errorf("links %v, before %v", got, links)
	}
	if got := ruleset(t); got != rules {
		t.Errorf("firewall:\n%s\nbefore:\n%s", got, rules)
	}
	if got := readFile(t, "/proc/self/mountinfo"); got != mounts {
		t.Errorf("mounts:\n%s\nbefore:\n%s", got, mounts)
	}
	if got := readFile(t, "/proc/sys/"+forwardSysctl); got != "0\n" {
		t.Errorf("forwarding is %q", got)
	}
	for _, dir := range []string{opts.StateDir, opts.RunDir, opts.NetnsDir} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestForwardingOfTheHostIsLeftOn(t *testing.T) {
	needRoot(t)
	if err := writeSysctl(forwardSysctl, "1"); err != nil {
		t.Fatal(err)
	}
	opts := testOptions(t)
	s, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), Purge(context.Background(), opts)); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, "/proc/sys/"+forwardSysctl); got != "1\n" {
		t.Errorf("forwarding is %q", got)
	}
}

// TestForwardingThatOthersNeed is left on, also when it was us who turned it on.
func TestForwardingThatOthersNeed(t *testing.T) {
	needRoot(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other0"}}
	nft := func(args ...string) func() error {
		return func() error { return exec.Command("nft", args...).Run() }
	}
	for _, other := range []struct {
		what         string
		make, remove func() error
	}{
		{"bridge", func() error { return netlink.LinkAdd(bridge) }, func() error { return netlink.LinkDel(bridge) }},
		{"firewall", nft("add table ip other; add chain ip other f { type filter hook forward priority 0; }"), nft("delete", "table", "ip", "other")},
	} {
		t.Run(other.what, func(t *testing.T) {
			if err := writeSysctl(forwardSysctl, "0"); err != nil {
				t.Fatal(err)
			}
			opts := testOptions(t)
			s, err := Open(context.Background(), opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(other.make(), s.Close(), Purge(context.Background(), opts), other.remove()); err != nil {
				t.Fatal(err)
			}
			if got := readFile(t, "/proc/sys/"+forwardSysctl); got != "1\n" {
				t.Errorf("forwarding is %q", got)
			}
		})
	}
}

// TestFirewallHeals: a reload of the host's own rules flushes ours.
func TestFirewallHeals(t *testing.T) {
	r := newRig(t)
	_, ns := r.container("a", PortBinding{ContainerPort: 80, HostPort: 8001})
	r.serve(ns, "tcp", ":80", "a")
	for i, ports := range [][]PortBinding{nil, {{ContainerPort: 80, HostPort: 8002}}} {
		flush(t)
		r.container(fmt.Sprint("next", i), ports...)
		r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "a "+outsideAddr)
	}
	flush(t)
	if err := r.store.Release(context.Background(), "next1"); err != nil {
		t.Errorf("release of a port that was flushed: %v", err)
	}
	if rules := ruleset(t); strings.Contains(rules, "8002") || !strings.Contains(rules, "8001") {
		t.Errorf("rules:\n%s", rules)
	}
}

func flush(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("nft flush ruleset: %v: %s", err, out)
	}
}

// TestBesideDocker: its rules, as Docker's iptables makes them, drop what they do
// not know.
func TestBesideDocker(t *testing.T) {
	if _, err := exec.LookPath("iptables-nft"); err != nil {
		t.Skip("needs iptables-nft, which is how Docker makes its rules")
	}
	r := newRig(t)
	iptables := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("iptables-nft", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("iptables-nft %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	t.Cleanup(func() { flush(t) })
	iptables("-N", "DOCKER-USER")
	iptables("-A", "DOCKER-USER", "-j", "RETURN")
	iptables("-A", "FORWARD", "-j", "DOCKER-USER")
	iptables("-P", "FORWARD", "DROP")

	_, ns := r.container("a", PortBinding{ContainerPort: 80, HostPort: 8001})
	r.serve(ns, "tcp", ":80", "a")
	r.serve(r.outside, "tcp", ":7000", "outside")
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "a "+outsideAddr)
	r.wantAnswer(ns, "tcp", outsideAddr+":7000", "outside "+hostAddr)
	r.container("b") // does not repeat the rules
	got := iptables("-S", "DOCKER-USER")
	if strings.Count(got, "-i test0 ") != 1 || strings.Count(got, "-o test0 ") != 1 || strings.Count(got, "-j ACCEPT") != 2 {
		t.Errorf("chain DOCKER-USER:\n%s", got)
	}
	if w := warnings(t, r.store); strings.Contains(w, "FORWARD") {
		t.Errorf("warns although Docker's chain accepts: %s", w)
	}
	if err := deleteTable(r.opts.BridgeLink); err != nil {
		t.Fatal(err)
	}
	if got, want := iptables("-S", "DOCKER-USER"), "-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n"; got != want {
		t.Errorf("chain DOCKER-USER after removal:\n%s", got)
	}
}

func TestWarningsNameWhoDrops(t *testing.T) {
	r := newRig(t)
	t.Cleanup(func() { flush(t) })
	if w := warnings(t, r.store); strings.Contains(w, "chain") {
		t.Errorf("warns without reason: %s", w)
	}
	nft(t, "add table inet strict", "add chain inet strict forwarding { type filter hook forward priority 0; policy drop; }",
		"add table inet firewalld", "add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }",
		"add table ip6 six", "add chain ip6 six forwarding { type filter hook forward priority 0; policy drop; }")
	w := warnings(t, r.store)
	for _, want := range []string{"chain forwarding of firewall table strict drops", "--add-interface=test0"} {
		if !strings.Contains(w, want) {
			t.Errorf("warnings lack %q: %s", want, w)
		}
	}
	if strings.Contains(w, "six") {
		t.Errorf("warns of an IPv6 table: %s", w)
	}
}

func nft(t *testing.T, commands ...string) {
	t.Helper()
	if out, err := exec.Command("nft", strings.Join(commands, "; ")).CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

func warnings(t *testing.T, s *Store) string {
	t.Helper()
	w, err := s.Warnings()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(w, "\n")
}

func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	const n = 20
	each := func(f func(id string) error) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if err := f(fmt.Sprint("c", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	each(func(id string) error {
		path, err := r.store.NewNamespace(id)
		if err != nil {
			return err
		}
		_, err = r.store.Connect(ctx, Endpoint{ContainerID: id, NetnsPath: path, Ports: []PortBinding{{ContainerPort: 80}}})
		return err
	})
	seen := map[string]bool{}
	for id, a := range r.store.List()[0].Containers {
		if seen[a.IP.String()] {
			t.Errorf("address %s twice", a.IP)
		}
		seen[a.IP.String()] = true
		path := r.opts.NetnsDir + "/" + id
		r.serve(path, "tcp", ":80", id)
		r.wantAnswer(r.outside, "tcp", fmt.Sprint(hostAddr, ":", a.Ports[0].HostPort), id+" "+outsideAddr)
	}
	if len(seen) != n {
		t.Errorf("%d containers", len(seen))
	}
	each(func(id string) error { return r.store.Release(ctx, id) })
	if got := len(r.store.List()[0].Containers); got != 0 {
		t.Errorf("%d containers after release", got)
	}
	if rules := ruleset(t); strings.Contains(rules, "elements") {
		t.Errorf("ports are left:\n%s", rules)
	}
}

// TestConnectAfterBridgeWasDeleted: the bridge is made anew for the next
// container, and those who were on it before are reached again.
func TestConnectAfterBridgeWasDeleted(t *testing.T) {
	r := newRig(t)
	_, oldNS := r.container("old", PortBinding{ContainerPort: 80, HostPort: 8001})
	r.serve(oldNS, "tcp", ":80", "old")
	link, err := netlink.LinkByName(r.opts.BridgeLink)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, newNS := r.container("new", PortBinding{ContainerPort: 80, HostPort: 8002})
	r.serve(newNS, "tcp", ":80", "new")
	r.wantAnswer(r.outside, "tcp", hostAddr+":8002", "new "+outsideAddr)
	r.wantAnswer(r.outside, "tcp", hostAddr+":8001", "old "+outsideAddr)
}
