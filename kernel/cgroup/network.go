package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// network compiles the class of the group's packets (net_cls.classid, read by
// traffic control and the firewall) and their priority by the host's interfaces
// (net_prio.ifpriomap), cgroup-v1/net_cls.rst and net_prio.rst. Cgroup v2 has
// neither: there the firewall matches the cgroup itself.
func (c *compiler) network(n *specs.LinuxNetwork) {
	if n.ClassID != nil {
		c.netSetting("net_cls", "network.classID", setting{file: "net_cls.classid", value: strconv.FormatUint(uint64(*n.ClassID), 10)})
	}
	for _, p := range n.Priorities {
		const field = "network.priorities"
		if !isWord(p.Name) {
			c.invalid(field, strconv.Quote(p.Name), "not the name of a network interface")
			return
		}
		c.netSetting("net_prio", field, setting{file: "net_prio.ifpriomap",
			value: fmt.Sprintf("%s %d", p.Name, p.Priority), unset: p.Name + " 0"})
	}
}

func (c *compiler) netSetting(controller, field string, s setting) {
	if c.g.mode == Unified {
		c.unsupported(field, "cgroup v2 has no "+controller+" controller, needs cgroup v1")
		return
	}
	if c.version(controller, field) == 0 {
		return
	}
	s.controller, s.field = controller, field
	c.add(s)
}

// isWord tells whether s can be the first word of a line in a control file.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
