package oci

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// namespaces are clone flags with their names.
type namespaces struct {
	flags uint64
	names []string
}

func (n *namespaces) add(flag uint64, name string) {
	n.flags |= flag
	n.names = append(n.names, name)
}

// planNamespaces decides which namespaces the process is born into, and which
// its program makes later: a cgroup namespace inside the container's cgroup, or
// its root would be the caller's; all of them where others are joined that a
// new user namespace's root has no right to, where they are to belong to a user
// namespace that is joined, and where somebody with more rights has to map the
// ids; a time namespace whose clocks have to be set before anybody is in it.
func (c *compiler) planNamespaces() {
	l := c.spec.Linux
	joined, joinedUser := false, false
	for _, n := range l.Namespaces {
		c.newUser = c.newUser || n.Type == specs.UserNamespace
		joined = joined || n.Path != ""
		joinedUser = joinedUser || n.Path != "" && n.Type == specs.UserNamespace
	}
	makesUser := c.newUser && !joinedUser
	allLater := joinedUser || makesUser && (joined || !c.in.host.mayMap(l))
	for _, n := range l.Namespaces {
		for _, f := range namespaceFlags {
			if n.Type != f.kind || n.Path != "" || n.Type == specs.CgroupNamespace {
				continue
			}
			clocks := len(l.TimeOffsets) > 0 && (n.Type == specs.TimeNamespace || n.Type == specs.PIDNamespace)
			if allLater || clocks {
				c.later.add(uint64(f.flag), f.name)
			} else {
				c.plan.attr.Cloneflags |= f.flag
			}
		}
	}
	if c.plan.attr.Cloneflags&unix.CLONE_NEWUSER == 0 {
		return
	}
	c.plan.attr.UidMappings = idMap(l.UIDMappings)
	c.plan.attr.GidMappings = idMap(l.GIDMappings)
	// Be the namespace's root, or executing the interpreter costs the
	// capabilities.
	c.plan.attr.GidMappingsEnableSetgroups = c.in.host.setgroups
	c.plan.attr.Credential = &syscall.Credential{NoSetGroups: true}
}

func idMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, e := range m {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
	}
	return out
}

// joinsAny tells whether the container joins a namespace by its path.
func joinsAny(l *specs.Linux) bool {
	return slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Path != "" })
}

// enterNamespaces joins the namespaces given by path and makes those the process
// was not born into.
func (c *compiler) enterNamespaces() {
	joinedUser, joinedPID := c.joinNamespaces()
	// What is made belongs to who makes it: the message queues' root directory to
	// the user namespace's root. The clocks are still the caller's to set.
	early := joinedUser && len(c.spec.Linux.TimeOffsets) == 0
	if early {
		c.becomeRoot()
	}
	if c.later.flags != 0 {
		c.Call("make namespaces", p.Unshare, p.Flag(c.later.flags, strings.Join(c.later.names, "|")))
	}
	c.setClocks()
	madeUser := c.later.flags&unix.CLONE_NEWUSER != 0
	if madeUser || joinedUser && len(c.spec.Linux.UIDMappings) > 0 {
		c.awaitMappings(madeUser)
	}
	if madeUser || joinedUser && !early {
		c.becomeRoot()
	}
	if c.inCgroup {
		c.newCgroupNamespace()
	}
	if c.confinedFork {
		return
	}
	if joinedPID {
		c.hide()
	}
	if joinedPID || c.later.flags&(unix.CLONE_NEWPID|unix.CLONE_NEWTIME) != 0 {
		c.fork()
	}
}

// joinNamespaces joins all but a mount namespace. A caller with rights on the
// host has them in every namespace, and a user namespace's root perhaps not: it
// joins the user namespace last. Any other gets its rights by joining that first.
func (c *compiler) joinNamespaces() (user, pid bool) {
	first := !c.in.host.sysAdmin
	for _, nowUser := range []bool{first, !first} {
		for _, f := range namespaceFlags {
			for _, n := range c.spec.Linux.Namespaces {
				isUser := n.Type == specs.UserNamespace
				if n.Type != f.kind || n.Path == "" || isUser != nowUser || n.Type == specs.MountNamespace {
					continue
				}
				c.join(n, uint64(f.flag), f.name)
				user = user || isUser
				pid = pid || n.Type == specs.PIDNamespace
			}
		}
	}
	return user, pid
}

// setClocks writes the offsets of a new time namespace (time_namespaces(7)). It
// takes them only while nobody is in it: the process enters it by its next clone.
// As whom it is open to write is as yet the caller.
func (c *compiler) setClocks() {
	if len(c.spec.Linux.TimeOffsets) == 0 {
		return
	}
	value := ""
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := c.spec.Linux.TimeOffsets[clock]; ok {
			value += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	c.writeProc("set the clocks' offsets", "self/timens_offsets", value)
}

// msgMapIDs asks the parent to see to the mappings of the user namespace the
// process is in (Plan.mapIDs).
const msgMapIDs = "u"

func (c *compiler) awaitMappings(made bool) {
	l, host := c.spec.Linux, c.in.host
	if made {
		c.plan.mapIDs = func(pid int) error { return host.mapIDs(pid, l) }
	} else {
		c.plan.mapIDs = func(pid int) error { return checkIDs(pid, l) }
	}
	c.askParent("wait for the id mappings", msgMapIDs)
}

func (c *compiler) join(n specs.LinuxNamespace, flag uint64, name string) {
	fd := c.inherit(inherited{name: string(n.Type) + " namespace", path: n.Path})
	if n.Type == specs.PIDNamespace && c.confinedFork {
		c.pidNS = fd
	}
	c.Call(fmt.Sprintf("join %s namespace %s", n.Type, n.Path), p.Setns, fd, p.Flag(flag, name))
}

// joinMounts joins a mount namespace, after the last use of the host's /proc:
// what is at that path there is somebody else's to say (CVE-2025-52881).
func (c *compiler) joinMounts() {
	for _, n := range c.spec.Linux.Namespaces {
		if n.Type == specs.MountNamespace && n.Path != "" {
			c.join(n, unix.CLONE_NEWNS, "CLONE_NEWNS")
		}
	}
}

// becomeRoot takes on the ids of a joined user namespace's root.
func (c *compiler) becomeRoot() {
	c.Call("become root", p.Setgroups, p.Int(0), p.Null).Tolerate(unix.EPERM)
	c.Call("become root", p.Setresgid, p.Int(0), p.Int(0), p.Int(0))
	c.Call("become root", p.Setresuid, p.Int(0), p.Int(0), p.Int(0))
}

// session makes the process the leader of a session without a terminal, with
// a keyring of its own. It comes after the last clone.
func (c *compiler) session() {
	c.Call("new session", p.Setsid)
	c.keyring()
}

func (c *compiler) keyring() {
	if c.in.noKeyring {
		return
	}
	c.Call("new keyring", p.Keyctl, p.Flag(unix.KEYCTL_JOIN_SESSION_KEYRING, "JOIN_SESSION_KEYRING"), c.Str("berth")).
		Tolerate(unix.ENOSYS, unix.EPERM, unix.EDQUOT)
}

// entersLast tells whether a container that joins a pid namespace can be the last
// thing before its command a process of it (forkConfined). From a neighbour with
// CAP_SYS_PTRACE nothing can be hidden but by a user namespace of one's own, and
// until then the process has every right on the host. It takes a kernel that mounts
// the proc filesystem of a namespace one is not in, and that nobody has to know
// the process's number there before.
func (c *compiler) entersLast() bool {
	l := c.spec.Linux
	joins := slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace && n.Path != "" })
	return joins && !c.newUser && !c.pauses() && len(l.TimeOffsets) == 0 && !forkBeforeSchedule(c.spec.Process.Scheduler) &&
		c.in.host.has(c.in.host.procOfNamespace)
}

// hide keeps processes of a joined namespace from looking into this one
// (/proc/PID/fd, ptrace) before it is confined; execve ends it.
func (c *compiler) hide() {
	c.Call("hide from neighbours", p.Prctl, p.Flag(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), p.Int(0))
}

// fork goes on in a child, the first process that is in the joined pid
// namespace. It is a child of our parent, who reads its pid from the slot.
func (c *compiler) fork() {
	child := c.NewLabel()
	c.plan.joinPID = true
	c.plan.pidSlot = c.Slot("pid")
	c.Call("enter pid namespace", p.Clone, p.Flag(unix.CLONE_PARENT|uint64(unix.SIGCHLD), "CLONE_PARENT|SIGCHLD"),
		p.Int(0), p.Int(0), p.Int(0), p.Int(0)).ThenIfZero(child).Store(c.plan.pidSlot)
	c.Call("enter pid namespace", p.ExitGroup, p.Int(0))
	c.Mark(child)
}
