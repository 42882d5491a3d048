package oci

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// What is different for a caller that is not the host's root. Its containers
// have a user namespace, which gives nearly all the rights their set-up needs.
// What that does not reach are the cgroups: it may make some where its session
// has been given a part of the tree (delegation), and otherwise its containers
// have none.

// makeGroup makes the container's cgroup with its limits. It is errNoGroup when
// the caller may make none and the specification asks for no limits.
func makeGroup(g *cgroup.Group, spec *specs.Spec) error {
	res := Resources(spec)
	err := g.Make(res)
	if !denied(err) || IsHostRoot() {
		return err
	}
	// Device rules are for the host's root; a user namespace's can make no
	// nodes that work.
	res.Devices = nil
	if err = g.Make(res); !denied(err) {
		return err
	}
	if limited(spec.Linux.Resources) {
		return errdefs.WithHint(errdefs.As(errdefs.ErrPermission, fmt.Errorf("linux.resources: limits need a cgroup: %w", err)),
			"leave the limits out, or give the user a part of the cgroup tree: loginctl enable-linger, or systemd's Delegate=")
	}
	return errNoGroup
}

// withoutGroup goes on without a cgroup.
func (c *Container) withoutGroup() {
	c.group.Close()
	c.group, c.Cgroup = nil, cgroup.State{}
}

// denied tells whether the kernel denied a right.
func denied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// IsHostRoot tells whether the caller is root, and not of a user namespace.
func IsHostRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	b, err := ReadSmallFile("/proc/self/uid_map")
	f := bytes.Fields(b)
	return err != nil || len(f) == 3 && string(f[0]) == "0" && string(f[1]) == "0" && string(f[2]) == "4294967295"
}

// limited tells whether any limit is asked, device rules not counted.
func limited(res *specs.LinuxResources) bool {
	if res == nil {
		return false
	}
	return res.Memory != nil || res.CPU != nil || res.Pids != nil || res.BlockIO != nil || res.Network != nil ||
		len(res.HugepageLimits) > 0 || len(res.Rdma) > 0 || len(res.Unified) > 0
}

// errNoGroup: the container has no cgroup.
var errNoGroup = errdefs.WithHint(fmt.Errorf("the container has no cgroup: %w", errdefs.ErrUnsupported),
	"whoever made it had no part of the cgroup tree")

// hasGroup tells whether the container has a cgroup.
func (c *Container) hasGroup() bool { return len(c.Cgroup.Dirs) > 0 }

// killAllWithout is Kill for all processes of a container without a cgroup. The
// first process of a pid namespace takes the others with it; by other signals
// they cannot be reached.
func (c *Container) killAllWithout(sig unix.Signal) error {
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	if sig != unix.SIGKILL || !makesNamespace(spec.Linux, specs.PIDNamespace) {
		return fmt.Errorf("signal all processes of %s: %w", c.ID, errNoGroup)
	}
	return c.Kill(sig, false)
}

// endTime bounds the wait for a killed process, as that for those of a cgroup is.
const endTime = 5 * time.Second

// endWithout kills the first process of a container without a cgroup, and waits
// until it has ended, but not for ever: it may not be able to.
func (c *Container) endWithout(most time.Duration) error {
	pidfd, err := c.Pidfd()
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill container %s: %w", c.ID, err)
	}
	ended, err := awaitEvent(pidfd, unix.POLLIN, nil, time.Now().Add(most))
	if err == nil && !ended {
		err = errdefs.WithHint(errdefs.As(errdefs.ErrConflict, fmt.Errorf("process %d was killed, and has not ended after %s", c.Pid, most)),
			"it may wait for a disk or a network file system: delete the container again when that answers")
	}
	return err
}
