package render

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"github.com/berth-containers/berth/cmd/berth/internal/imageref"
)

// ContainerTable is the table of berth ps.
const ContainerTable = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

// ContainerHeader has the headings of [Container].
func ContainerHeader() Header {
	return Header{
		"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND",
		"CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE",
		"Status": "STATUS", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS",
		"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "HealthStatus": "HEALTH STATUS",
	}
}

// Container is a line of berth ps.
type Container struct {
	Command      string
	CreatedAt    string
	HealthStatus string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
}

// Label is a label's value.
func (c Container) Label(name string) string { return c.labels[name] }

// NewContainer makes a line; trunc shortens ids, commands and names.
func NewContainer(s *container.Summary, trunc bool, now time.Time) Container {
	created := time.Unix(s.Created, 0)
	c := Container{
		ID: s.ID, Names: containerNames(s.Names, trunc), Image: containerImage(s, trunc),
		Command: s.Command, CreatedAt: created.String(),
		RunningFor: units.HumanDuration(now.Sub(created)) + " ago",
		Ports:      Ports(s.Ports), State: string(s.State), Status: s.Status,
		Size: containerSize(s), Labels: joinMap(s.Labels), labels: s.Labels,
	}
	if s.Health != nil {
		c.HealthStatus = string(s.Health.Status)
	}
	if trunc {
		c.ID, c.Command = ShortID(s.ID), Ellipsis(s.Command, 20)
	}
	c.Command = strconv.Quote(c.Command)
	c.Mounts, c.LocalVolumes = containerMounts(s.Mounts, trunc)
	if s.NetworkSettings != nil {
		names := make([]string, 0, len(s.NetworkSettings.Networks))
		for name := range s.NetworkSettings.Networks {
			names = append(names, name)
		}
		sort.Strings(names)
		c.Networks = strings.Join(names, ",")
	}
	return c
}

func containerNames(names []string, trunc bool) string {
	var all []string
	for _, name := range names {
		name = strings.TrimPrefix(name, "/")
		if trunc && strings.Contains(name, "/") {
			continue // another container's link to this one
		}
		all = append(all, name)
		if trunc {
			break
		}
	}
	return strings.Join(all, ",")
}

func containerImage(s *container.Summary, trunc bool) string {
	switch {
	case s.Image == "":
		return "<no image>"
	case !trunc:
		return s.Image
	case ShortID(s.Image) == ShortID(s.ImageID):
		return ShortID(s.ImageID)
	}
	ref := imageref.Parse(s.Image)
	ref.Digest = ""
	return ref.String()
}

func containerSize(s *container.Summary) string {
	size := units.HumanSizeWithPrecision(float64(s.SizeRw), 3)
	if s.SizeRootFs > 0 {
		size += " (virtual " + units.HumanSizeWithPrecision(float64(s.SizeRootFs), 3) + ")"
	}
	return size
}

func containerMounts(mounts []container.MountPoint, trunc bool) (names, local string) {
	var all []string
	locals := 0
	for _, m := range mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if trunc {
			name = Ellipsis(name, 15)
		}
		all = append(all, name)
		if m.Driver == "local" {
			locals++
		}
	}
	return strings.Join(all, ","), strconv.Itoa(locals)
}

func joinMap(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, k+"="+v)
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",")
}

// portRun are neighbouring ports that are published as themselves or not at all.
type portRun struct {
	ip, proto   string
	first, last uint16
}

func (r portRun) String() string {
	text := strconv.Itoa(int(r.first))
	if r.first != r.last {
		text += "-" + strconv.Itoa(int(r.last))
	}
	if r.ip != "" {
		text = net.JoinHostPort(r.ip, text) + "->" + text
	}
	return text + "/" + r.proto
}

// Ports writes ports as berth ps shows them: 0.0.0.0:8080->80/tcp, ranges
// joined.
func Ports(ports []container.PortSummary) string {
	sorted := append([]container.PortSummary(nil), ports...)
	sort.Slice(sorted, func(i, j int) bool { return lessPort(sorted[i], sorted[j]) })
	var runs []portRun
	open := map[[2]string]int{} // address and protocol → index of their newest run
	var mapped []string
	for _, p := range sorted {
		ip := ""
		if p.IP.IsValid() {
			ip = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s",
					net.JoinHostPort(ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
		}
		key := [2]string{ip, p.Type}
		if i, ok := open[key]; ok && runs[i].last+1 == p.PrivatePort {
			runs[i].last++
			continue
		}
		open[key] = len(runs)
		runs = append(runs, portRun{ip: ip, proto: p.Type, first: p.PrivatePort, last: p.PrivatePort})
	}
	all := make([]string, 0, len(ports))
	for _, r := range runs {
		all = append(all, r.String())
	}
	return strings.Join(append(all, mapped...), ", ")
}

func lessPort(a, b container.PortSummary) bool {
	switch {
	case a.PrivatePort != b.PrivatePort:
		return a.PrivatePort < b.PrivatePort
	case a.IP != b.IP:
		return a.IP.Less(b.IP)
	case a.PublicPort != b.PublicPort:
		return a.PublicPort < b.PublicPort
	}
	return a.Type < b.Type
}
