package create

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/network"
)

// portsOf reads --publish and --expose.
func portsOf(publish, expose []string) (network.PortSet, network.PortMap, error) {
	set, bindings := network.PortSet{}, network.PortMap{}
	for _, spec := range publish {
		short, err := shortPort(spec)
		if err != nil {
			return nil, nil, err
		}
		mappings, err := nat.ParsePortSpec(short)
		if err != nil {
			return nil, nil, err
		}
		for _, m := range mappings {
			port, err := network.ParsePort(string(m.Port))
			if err != nil {
				return nil, nil, err
			}
			b := network.PortBinding{HostPort: m.Binding.HostPort}
			if m.Binding.HostIP != "" {
				if b.HostIP, err = netip.ParseAddr(m.Binding.HostIP); err != nil {
					return nil, nil, fmt.Errorf("invalid published port %s: %w", spec, err)
				}
			}
			set[port] = struct{}{}
			bindings[port] = append(bindings[port], b)
		}
	}
	for _, spec := range expose {
		if strings.Contains(spec, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", spec)
		}
		r, err := network.ParsePortRange(spec)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %s: %w", spec, err)
		}
		for port := range r.All() {
			set[port] = struct{}{}
		}
	}
	return set, bindings, nil
}

// shortPort turns the long form target=80,published=8080,protocol=tcp into the
// short one.
func shortPort(spec string) (string, error) {
	if !strings.Contains(spec, "=") {
		return spec, nil
	}
	target, published, protocol := "", "", "tcp"
	for _, field := range strings.Split(spec, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return "", fmt.Errorf("invalid published port %s: field %q is not key=value", spec, field)
		}
		switch key {
		case "target":
			target = value
		case "published":
			published = value
		case "protocol":
			protocol = value
		case "mode":
		default:
			return "", fmt.Errorf("invalid published port %s: unexpected key '%s'", spec, key)
		}
	}
	if target == "" {
		return "", fmt.Errorf("invalid published port %s: target is required", spec)
	}
	return published + ":" + target + "/" + protocol, nil
}
