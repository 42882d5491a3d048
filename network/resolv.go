package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// ResolvFile says what a container's /etc/resolv.conf is made of.
type ResolvFile struct {
	// DNS, Search and Options replace the host's, each when not nil. Search
	// of "." alone means none.
	DNS, Search, Options []string
	// SharesHost: the container is on the host's network, where the
	// host's name servers on loopback can be reached.
	SharesHost bool
	// HostFile is the host's file. Zero: /etc/resolv.conf.
	HostFile string
	// UpstreamFile is where systemd-resolved lists the servers behind its own on
	// loopback. Zero: /run/systemd/resolve/resolv.conf.
	UpstreamFile string
}

// resolvConf is a parsed file; see resolv.conf(5). Of several search (or
// domain) lines the last counts.
type resolvConf struct {
	servers, search, options []string
}

// Render returns the file. A host without the file, or with none but loopback
// name servers, yields a file without name servers, which says so: queries then
// go to the container itself, and to nobody else. A DNS that is no address has the
// class errdefs.ErrInvalid.
func (f ResolvFile) Render() ([]byte, error) {
	for _, s := range f.DNS {
		if _, err := netip.ParseAddr(s); err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("invalid DNS server address %q", s))
		}
	}
	conf, err := f.hostConf()
	if err != nil {
		return nil, err
	}
	if f.DNS != nil {
		conf.servers = f.DNS
	}
	if f.Search != nil {
		conf.search = f.Search
	}
	if slices.Equal(conf.search, []string{"."}) {
		conf.search = nil
	}
	if f.Options != nil {
		conf.options = f.Options
	}
	return conf.render(), nil
}

// hostConf is the host's configuration as far as the container can use it.
func (f ResolvFile) hostConf() (resolvConf, error) {
	host, upstream := f.HostFile, f.UpstreamFile
	if host == "" {
		host = "/etc/resolv.conf"
	}
	if upstream == "" {
		upstream = "/run/systemd/resolve/resolv.conf"
	}
	conf, err := readResolvConf(host)
	if err != nil || f.SharesHost {
		return conf, err
	}
	// Only resolved's own address: another server on loopback may know names
	// that the upstream ones do not.
	if slices.Equal(conf.servers, []string{"127.0.0.53"}) {
		if conf, err = readResolvConf(upstream); err != nil {
			return conf, err
		}
	}
	conf.servers = slices.DeleteFunc(conf.servers, func(s string) bool { return !reachable(s) })
	return conf, nil
}

// reachable says whether a container, which has no IPv6, can ask the server.
func reachable(server string) bool {
	a, err := netip.ParseAddr(server)
	return err == nil && a.Unmap().Is4() && !a.Unmap().IsLoopback() && !a.Unmap().IsUnspecified()
}

func readResolvConf(path string) (resolvConf, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return resolvConf{}, nil
	}
	if err != nil {
		return resolvConf{}, fmt.Errorf("read host's name servers: %w", err)
	}
	return parseResolvConf(data), nil
}

func parseResolvConf(data []byte) resolvConf {
	var c resolvConf
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			c.servers = append(c.servers, fields[1])
		case "search", "domain":
			c.search = fields[1:]
		case "options":
			c.options = append(c.options, fields[1:]...)
		}
	}
	return c
}

func (c resolvConf) render() []byte {
	var out bytes.Buffer
	if len(c.servers) == 0 {
		out.WriteString("# The host has no name server that a container can reach; give one with --dns.\n")
	}
	for _, s := range c.servers {
		fmt.Fprintf(&out, "nameserver %s\n", s)
	}
	if len(c.search) > 0 {
		fmt.Fprintf(&out, "search %s\n", strings.Join(c.search, " "))
	}
	if len(c.options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(c.options, " "))
	}
	return out.Bytes()
}
