// Package client speaks the Docker Engine API to an engine.
//
// It is its own small HTTP/1.1 client and not net/http: the command line
// starts in a fraction of the time and size that way (docs/dependencies.md has
// the figures), a request can be sent before the answer to the one before it
// has arrived, and taking over a connection for an attached stream needs no
// tricks. It knows what an engine's socket needs of RFC 9112: persistent
// connections, Content-Length and chunked bodies, 1xx answers and Upgrade; no
// TLS, redirects, proxies or compression.
package client

import (
	"fmt"
	"net"
	"strings"
)

// DefaultHost is where an engine listens when nothing else is said.
const DefaultHost = "unix:///run/berth/berth.sock"

// Host is an engine's address.
type Host struct {
	// Network is "unix" or "tcp".
	Network string
	// Address is a socket's path or host:port.
	Address string
}

// ParseHost reads an address as the -H flag takes it: unix:///path,
// tcp://host:port or an absolute path.
func ParseHost(s string) (Host, error) {
	if strings.HasPrefix(s, "/") {
		return Host{Network: "unix", Address: s}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || rest == "" {
		return Host{}, fmt.Errorf("invalid engine address %q: want unix:///path or tcp://host:port", s)
	}
	switch scheme {
	case "unix":
		return Host{Network: "unix", Address: rest}, nil
	case "tcp", "http":
		rest = strings.TrimSuffix(rest, "/")
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return Host{}, fmt.Errorf("invalid engine address %q: %w", s, err)
		}
		return Host{Network: "tcp", Address: rest}, nil
	}
	return Host{}, fmt.Errorf("invalid engine address %q: scheme %q is not supported, only unix and tcp are", s, scheme)
}

// String returns the address as ParseHost reads it.
func (h Host) String() string { return h.Network + "://" + h.Address }

// header is what the Host field of a request says.
func (h Host) header() string {
	if h.Network == "unix" {
		return "berth"
	}
	return h.Address
}
