package render

import (
	"strconv"

	"github.com/moby/moby/api/types/network"
)

// NetworkTable is the table of berth network ls.
const NetworkTable = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"

// NetworkHeader has the headings of [Network].
func NetworkHeader() Header {
	return Header{
		"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4",
		"IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
	}
}

// Network is a line of berth network ls.
type Network struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
}

// Label is a label's value.
func (n Network) Label(name string) string { return n.labels[name] }

// NewNetwork makes a line.
func NewNetwork(s *network.Summary, trunc bool) Network {
	n := Network{
		ID: s.ID, Name: s.Name, Driver: s.Driver, Scope: s.Scope,
		IPv4: strconv.FormatBool(s.EnableIPv4), IPv6: strconv.FormatBool(s.EnableIPv6),
		Internal: strconv.FormatBool(s.Internal), CreatedAt: s.Created.String(),
		Labels: joinMap(s.Labels), labels: s.Labels,
	}
	if trunc {
		n.ID = ShortID(s.ID)
	}
	return n
}
