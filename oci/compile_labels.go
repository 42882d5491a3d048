package oci

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// What the process is to be to AppArmor and SELinux. Both are told by files of
// the process's own directory in /proc, and both keep what they are told until
// the next execve: the command's. So it is written first of all, while nothing
// of a container is near that could put another file in the way.

// labels says under which profile and label the command will run, and which
// label the keys made on the way get.
func (c *compiler) labels(pr *specs.Process) error {
	if err := c.appArmor(pr.ApparmorProfile); err != nil {
		return err
	}
	label := pr.SelinuxLabel
	if label == "" {
		return nil
	}
	if !c.in.host.has(c.in.host.seLinux) {
		return errdefs.WithHint(without("process.selinuxLabel", "SELinux in the kernel"), "leave the label out")
	}
	c.writeProc(labelStep+label+" of keys", "self/attr/keycreate", label)
	c.writeProc(labelStep+label, "self/attr/exec", label)
	return nil
}

func (c *compiler) appArmor(profile string) error {
	enabled := c.in.host.has(c.in.host.appArmor)
	switch {
	case profile == "", profile == unconfined && !enabled:
		return nil
	case !enabled:
		return errdefs.WithHint(without("process.apparmorProfile", "AppArmor in the kernel"),
			fmt.Sprintf("leave the profile out, or ask for %q", unconfined))
	}
	c.writeProc(profileStep+profile, "self/attr/apparmor/exec", "exec "+profile)
	return nil
}

const (
	unconfined  = "unconfined"
	profileStep = "set AppArmor profile "
	labelStep   = "set SELinux label "
)

// writeProc writes a file of the host's /proc: of the caller's, whatever mount
// namespace has been joined, and never one that lies in a mount on top of it.
func (c *compiler) writeProc(step, rel, value string) {
	if c.proc == (p.Arg{}) {
		c.proc = c.inherit(inherited{name: "proc", path: "/proc", procfs: true})
	}
	fd := c.Slot("file")
	c.open(step, c.proc, rel, unix.O_WRONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS).Store(fd)
	c.Call(step, p.Write, fd, c.Str(value), p.Int(len(value)))
	c.Call(step, p.Close, fd)
}

// mountLabel is the SELinux label of a new filesystem's files, "" for none:
// those of the kernel have labels of their own by its policy.
func (c *compiler) mountLabel(kind string) string {
	switch kind {
	case "proc", "sysfs", "cgroup", "cgroup2", "mqueue":
		return ""
	}
	return c.seLinuxMounts()
}

// seLinuxMounts is the specification's mountLabel where it means something. A
// label nobody looks at leaves nothing unprotected: it is only warned about.
func (c *compiler) seLinuxMounts() string {
	l := c.spec.Linux.MountLabel
	if l != "" && !c.in.host.has(c.in.host.seLinux) {
		if !c.labelWarned {
			c.warn("linux.mountLabel: the kernel has no SELinux, files have no labels")
		}
		c.labelWarned = true
		return ""
	}
	return l
}

// isContext tells whether a mount option is a label.
func isContext(key string) bool {
	switch key {
	case "context", "fscontext", "defcontext", "rootcontext":
		return true
	}
	return false
}

// hasContext tells whether options label the filesystem already.
func hasContext(options []string) bool {
	for _, o := range options {
		if key, _, _ := strings.Cut(o, "="); isContext(key) {
			return true
		}
	}
	return false
}

// labelQueue labels a filesystem of message queues. The kernel has made that
// with the namespace, so that no mount option can label it any more.
func (c *compiler) labelQueue(step string, mount p.Arg) {
	label := c.seLinuxMounts()
	if label == "" {
		return
	}
	fd := c.Slot("queue")
	c.open(step, mount, ".", unix.O_DIRECTORY, noLinks).Store(fd)
	c.Call(step, p.Fsetxattr, fd, c.Str("security.selinux"), c.Str(label), p.Int(len(label)), p.Int(0))
	c.Call(step, p.Close, fd)
}
