package create

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// networks are the --network flags: a mode or a network's name, or the long
// form name=…,alias=…,ip=….
type networks []attachment

type attachment struct {
	target         string
	aliases, links []string
	ip, ip6        string
	mac            string
	linkLocal      []string
	driverOpts     map[string]string
	priority       int
}

func (n *networks) String() string {
	var all []string
	for _, a := range *n {
		all = append(all, a.target)
	}
	return strings.Join(all, ",")
}

func (n *networks) Type() string { return "network" }

func (n *networks) Set(v string) error {
	a := attachment{target: v}
	if strings.Contains(v, "=") {
		fields, err := splitFields(v)
		if err != nil {
			return err
		}
		a.target = ""
		for _, field := range fields {
			if err := a.set(field); err != nil {
				return err
			}
		}
		if a.target == "" {
			return errors.New("network name/id is not specified")
		}
	}
	*n = append(*n, a)
	return nil
}

func (a *attachment) set(field string) error {
	key, value, ok := strings.Cut(strings.ToLower(strings.TrimSpace(field)), "=")
	if !ok || value == "" {
		return fmt.Errorf("invalid field %s", field)
	}
	_, exact, _ := strings.Cut(field, "=")
	exact = strings.TrimSpace(exact)
	switch strings.TrimSpace(key) {
	case "name":
		a.target = exact
	case "alias":
		a.aliases = append(a.aliases, exact)
	case "ip":
		a.ip = exact
	case "ip6":
		a.ip6 = exact
	case "mac-address":
		a.mac = exact
	case "link-local-ip":
		a.linkLocal = append(a.linkLocal, exact)
	case "driver-opt":
		name, opt, ok := strings.Cut(exact, "=")
		if !ok {
			return fmt.Errorf("invalid key value pair format in driver options")
		}
		if a.driverOpts == nil {
			a.driverOpts = map[string]string{}
		}
		a.driverOpts[name] = opt
	case "gw-priority":
		if _, err := fmt.Sscanf(value, "%d", &a.priority); err != nil {
			return fmt.Errorf("invalid gw-priority %q", value)
		}
	default:
		return fmt.Errorf("invalid field key %s", key)
	}
	return nil
}

// mode is the container's network mode: the first network's name.
func (n networks) mode() container.NetworkMode {
	if len(n) == 0 {
		return network.NetworkDefault
	}
	return container.NetworkMode(n[0].target)
}

// endpointsOf makes the endpoints of --network and of the flags that describe
// the first network's. A single network without settings needs none: the
// engine makes it from the mode.
func (o *Options) endpointsOf() (map[string]*network.EndpointSettings, error) {
	all := o.networks
	if len(all) == 0 {
		all = networks{{target: network.NetworkDefault}}
	}
	endpoints := map[string]*network.EndpointSettings{}
	for i, a := range all {
		if i == 0 {
			if err := o.mergeFirst(&a); err != nil {
				return nil, err
			}
		}
		if _, twice := endpoints[a.target]; twice {
			return nil, fmt.Errorf("network %q is specified multiple times", a.target)
		}
		ep, bare, err := a.endpoint()
		if err != nil {
			return nil, err
		}
		if bare && len(all) == 1 {
			continue
		}
		endpoints[a.target] = ep
	}
	return endpoints, o.checkModes(all)
}

func (o *Options) checkModes(all networks) error {
	defined := 0
	for _, a := range all {
		if container.NetworkMode(a.target).IsUserDefined() {
			defined++
		}
	}
	if defined != 0 && defined != len(all) {
		return errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return nil
}

// mergeFirst applies --network-alias, --link, --ip, --ip6, --mac-address and
// --link-local-ip, which are about the first network.
func (o *Options) mergeFirst(a *attachment) error {
	for _, both := range []struct {
		one, other bool
		what       string
	}{
		{len(a.aliases) > 0, len(o.aliases) > 0, "--network-alias and per-network alias"},
		{a.ip != "", o.ip != "", "--ip and per-network IPv4 address"},
		{a.ip6 != "", o.ip6 != "", "--ip6 and per-network IPv6 address"},
		{a.mac != "", o.mac != "", "--mac-address and per-network MAC address"},
		{len(a.linkLocal) > 0, len(o.linkLocal) > 0, "--link-local-ip and per-network link-local IP addresses"},
	} {
		if both.one && both.other {
			return errors.New("conflicting options: cannot specify both " + both.what)
		}
	}
	a.aliases = append(a.aliases, o.aliases...)
	a.linkLocal = append(a.linkLocal, o.linkLocal...)
	if container.NetworkMode(a.target).IsUserDefined() {
		a.links = append(a.links, o.links...)
	}
	if o.ip != "" {
		a.ip = o.ip
	}
	if o.ip6 != "" {
		a.ip6 = o.ip6
	}
	if o.mac != "" {
		a.mac = o.mac
	}
	return nil
}

func (a *attachment) endpoint() (ep *network.EndpointSettings, bare bool, err error) {
	ep = &network.EndpointSettings{Aliases: a.aliases, Links: a.links, DriverOpts: a.driverOpts, GwPriority: a.priority}
	bare = len(a.aliases)+len(a.links)+len(a.driverOpts)+a.priority == 0
	if a.ip != "" || a.ip6 != "" || len(a.linkLocal) > 0 {
		bare = false
		if ep.IPAMConfig, err = a.ipam(); err != nil {
			return nil, false, err
		}
	}
	if a.mac != "" {
		bare = false
		mac, err := net.ParseMAC(strings.TrimSpace(a.mac))
		if err != nil {
			return nil, false, fmt.Errorf("%s is not a valid mac address", a.mac)
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	return ep, bare, nil
}

func (a *attachment) ipam() (*network.EndpointIPAMConfig, error) {
	cfg := &network.EndpointIPAMConfig{}
	var err error
	if a.ip != "" {
		if cfg.IPv4Address, err = netip.ParseAddr(a.ip); err != nil || !cfg.IPv4Address.Is4() {
			return nil, fmt.Errorf("invalid IPv4 address: %s", a.ip)
		}
	}
	if a.ip6 != "" {
		if cfg.IPv6Address, err = netip.ParseAddr(a.ip6); err != nil || !cfg.IPv6Address.Is6() {
			return nil, fmt.Errorf("invalid IPv6 address: %s", a.ip6)
		}
	}
	for _, text := range a.linkLocal {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("invalid link-local address: %s", text)
		}
		cfg.LinkLocalIPs = append(cfg.LinkLocalIPs, addr)
	}
	return cfg, nil
}
