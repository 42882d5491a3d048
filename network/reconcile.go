package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Report is what Reconcile found to differ from what it was told.
type Report struct {
	// Leases and Namespaces are the IDs of containers that do not live, whose
	// attachment or pin was removed; Links are links of nobody.
	Leases, Namespaces, Links []string
	// Broken are live containers whose link on the host is gone: connected by
	// our records, without network in fact. They need a restart.
	Broken []string
}

// Reconcile brings the host in line with the containers that live, whether on the
// bridge or not: it removes the leases, published ports, links and namespaces
// of all others and builds the firewall table anew. live are container IDs, as
// given to NewNamespace and Connect. No Connect or NewNamespace may be under
// way. It does what it can and joins the errors.
func (s *Store) Reconcile(ctx context.Context, live []string) (Report, error) {
	alive := map[string]bool{}
	for _, id := range live {
		alive[id] = true
	}
	var rep Report
	err := errors.Join(
		s.reconcileLeases(alive, &rep),
		s.reconcileLinks(&rep),
		s.reconcileNamespaces(alive, &rep),
		s.rebuildFirewall(),
		ctx.Err())
	if err != nil {
		return rep, fmt.Errorf("reconcile networks: %w", classify(err))
	}
	return rep, nil
}

func (s *Store) reconcileLeases(alive map[string]bool, rep *Report) error {
	s.mu.Lock()
	var dead []*lease
	for id, l := range s.leases {
		if !alive[id] {
			dead = append(dead, l)
		}
	}
	s.mu.Unlock()
	var errs error
	for _, l := range dead {
		rep.Leases = append(rep.Leases, l.ContainerID)
		errs = errors.Join(errs, s.disconnect(l))
	}
	return errs
}

// reconcileLinks removes ports of the bridge that no lease names, and puts links of
// leases that are no port of it back, where they exist.
func (s *Store) reconcileLinks(rep *Report) error {
	links, err := dump(s.query.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	ports := map[string]bool{}
	for _, l := range links {
		if isOurPort(l, s.bridge.index) {
			ports[l.Attrs().Name] = true
		}
	}
	var lost []*lease
	s.mu.Lock()
	for _, l := range s.leases {
		if !ports[l.HostLink] {
			lost = append(lost, l)
		}
		delete(ports, l.HostLink)
	}
	s.mu.Unlock()
	var errs error
	for _, l := range lost {
		found, err := s.reattach(l)
		errs = errors.Join(errs, err)
		if !found {
			rep.Broken = append(rep.Broken, l.ContainerID)
		}
	}
	for name := range ports {
		rep.Links = append(rep.Links, name)
		errs = errors.Join(errs, s.route.deleteLink(name))
	}
	return errs
}

// reattach puts a link back on the bridge, which was deleted and made anew. It
// reports whether there is such a link.
func (s *Store) reattach(l *lease) (bool, error) {
	index, err := s.route.index(l.HostLink)
	if err != nil || index == 0 {
		return false, err
	}
	return true, s.route.setMaster(l.HostLink, s.bridge.index)
}

// isOurPort tells our links from those an administrator put on the bridge.
func isOurPort(l netlink.Link, bridge int) bool {
	a := l.Attrs()
	return l.Type() == "veth" && a.MasterIndex == bridge && strings.HasPrefix(a.Name, hostLinkPrefix) &&
		a.HardwareAddr.String() == hostMAC(a.Name).String()
}

func (s *Store) reconcileNamespaces(alive map[string]bool, rep *Report) error {
	entries, err := os.ReadDir(s.opts.NetnsDir)
	if err != nil {
		return err
	}
	var errs error
	for _, e := range entries {
		if !alive[e.Name()] {
			rep.Namespaces = append(rep.Namespaces, e.Name())
			errs = errors.Join(errs, removePin(filepath.Join(s.opts.NetnsDir, e.Name())))
		}
	}
	return errs
}

// Purge removes everything a Store with these options made on the host:
// firewall table, links, bridge, pins, records, and the forwarding it turned
// on. No Store may be open on them and no container may need its network. What
// is not there is no error; it does what it can and joins the errors.
func Purge(ctx context.Context, opts Options) error {
	opts, err := opts.withDefaults()
	if err != nil {
		return fmt.Errorf("purge networks: %w", err)
	}
	err = errors.Join(
		deleteTable(opts.BridgeLink),
		purgeLinks(opts.BridgeLink),
		purgeNamespaces(opts.NetnsDir),
		restoreForwarding(&opts),
		os.RemoveAll(opts.RunDir),
		os.RemoveAll(opts.StateDir),
		ctx.Err())
	if err != nil {
		return fmt.Errorf("purge networks: %w", classify(err))
	}
	return nil
}

func purgeLinks(bridge string) error {
	route, err := openRouteSocket()
	if err != nil {
		return err
	}
	defer route.close()
	index, err := route.index(bridge)
	if err != nil || index == 0 {
		return err
	}
	links, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs error
	for _, l := range links {
		if isOurPort(l, index) || l.Attrs().Index == index && isOurBridge(l) {
			errs = errors.Join(errs, route.deleteLink(l.Attrs().Name))
		}
	}
	return errs
}

func purgeNamespaces(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs error
	for _, e := range entries {
		errs = errors.Join(errs, removePin(filepath.Join(dir, e.Name())))
	}
	if root, err := isMountRoot(dir); err != nil || root {
		errs = errors.Join(errs, err, unmountDir(dir))
	}
	return errors.Join(errs, os.Remove(dir))
}

func unmountDir(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// restoreForwarding turns forwarding off when it was us who turned it on since
// the host booted, and nobody else has come to need it: another engine's
// containers would be cut off.
func restoreForwarding(opts *Options) error {
	changes, err := readHostChanges(opts.RunDir)
	if err != nil || !changes.EnabledForwarding {
		return err
	}
	needs, err := forwardingNeededBy(opts.BridgeLink)
	if err != nil {
		return err
	}
	if needs != "" {
		opts.Logger.Warn("net.ipv4.ip_forward stays on: somebody else may need it", "who", needs)
		return nil
	}
	return writeSysctl(forwardSysctl, "0")
}

// forwardingNeededBy names what on the host speaks for somebody else who forwards:
// a bridge that is not ours, or a firewall table that treats what is forwarded.
// Nobody is "".
func forwardingNeededBy(bridge string) (string, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return "", fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; l.Type() == "bridge" && name != bridge {
			return "bridge " + name, nil
		}
	}
	c, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return "", fmt.Errorf("list firewall chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name != bridge && forwards(ch) {
			return "firewall table " + ch.Table.Name, nil
		}
	}
	return "", nil
}

// forwards says whether a chain is for IPv4 packets on their way through the host.
func forwards(ch *nftables.Chain) bool {
	v4 := ch.Table.Family == nftables.TableFamilyIPv4 || ch.Table.Family == nftables.TableFamilyINet
	return v4 && ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward
}
