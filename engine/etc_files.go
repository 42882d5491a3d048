package engine

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

// The files bound into a container's /etc.
const (
	fileHosts    = "hosts"
	fileHostname = "hostname"
	fileResolv   = "resolv.conf"
)

// hostGateway in --add-host stands for the host as the container sees it.
const hostGateway = "host-gateway"

// hostsHead is what every hosts file begins with.
const hostsHead = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// etcInput is what the files are made from.
type etcInput struct {
	cfg     *container.Config
	hc      *container.HostConfig
	address netip.Addr // the container's own; invalid: none
	gateway netip.Addr // what host-gateway means; invalid: unknown
	// hostHosts and hostResolv are the host's files.
	hostHosts, hostResolv []byte
}

// hostsFile writes /etc/hosts: the host's own for a container in the host's
// network, else the loopback names and the container's own; then the extra ones.
func (in *etcInput) hostsFile() ([]byte, error) {
	var b bytes.Buffer
	if in.hc.NetworkMode.IsHost() {
		b.Write(in.hostHosts)
	} else {
		b.WriteString(hostsHead)
	}
	for _, entry := range in.hc.ExtraHosts {
		name, addr, err := splitExtraHost(entry)
		if err != nil {
			return nil, err
		}
		if addr == hostGateway {
			if !in.gateway.IsValid() {
				return nil, errdefs.WithHint(invalidf("no gateway for host-gateway in %q", entry),
					"the container's network has no gateway; give an address instead")
			}
			addr = in.gateway.String()
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	if in.address.IsValid() {
		names := in.cfg.Hostname
		if in.cfg.Domainname != "" {
			names = in.cfg.Hostname + "." + in.cfg.Domainname + " " + in.cfg.Hostname
		}
		fmt.Fprintf(&b, "%s\t%s\n", in.address, names)
	}
	return b.Bytes(), nil
}

// splitExtraHost reads name:address or name=address; the address may be IPv6.
func splitExtraHost(entry string) (name, addr string, err error) {
	i := strings.IndexAny(entry, ":=")
	if i <= 0 || i == len(entry)-1 {
		return "", "", invalidf("bad format for add-host: %q", entry)
	}
	name, addr = entry[:i], strings.Trim(entry[i+1:], "[]")
	if strings.ContainsAny(name, " \t\n\x00") {
		return "", "", invalidf("bad host name in add-host: %q", entry)
	}
	if addr != hostGateway {
		if _, err := netip.ParseAddr(addr); err != nil {
			return "", "", invalidf("invalid IP address in add-host: %q", addr)
		}
	}
	return name, addr, nil
}

// resolvFile writes /etc/resolv.conf: the host's, without name servers the
// container cannot reach unless it is in the host's network, and with the
// request's settings in place of the host's.
func (in *etcInput) resolvFile() []byte {
	hc := in.hc
	own := hc.NetworkMode.IsHost() && len(hc.DNS)+len(hc.DNSSearch)+len(hc.DNSOptions) == 0
	if own {
		return in.hostResolv
	}
	var servers, search, options, rest []string
	for line := range strings.Lines(string(in.hostResolv)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2 || f[0][0] == '#' || f[0][0] == ';':
		case f[0] == "nameserver":
			if addr, err := netip.ParseAddr(f[1]); err == nil && (hc.NetworkMode.IsHost() || !addr.IsLoopback()) {
				servers = append(servers, f[1])
			}
		case f[0] == "search" || f[0] == "domain":
			search = f[1:]
		case f[0] == "options":
			options = append(options, f[1:]...)
		default:
			rest = append(rest, strings.TrimSpace(line))
		}
	}
	if len(hc.DNS) > 0 {
		servers = nil
		for _, a := range hc.DNS {
			servers = append(servers, a.String())
		}
	}
	if len(hc.DNSSearch) > 0 {
		search = hc.DNSSearch
	}
	if len(hc.DNSOptions) > 0 {
		options = hc.DNSOptions
	}
	return writeResolv(servers, search, options, rest)
}

func writeResolv(servers, search, options, rest []string) []byte {
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	// A lone dot means: no search list.
	if len(search) > 0 && !(len(search) == 1 && search[0] == ".") {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	for _, line := range rest {
		fmt.Fprintln(&b, line)
	}
	return b.Bytes()
}

// systemdResolv lists the real name servers where systemd-resolved puts its own
// loopback address into /etc/resolv.conf.
const systemdResolv = "/run/systemd/resolve/resolv.conf"

// readHostResolv reads the host's resolv.conf; a missing one is empty.
func readHostResolv(hostNetwork bool) []byte {
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	if !hostNetwork && onlyStub(data) {
		if real, err := os.ReadFile(systemdResolv); err == nil {
			return real
		}
	}
	return data
}

// onlyStub says that the only name server is systemd-resolved's stub.
func onlyStub(resolv []byte) bool {
	servers := 0
	for line := range strings.Lines(string(resolv)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			if f[1] != "127.0.0.53" && f[1] != "127.0.0.54" {
				return false
			}
			servers++
		}
	}
	return servers > 0
}

// writeEtc makes the files in dir and returns their paths by name.
func (in *etcInput) writeEtc(dir string) (map[string]string, error) {
	hosts, err := in.hostsFile()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{fileHosts: hosts, fileHostname: []byte(in.cfg.Hostname + "\n"), fileResolv: in.resolvFile()}
	paths := map[string]string{}
	for name, data := range files {
		paths[name] = filepath.Join(dir, name)
		// In place, not by rename: while the container runs they are bound.
		if err := os.WriteFile(paths[name], data, 0o644); err != nil {
			return nil, err
		}
	}
	return paths, nil
}
