package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// HostsFile says what a container's /etc/hosts is made of.
type HostsFile struct {
	// Hostname and Domainname are the container's; Domainname may be empty.
	Hostname, Domainname string
	// Addresses are the container's own. None for the none network.
	Addresses []netip.Addr
	// Base is put first in place of the usual lines: the host's /etc/hosts for a
	// container on the host's network. Nil: localhost and its IPv6 kin.
	Base []byte
	// Extra are --add-host values, name:address or name=address, an IPv6 address
	// in brackets or not. The address "host-gateway" stands for Gateway.
	Extra []string
	// Gateway is the host as the container sees it, the bridge's own address; on
	// the host's network 127.0.0.1.
	Gateway netip.Addr
}

const usualHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// Render returns the file. An Extra that is not one has the class errdefs.ErrInvalid.
func (h HostsFile) Render() ([]byte, error) {
	var out bytes.Buffer
	if h.Base != nil {
		out.Write(h.Base)
		if !bytes.HasSuffix(h.Base, []byte("\n")) {
			out.WriteByte('\n')
		}
	} else {
		out.WriteString(usualHosts)
	}
	for _, e := range h.Extra {
		name, addr, err := h.parseExtra(e)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%s\t%s\n", addr, name)
	}
	names := h.Hostname
	if h.Domainname != "" {
		names = h.Hostname + "." + h.Domainname + " " + h.Hostname
	}
	for _, a := range h.Addresses {
		if names != "" {
			fmt.Fprintf(&out, "%s\t%s\n", a, names)
		}
	}
	return out.Bytes(), nil
}

func (h HostsFile) parseExtra(s string) (name string, addr netip.Addr, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		name, value, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" || strings.ContainsAny(name, " \t\n#") {
		return "", addr, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("add host %q: want name:address", s))
	}
	if value == "host-gateway" {
		if !h.Gateway.IsValid() {
			return "", addr, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("add host %q: the container's network has no gateway", s))
		}
		return name, h.Gateway, nil
	}
	value = strings.TrimSuffix(strings.TrimPrefix(value, "["), "]")
	addr, err = netip.ParseAddr(value)
	if err != nil {
		return "", addr, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("add host %q: invalid address %q", s, value))
	}
	return name, addr, nil
}

// HostnameFile returns a container's /etc/hostname.
func HostnameFile(hostname string) []byte { return []byte(hostname + "\n") }
