package oci

import (
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/kernel/netdev"
)

// checkNetDevices refuses what no device can be called, and the host's namespace.
func checkNetDevices(l *specs.Linux) error {
	if len(l.NetDevices) == 0 {
		return nil
	}
	if !hasNamespace(l, specs.NetworkNamespace) {
		return invalid("linux.netDevices: needs a network namespace")
	}
	taken := map[string]string{}
	for name, d := range l.NetDevices {
		as := nameInside(name, d)
		if err := netdev.CheckName(name, false); err != nil {
			return invalid("linux.netDevices: %w", err)
		}
		if err := netdev.CheckName(as, true); err != nil {
			return invalid("linux.netDevices: %s: %w", name, err)
		}
		if other, ok := taken[as]; ok && !strings.Contains(as, "%d") {
			return invalid("linux.netDevices: %s and %s have the same name %s", min(name, other), max(name, other), as)
		}
		taken[as] = name
	}
	return nil
}

func nameInside(name string, d specs.LinuxNetDevice) string {
	if d.Name == "" {
		return name
	}
	return d.Name
}

// moveDevices gives the process's network namespace the host's devices it is to
// have. A container that is not made after all loses them with its namespace:
// the kernel brings physical ones back to the host.
func (pr *Process) moveDevices() error {
	if len(pr.plan.netDevices) == 0 {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pr.Pid))
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer ns.Close()
	names := make([]string, 0, len(pr.plan.netDevices))
	for name := range pr.plan.netDevices {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := netdev.Move(name, nameInside(name, pr.plan.netDevices[name]), ns); err != nil {
			return fmt.Errorf("linux.netDevices: %s: %w", name, err)
		}
	}
	return nil
}
