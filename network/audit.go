package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/audit"
)

// Audit compares the records with the host: bridge, forwarding, firewall table,
// leases, links and namespaces. alive says of a container's ID whether the container
// has, or is about to have, a process. Nothing is changed.
//
// What is under way while it looks may be among the findings: who asks twice and
// keeps what is found twice is on the safe side.
func (s *Store) Audit(alive func(id string) bool) ([]audit.Finding, error) {
	a := &auditor{s: s, alive: alive}
	err := errors.Join(a.bridge(), a.forwarding(), a.leases(), a.links(), a.namespaces(), a.firewall(), a.record())
	if err != nil {
		return a.found, fmt.Errorf("check networks: %w", classify(err))
	}
	return a.found, nil
}

// auditor collects findings.
type auditor struct {
	s     *Store
	alive func(id string) bool
	found audit.Findings
}

// doing makes a repair of an act and what is said of it afterwards.
func doing(act func() error, did string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return did, act() }
}

func (a *auditor) bridge() error {
	name := a.s.opts.BridgeLink
	object := "link " + name
	link, err := a.s.query.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		a.found.Add(object, "the bridge of network "+Bridge+" is gone", "make it anew and put the containers' links back",
			doing(func() error { _, err := a.s.healBridge(); return err }, "made the bridge and put the containers' links on it"))
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up link %s: %w", name, err)
	}
	remake := doing(a.s.ensureBridge, "gave the bridge its address and set it up")
	if !isOurBridge(link) {
		a.found.Add(object, "it is not the bridge that berth made", "delete the link, or configure another bridge name", nil)
		return nil
	}
	if link.Attrs().RawFlags&unix.IFF_UP == 0 {
		a.found.Add(object, "the bridge is down", "set it up", remake)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return a.s.query.AddrList(link, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	if !slices.ContainsFunc(addrs, func(x netlink.Addr) bool { return x.IP.String() == a.s.bridge.gateway.String() }) {
		a.found.Add(object, fmt.Sprintf("the bridge has lost its address %s", a.s.bridge.gateway), "give it the address", remake)
	}
	return nil
}

func (a *auditor) forwarding() error {
	on, err := forwardingIsOn()
	if err != nil || on {
		return err
	}
	a.found.Add("sysctl net.ipv4.ip_forward", "it is off: containers reach neither the outside nor are they reached from it",
		"switch it on", doing(a.s.enableForwarding, "switched it on"))
	return nil
}

// leases looks at what each container holds.
func (a *auditor) leases() error {
	links, err := dump(a.s.query.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	index, err := a.s.route.index(a.s.opts.BridgeLink)
	if err != nil {
		return err
	}
	master := map[string]int{}
	for _, l := range links {
		master[l.Attrs().Name] = l.Attrs().MasterIndex
	}
	a.s.mu.Lock()
	leases := slices.Collect(maps.Values(a.s.leases))
	a.s.mu.Unlock()
	for _, l := range leases {
		object := "network of container " + l.ContainerID[:min(12, len(l.ContainerID))]
		if !a.alive(l.ContainerID) {
			a.found.Add(object, fmt.Sprintf("address %s is held by a container that does not run", l.IP), "give the address back",
				func(ctx context.Context) (string, error) {
					return "gave address and ports back", a.s.Release(ctx, l.ContainerID)
				})
			continue
		}
		at, there := master[l.HostLink]
		switch {
		case !there:
			a.found.Add(object, "its link "+l.HostLink+" is gone: the container has no network", "restart the container", nil)
		case at != index && index != 0:
			a.found.Add(object, "its link "+l.HostLink+" is not on the bridge", "put it back",
				doing(func() error { _, err := a.s.reattach(l); return err }, "put the link back on the bridge"))
		}
		if !sameFileContent(a.s.leasePath(l.ContainerID), l) {
			a.found.Add(object, "its lease on disk is not what the engine holds", "write it again",
				doing(func() error { return a.s.rewriteLease(l) }, "wrote the lease"))
		}
	}
	return a.files(leases)
}

// rewriteLease writes a lease that is still held.
func (s *Store) rewriteLease(l *lease) error {
	if now, ok := s.lease(l.ContainerID); !ok || now != l {
		return nil
	}
	return writeJSON(s.leasePath(l.ContainerID), l, false)
}

// sameFileContent says whether the file is what writeJSON makes of v.
func sameFileContent(path string, v any) bool {
	want, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return true // nothing that rewriting would mend
	}
	got, err := os.ReadFile(path)
	return err == nil && string(got) == string(want)+"\n"
}

// files looks for leases on disk that the engine does not hold.
func (a *auditor) files(leases []*lease) error {
	entries, err := os.ReadDir(a.s.opts.RunDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), leaseSuffix)
		if !ok || slices.ContainsFunc(leases, func(l *lease) bool { return l.ContainerID == id }) {
			continue
		}
		path := filepath.Join(a.s.opts.RunDir, e.Name())
		a.found.Add("file "+path, "it is a lease that nobody holds", "remove it", doing(func() error {
			if _, held := a.s.lease(id); held {
				return nil
			}
			return os.Remove(path)
		}, "removed it"))
	}
	return nil
}

// links looks for ports of the bridge that belong to nobody.
func (a *auditor) links() error {
	links, err := dump(a.s.query.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		if !isOurPort(l, a.s.bridge.index) || a.s.ownsLink(name) {
			continue
		}
		a.found.Add("link "+name, "it is on the bridge and belongs to no container", "delete it", doing(func() error {
			if a.s.ownsLink(name) {
				return nil
			}
			return a.s.route.deleteLink(name)
		}, "deleted it"))
	}
	return nil
}

// ownsLink says whether a container has the link, or had it a moment ago.
func (s *Store) ownsLink(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	has := func(l *lease) bool { return l.HostLink == name }
	for _, l := range s.leases {
		if has(l) {
			return true
		}
	}
	return slices.ContainsFunc(s.departed, has)
}

// namespaces looks for pins of containers that do not run.
func (a *auditor) namespaces() error {
	if root, err := isMountRoot(a.s.opts.NetnsDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if !root {
		a.found.Add("directory "+a.s.opts.NetnsDir, "it is no mount of its own: a namespace could outlive its container",
			"mount it", doing(func() error { return preparePinDir(a.s.opts.NetnsDir) }, "mounted it"))
	}
	entries, err := os.ReadDir(a.s.opts.NetnsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		id := e.Name()
		if a.alive(id) {
			continue
		}
		a.found.Add("network namespace "+filepath.Join(a.s.opts.NetnsDir, id), "it belongs to no running container", "remove its pin",
			doing(func() error {
				if a.alive(id) {
					return nil
				}
				return a.s.RemoveNamespace(id)
			}, "removed the pin"))
	}
	return nil
}

// Pinned says whether the pin of a container's namespace is that of the process.
func (s *Store) Pinned(id string, pid int) bool {
	var pin, own unix.Stat_t
	if unix.Stat(filepath.Join(s.opts.NetnsDir, id), &pin) != nil {
		return false
	}
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &own) != nil {
		return true // it has just ended
	}
	return pin.Dev == own.Dev && pin.Ino == own.Ino
}

// Repin pins the network namespace of a running process again.
func (s *Store) Repin(id string, pid int) error {
	if err := s.RemoveNamespace(id); err != nil {
		return err
	}
	path := filepath.Join(s.opts.NetnsDir, id)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("pin network namespace: %w", err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("pin network namespace to %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// chainRules is how many rules each chain of the table has, see [table].
var chainRules = map[string]int{"raw": 2, "prerouting": 3, "output": 2, "postrouting": 3, "forward": 5}

// firewall compares the table with what the leases ask for.
func (a *auditor) firewall() error {
	s := a.s
	s.fw.Lock()
	defer s.fw.Unlock()
	c, err := s.firewall()
	if err != nil {
		return err
	}
	problem, err := s.tableProblem(c)
	if err != nil {
		return s.abandon(c, err)
	}
	if problem != "" {
		a.found.Add("firewall table "+s.opts.BridgeLink, problem, "build the table anew", doing(s.rebuildFirewall, "built the table anew"))
	}
	return nil
}

// tableProblem says what is wrong with the table, "" when nothing is. The caller
// holds fw.
func (s *Store) tableProblem(c *nftables.Conn) (string, error) {
	t := newTable(s.opts.BridgeLink, s.bridge.subnet)
	tables, err := c.ListTablesOfFamily(t.table.Family)
	if err != nil {
		return "", fmt.Errorf("list firewall tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(x *nftables.Table) bool { return x.Name == t.table.Name }) {
		return "it is gone: published ports and masquerading do not work, containers are open to the outside", nil
	}
	chains, err := c.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return "", fmt.Errorf("list firewall chains: %w", err)
	}
	found := map[string]int{}
	for _, ch := range chains {
		if ch.Table.Name != t.table.Name {
			continue
		}
		rules, err := c.GetRules(t.table, ch)
		if err != nil {
			return "", fmt.Errorf("list rules of chain %s: %w", ch.Name, err)
		}
		found[ch.Name] = len(rules)
	}
	for name, want := range chainRules {
		if found[name] != want {
			return fmt.Sprintf("chain %s has %d rules, it should have %d", name, found[name], want), nil
		}
	}
	return s.portsProblem(c, t)
}

// portsProblem compares the maps of published ports with the leases.
func (s *Store) portsProblem(c *nftables.Conn, t *table) (string, error) {
	want := map[string]bool{}
	s.mu.Lock()
	for _, l := range s.leases {
		if l.gone {
			continue
		}
		byAddr, byPort := t.elements(l)
		for _, e := range slices.Concat(byAddr, byPort) {
			want[string(e.Key)+string(e.Val)] = true
		}
	}
	s.mu.Unlock()
	have := 0
	for _, set := range []*nftables.Set{t.byAddr, t.byPort} {
		elements, err := c.GetSetElements(set)
		if errors.Is(err, unix.ENOENT) {
			return "map " + set.Name + " is gone", nil
		}
		if err != nil {
			return "", fmt.Errorf("list map %s: %w", set.Name, err)
		}
		for _, e := range elements {
			if !want[string(e.Key)+string(e.Val)] {
				return "map " + set.Name + " publishes a port that no container has asked for", nil
			}
			have++
		}
	}
	if have != len(want) {
		return fmt.Sprintf("%d of %d published ports are missing", len(want)-have, len(want)), nil
	}
	return "", nil
}

func (a *auditor) record() error {
	path := filepath.Join(a.s.opts.StateDir, recordName)
	if sameFileContent(path, a.s.record) {
		return nil
	}
	a.found.Add("file "+path, "it is not what the engine holds", "write it again",
		doing(func() error { return writeJSON(path, a.s.record, true) }, "wrote it"))
	return nil
}
