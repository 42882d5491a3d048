package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	bnet "github.com/berth-containers/berth/network"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// prepareNetwork gives a starting container its network by its mode, and
// writes the /etc files, which depend on it.
func (e *Engine) prepareNetwork(ctx context.Context, c *ctr, src *specSources) error {
	mode := c.rec.HostConfig.NetworkMode
	etc := &etcInput{cfg: c.rec.Config, hc: c.rec.HostConfig, hostResolv: readHostResolv(mode.IsHost())}
	switch {
	case mode.IsContainer():
		shared, err := e.sharedEtc(mode.ConnectedContainer())
		src.etc = shared
		return err
	case mode.IsHost():
		hosts, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		etc.hostHosts, etc.gateway = hosts, netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case mode.IsBridge():
		a, err := e.connectBridge(ctx, c, src)
		if err != nil {
			return err
		}
		etc.address, etc.gateway = a.IP, a.Gateway
	}
	paths, err := etc.writeEtc(c.dir)
	fault.Here(fault.StartFiles)
	src.etc = paths
	return err
}

// connectBridge makes the container's namespace and connects it.
func (e *Engine) connectBridge(ctx context.Context, c *ctr, src *specSources) (*bnet.Attachment, error) {
	ports, err := portBindings(c.rec)
	if err != nil {
		return nil, err
	}
	netns, err := e.newNetns(c.id, src.userns)
	if err != nil {
		return nil, err
	}
	ep := bnet.Endpoint{ContainerID: c.id, NetnsPath: netns, Network: bnet.Bridge, Ports: ports}
	if want := c.rec.Endpoint; want != nil {
		ep.MAC = net.HardwareAddr(want.MacAddress)
		if want.IPAMConfig != nil {
			ep.IP = want.IPAMConfig.IPv4Address
		}
	}
	a, err := e.nets.Connect(ctx, ep)
	if err != nil {
		return nil, err
	}
	fault.Here(fault.StartNetwork)
	src.netns = netns
	c.setAttached(a)
	e.emitNetwork(events.ActionConnect, a.NetworkID, a.Network, c.id)
	return a, nil
}

// setAttached keeps what the network gave in the record, from where the next
// update writes it to disk. The caller holds act, or acts for who does.
func (c *ctr) setAttached(a *bnet.Attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := *c.rec
	r.Attached = a
	c.rec = &r
}

// sharedEtc are the files of the container whose network is joined.
func (e *Engine) sharedEtc(id string) (map[string]string, error) {
	other, err := e.containers.get(id)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, name := range []string{fileHosts, fileHostname, fileResolv} {
		if p := filepath.Join(other.dir, name); exists(p) {
			paths[name] = p
		}
	}
	return paths, nil
}

// releaseRun gives back what a run of the container held: address, ports,
// namespace, shared memory. It may be called again, and for a container that
// holds nothing.
func (e *Engine) releaseRun(ctx context.Context, c *ctr) error {
	rec := c.snapshot()
	var errs []error
	if rec.HostConfig.NetworkMode.IsBridge() {
		errs = append(errs, e.nets.Release(ctx, c.id))
		if a := rec.Attached; a != nil {
			c.setAttached(nil)
			e.emitNetwork(events.ActionDisconnect, a.NetworkID, a.Network, c.id)
		}
	}
	if rec.HostConfig.IpcMode.IsShareable() {
		errs = append(errs, e.removeShm(c.id))
	}
	errs = append(errs, e.unmountVolumes(rec))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release what container %s held: %w", short(c.id), err)
	}
	return nil
}

// portBindings are the ports to publish: those asked for and, with -P, the
// exposed ones that are not among them, on ports the kernel chooses.
func portBindings(rec *record) ([]bnet.PortBinding, error) {
	var list []bnet.PortBinding
	for port, bindings := range rec.HostConfig.PortBindings {
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			lo, hi, err := splitHostPort(b.HostPort)
			if err != nil {
				return nil, err
			}
			list = append(list, bnet.PortBinding{
				Proto: string(port.Proto()), ContainerPort: port.Num(), HostIP: b.HostIP, HostPort: lo, HostPortEnd: hi,
			})
		}
	}
	if !rec.HostConfig.PublishAllPorts {
		return list, nil
	}
	for port := range rec.Config.ExposedPorts {
		if _, asked := rec.HostConfig.PortBindings[port]; !asked {
			list = append(list, bnet.PortBinding{Proto: string(port.Proto()), ContainerPort: port.Num()})
		}
	}
	return list, nil
}

// splitHostPort reads "", "8080" or "8000-8010".
func splitHostPort(s string) (lo, hi uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	if err := checkHostPort(s); err != nil {
		return 0, 0, err
	}
	first, last, isRange := strings.Cut(s, "-")
	a, _ := strconv.ParseUint(first, 10, 16)
	if !isRange {
		return uint16(a), 0, nil
	}
	b, _ := strconv.ParseUint(last, 10, 16)
	return uint16(a), uint16(b), nil
}

// endpointSettings is the container's place on its network in Docker's words.
func (e *Engine) endpointSettings(rec *record) map[string]*network.EndpointSettings {
	mode := rec.HostConfig.NetworkMode
	if mode.IsContainer() {
		return map[string]*network.EndpointSettings{}
	}
	ep := rec.Endpoint.Copy()
	if ep == nil {
		ep = &network.EndpointSettings{}
	}
	if rec.State.active() {
		ep.NetworkID = e.networkIDs[mode.NetworkName()]
	}
	if a := rec.Attached; a != nil {
		ep.NetworkID, ep.EndpointID = a.NetworkID, a.EndpointID
		ep.IPAddress, ep.IPPrefixLen, ep.Gateway = a.IP, a.PrefixLen, a.Gateway
		if mac, err := net.ParseMAC(a.MAC); err == nil {
			ep.MacAddress = network.HardwareAddr(mac)
		}
	}
	return map[string]*network.EndpointSettings{mode.NetworkName(): ep}
}

// portMap is what is published, with exposed but unpublished ports as keys
// without bindings.
func portMap(rec *record) network.PortMap {
	ports := network.PortMap{}
	if !rec.State.active() {
		return ports
	}
	for p := range rec.Config.ExposedPorts {
		ports[p] = nil
	}
	if rec.Attached == nil {
		return ports
	}
	for _, b := range rec.Attached.Ports {
		p, ok := network.PortFrom(b.ContainerPort, network.IPProtocol(b.Proto))
		if ok {
			ports[p] = append(ports[p], network.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(int(b.HostPort))})
		}
	}
	return ports
}

// portSummaries is portMap as lists show it.
func portSummaries(rec *record) []container.PortSummary {
	list := []container.PortSummary{}
	for p, bindings := range portMap(rec) {
		if len(bindings) == 0 {
			list = append(list, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			public, _ := strconv.ParseUint(b.HostPort, 10, 16)
			list = append(list, container.PortSummary{
				IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(public), Type: string(p.Proto()),
			})
		}
	}
	return list
}

// NetworkList lists the networks. Filters: driver, id, name, scope, type.
func (e *Engine) NetworkList(_ context.Context, f Filters) ([]network.Summary, error) {
	if err := f.only("driver", "id", "name", "scope", "type", "label", "dangling"); err != nil {
		return nil, err
	}
	list := []network.Summary{}
	for _, n := range e.nets.List() {
		d := describeNetwork(&n)
		if f.exact("driver", n.Driver) && f.match("id", n.ID) && f.match("name", n.Name) &&
			f.exact("scope", d.Scope) && f.exact("type", "builtin") && f.labels(nil) && f.exact("dangling", "false") {
			list = append(list, network.Summary{Network: d})
		}
	}
	return list, nil
}

// NetworkInspect describes a network, found by name, id or id prefix, and its
// endpoints.
func (e *Engine) NetworkInspect(_ context.Context, ref string) (*network.Inspect, error) {
	n, err := e.nets.Inspect(ref)
	if err != nil {
		return nil, err
	}
	out := &network.Inspect{Network: describeNetwork(&n), Containers: map[string]network.EndpointResource{}}
	for id, a := range n.Containers {
		ep := network.EndpointResource{EndpointID: a.EndpointID, IPv4Address: netip.PrefixFrom(a.IP, a.PrefixLen)}
		if mac, err := net.ParseMAC(a.MAC); err == nil {
			ep.MacAddress = network.HardwareAddr(mac)
		}
		if c, err := e.containers.get(id); err == nil {
			ep.Name = c.snapshot().Name
		}
		out.Containers[id] = ep
	}
	return out, nil
}

func describeNetwork(n *bnet.Network) network.Network {
	d := network.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver,
		EnableIPv4: true, Options: map[string]string{}, Labels: map[string]string{},
		IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
	}
	if n.Subnet.IsValid() {
		d.IPAM.Config = append(d.IPAM.Config, network.IPAMConfig{Subnet: n.Subnet, Gateway: n.Gateway})
		d.Options["com.docker.network.bridge.name"] = n.Link
		d.Options["com.docker.network.bridge.default_bridge"] = "true"
		d.Options["com.docker.network.bridge.enable_ip_masquerade"] = "true"
		d.Options["com.docker.network.driver.mtu"] = strconv.Itoa(n.MTU)
	}
	return d
}

// publishable refuses what the network part cannot publish, at creation.
func publishable(rec *record) error {
	ports, err := portBindings(rec)
	if err != nil || !rec.HostConfig.NetworkMode.IsBridge() {
		return err
	}
	for _, p := range ports {
		if p.Proto == string(network.SCTP) {
			return fmt.Errorf("publish port %d/%s: %w", p.ContainerPort, p.Proto, errdefs.ErrUnsupported)
		}
	}
	return nil
}
