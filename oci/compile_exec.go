package oci

import (
	"fmt"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// compileExec turns a process description into the program of another process
// in a running container. in.spec is the container's; init is a pidfd of its
// first process, initPid that process's id.
func compileExec(in *compileInput, pr *specs.Process, init inherited, initPid int) (*Plan, error) {
	if err := CheckProcess(pr); err != nil {
		return nil, err
	}
	spec := *in.spec
	pr = withContainers(pr, spec.Process)
	spec.Process = pr
	in.spec = &spec
	c := newCompiler(in)
	c.initPid = initPid
	c.newUser = hasNamespace(spec.Linux, specs.UserNamespace)

	c.Call("name the process", p.Prctl, p.Flag(unix.PR_SET_NAME, "PR_SET_NAME"), c.Str("berth:exec"))
	if a := pr.ExecCPUAffinity; a != nil {
		c.plan.initialCPUs = a.Initial
	}
	c.joinCgroups()
	c.finalCPUs(pr)
	c.oomScore(pr.OOMScoreAdj)
	if err := c.labels(pr); err != nil {
		return nil, err
	}
	c.confinedFork = hasNamespace(spec.Linux, specs.PIDNamespace) && !forkBeforeSchedule(pr.Scheduler)
	// From here on processes of the container could look at this one.
	c.hide()
	c.joinContainer(init, initPid, false)
	if c.confinedFork {
		c.keyring()
	} else {
		c.session()
	}
	c.execTerminal(pr)
	if err := c.process(pr); err != nil {
		return nil, err
	}
	return c.plan, nil
}

// withContainers gives a process, as runc does, the container's settings for
// what it does not say itself.
func withContainers(pr, container *specs.Process) *specs.Process {
	if container == nil {
		return pr
	}
	own := *pr
	if own.Capabilities == nil {
		own.Capabilities = container.Capabilities
	}
	if len(own.Rlimits) == 0 {
		own.Rlimits = container.Rlimits
	}
	if own.Scheduler == nil {
		own.Scheduler = container.Scheduler
	}
	if own.IOPriority == nil {
		own.IOPriority = container.IOPriority
	}
	if own.ExecCPUAffinity == nil {
		own.ExecCPUAffinity = container.ExecCPUAffinity
	}
	if own.ApparmorProfile == "" {
		own.ApparmorProfile = container.ApparmorProfile
	}
	if own.SelinuxLabel == "" {
		own.SelinuxLabel = container.SelinuxLabel
	}
	return &own
}

// joinContainer enters every namespace of the container at once. With initsRoot
// its first process's root directory becomes this one's, even where that is not
// the mount namespace's.
func (c *compiler) joinContainer(init inherited, initPid int, initsRoot bool) {
	var flags uint64
	names := ""
	for _, f := range namespaceFlags {
		if hasNamespace(c.spec.Linux, f.kind) {
			flags |= uint64(f.flag)
			names += "|" + f.name
		}
	}
	fd := c.inherit(init)
	var root p.Arg
	if initsRoot || !c.ownMounts() {
		// Without a mount namespace the container is its first process's root.
		root = c.Slot("root")
		c.Call("open root of the container", p.Openat, atCwd, c.Str(fmt.Sprintf("/proc/%d/root", initPid)),
			p.Flag(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY")).Store(root)
		// As long as that process is there its number is no other's.
		c.Call("open root of the container", p.PidfdSignal, fd, p.Int(0), p.Null, p.Int(0))
	}
	if flags != 0 {
		c.Call("join namespaces", p.Setns, fd, p.Flag(flags, names[1:]))
	}
	if c.newUser {
		c.becomeRoot()
		c.hide() // taking on ids made it visible again (PR_SET_DUMPABLE in prctl(2))
	}
	if hasNamespace(c.spec.Linux, specs.PIDNamespace) && !c.confinedFork {
		c.fork()
	}
	if root != (p.Arg{}) {
		c.Call("enter root", p.Fchdir, root)
		c.Call("enter root", p.Chroot, c.Str("."))
	}
	c.Call("enter root", p.Chdir, c.Str("/"))
}

// forkConfined is the last thing before the filter and the command: the clone that
// is in the container's pid namespace, and the first of this to be seen by the
// container's processes, has no more rights than they. Not even one that may
// trace others (CAP_SYS_PTRACE), whom nothing can be hidden from, gains by it.
func (c *compiler) forkConfined(pr *specs.Process) {
	if !c.confinedFork {
		return
	}
	c.hide() // taking on ids made it visible again (PR_SET_DUMPABLE in prctl(2))
	c.fork()
	c.Call("new session", p.Setsid)
	if pr.Terminal {
		c.controlTerminal()
	}
	// Lowered only now: the clone counted as one more process of the user.
	for i := range pr.Rlimits {
		if r := &pr.Rlimits[i]; r.Type == limitOfProcesses {
			soft, hard := c.allowed(r)
			c.limit(r.Type, soft, hard)
		}
	}
}

// forkBeforeSchedule tells of a policy that a clone would not have, or that
// forbids clones: it must be set after the last.
func forkBeforeSchedule(s *specs.Scheduler) bool {
	return s != nil && (s.Policy == specs.SchedDeadline || slices.Contains(s.Flags, specs.SchedFlagResetOnFork))
}

// execTerminal opens a terminal of the container's devpts. The name is the
// container's to change; the parent checks what it was sent (checkMaster).
func (c *compiler) execTerminal(pr *specs.Process) {
	if !pr.Terminal {
		return
	}
	const step = "open terminal"
	master := c.Slot("master")
	root := c.Slot("root")
	c.Call(step, p.Openat, atCwd, c.Str("/"), p.Flag(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY")).Store(root)
	c.open(step, root, path.Join("dev", "pts", "ptmx"), unix.O_RDWR|unix.O_NOCTTY, noLinks).Store(master)
	c.openConsole(step, master, pr.ConsoleSize)
}
