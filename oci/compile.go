package oci

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/cgroup"
	p "github.com/berth-containers/berth/kernel/program"
)

// Plan is a compiled container or exec: the program, what its process inherits
// and how that process is made. It touches nothing until it is launched.
type Plan struct {
	Program *p.Program
	// Warnings say what this host could not give and was left as inherited.
	Warnings []string

	attr    syscall.SysProcAttr
	files   []inherited
	joinPID bool  // the process clones itself into its pid namespace
	pidSlot p.Arg // where the pid of that clone is
	// mapIDs is what the parent does when the process asks for it (msgMapIDs):
	// it writes or checks the mappings of its user namespace.
	mapIDs     func(pid int) error
	netDevices map[string]specs.LinuxNetDevice // to be moved to it when it pauses
	waits      bool                            // it waits for the start signal before it execs
	terminal   bool                            // it sends a terminal's master
	listener   *listener                       // it hands over a seccomp listener; nil: it does not
	trace      *Trace                          // nil: none is taken
	abort      *os.File                        // see StartRequest

	initialCPUs string // where it runs until it is in its cgroup, "" for anywhere
}

// inherited is a descriptor the process is given: an open file, or a path
// opened when the plan is launched.
type inherited struct {
	name  string
	file  *os.File
	path  string
	write bool
	// procfs makes sure that path is the root of a procfs.
	procfs bool
	// make makes it, when the plan is launched; it is closed after that.
	make func(*Runner) (*os.File, error)
}

// cgroupMount is one directory of the container's /sys/fs/cgroup.
type cgroupMount struct {
	Name   string   // directory name there, "" for cgroup v2, which has only one
	Source string   // the container's cgroup on the host
	Links  []string // other names: cpuacct for cpu,cpuacct
}

// compileInput is what a plan depends on besides the specification. With zero
// values a plan can be made, and explained, without privileges.
type compileInput struct {
	spec   *specs.Spec
	bundle string // absolute
	// rootfs is the detached root mount; nil means spec.Root.Path.
	rootfs *os.File
	// joins are the cgroup files the process writes itself into (v1).
	joins []string
	// tasks are the files of resctrl it writes itself into; nil: not asked for.
	tasks []string
	// awaitCgroup: the cgroup is made while the program runs (launchHooks.prepare).
	awaitCgroup bool
	// cgroups is what a mount of type cgroup shows.
	cgroups []cgroupMount
	// extra become descriptors 3 and up of the command.
	extra []*os.File
	// hostNull tells which standard streams are the host's /dev/null.
	hostNull [3]bool
	// noPivot and noKeyring are those of LaunchOptions.
	noPivot, noKeyring bool
	// wait is the fifo the process waits on before it execs; nil: no waiting.
	wait *inherited
	// host is what the caller may give away.
	host hostLimits
	// init is the executable of the init that the command is to have; nil: none.
	init *os.File
	// hook is what is run in place of spec.Process.
	hook *specs.Hook
}

type compiler struct {
	*p.Program
	in   *compileInput
	spec *specs.Spec
	plan *Plan

	root    p.Arg  // the root mount, O_PATH
	rootAt  string // where it is attached until it is entered
	hidden  p.Arg  // an empty read-only filesystem for masked directories
	late    []lateAttr
	console p.Arg // the terminal's own side, set by openTerminal
	proc    p.Arg // the caller's /proc, once it is needed
	// initFile is the init's executable, counter what tells it the command.
	initFile, counter p.Arg
	newUser           bool       // the container has a user namespace that is not the host's
	later             namespaces // those the program makes

	// confinedFork: the process enters a pid namespace that is not its own last:
	// an exec that of its container, a container that of a neighbour.
	confinedFork bool
	pidNS        p.Arg // the namespace a container joins, where it enters it last

	inCgroup bool    // awaitCgroup is behind
	orphaned p.Label // where the process ends when the parent it waits for is gone

	labelWarned bool
	initPid     int // of the running container another process is for; 0: it is the first
}

// lateAttr is a read-only setting that waits until all mount points below it
// exist.
type lateAttr struct {
	step  string
	mount p.Arg
	set   uint64
}

// Descriptor numbers of the new process before its set-up is over.
const (
	fdSync  = p.SyncFile  // socket to the parent; its end says "done"
	fdExtra = p.FirstFile // first of the extra files
)

// compile turns a specification into the program of a new container's init.
// The steps read in the order the kernel sees them.
func compile(in *compileInput) (*Plan, error) {
	if err := check(in.spec); err != nil {
		return nil, err
	}
	if in.spec.Process == nil {
		return nil, invalid("process: missing")
	}
	c := newCompiler(in)
	for _, why := range cgroup.Ignored(in.spec.Linux.Resources) {
		c.warn("linux.resources.%s; it has no effect", why)
	}
	c.planNamespaces()

	c.Call("name the process", p.Prctl, p.Flag(unix.PR_SET_NAME, "PR_SET_NAME"), c.Str("berth:init"))
	// Mode bits below are meant as written.
	c.Call("set up", p.Umask, p.Int(0))
	if c.newUser || c.later.flags != 0 || joinsAny(c.spec.Linux) {
		// What the process enters next may cut it off from the host's cgroups. Its
		// right to a cgroup namespace comes only with that.
		c.awaitCgroup()
	}
	// What is written to /proc is written before anything of the container
	// exists.
	if err := c.labels(in.spec.Process); err != nil {
		return nil, err
	}
	c.oomScore(in.spec.Process.OOMScoreAdj)
	c.confinedFork = c.entersLast()
	c.enterNamespaces()
	if c.confinedFork {
		c.keyring()
	} else {
		c.session()
	}
	if err := c.checkJoinedSysctls(); err != nil {
		return nil, err
	}
	setLater := c.sysctls()
	c.joinMounts()
	c.names()
	if err := c.rootFilesystem(); err != nil {
		return nil, err
	}
	c.enterCgroup()
	c.pause()
	setLater()
	if err := c.restrictPaths(); err != nil {
		return nil, err
	}
	c.terminal()
	c.makeWorkingDirectory()
	c.readOnlyMounts()
	c.enterRoot()
	if err := c.process(in.spec.Process); err != nil {
		return nil, err
	}
	c.endOrphaned()
	return c.plan, nil
}

func newCompiler(in *compileInput) *compiler {
	prog := &p.Program{}
	c := &compiler{Program: prog, in: in, spec: in.spec, plan: &Plan{Program: prog}}
	for i, f := range in.extra {
		c.inherit(inherited{name: fmt.Sprintf("extra %d", i), file: f})
	}
	return c
}

// inherit adds a descriptor to those the process is given.
func (c *compiler) inherit(f inherited) p.Arg {
	c.plan.files = append(c.plan.files, f)
	return p.Fd(p.FirstFile+len(c.plan.files)-1, "<"+f.name+">")
}

// enterCgroup joins the container's cgroup and makes its cgroup namespace. It
// comes as late as may be, before the first thing that is about the cgroup: the
// parent makes the cgroup while the process sets itself up.
func (c *compiler) enterCgroup() {
	if !c.inCgroup {
		c.awaitCgroup()
		c.newCgroupNamespace()
	}
}

// awaitCgroup joins the cgroup, once it is there.
func (c *compiler) awaitCgroup() {
	c.inCgroup = true
	if c.in.awaitCgroup {
		c.await("wait for the cgroup")
	}
	c.joinCgroups()
}

func (c *compiler) newCgroupNamespace() {
	if makesNamespace(c.spec.Linux, specs.CgroupNamespace) {
		c.Call("new cgroup namespace", p.Unshare, p.Flag(unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"))
	}
}

func (c *compiler) joinCgroups() {
	for _, path := range c.in.joins {
		c.joinGroup("join cgroup "+path, path)
	}
	for _, path := range c.in.tasks {
		c.joinGroup("join class of service "+path, path)
	}
}

// joinGroup makes the process a member of the group whose file path is.
func (c *compiler) joinGroup(step, path string) {
	if !c.newUser {
		c.writeFile(step, path, "0")
		return
	}
	// Its own rights do not reach there: it is given the file.
	c.Call(step, p.Write, c.inherit(inherited{name: "tasks", path: path, write: true}), c.Str("0"), p.Int(1))
}

// names sets what the uts namespace holds.
func (c *compiler) names() {
	if h := c.spec.Hostname; h != "" {
		c.Call("set hostname "+h, p.Sethostname, c.Str(h), p.Int(len(h)))
	}
	if d := c.spec.Domainname; d != "" {
		c.Call("set domainname "+d, p.Setdomain, c.Str(d), p.Int(len(d)))
	}
}

// sysctls writes the container's kernel parameters; or, where hooks may yet make
// what they are about (network interfaces), later does.
func (c *compiler) sysctls() (later func()) {
	if c.pauses() {
		return c.setSysctls
	}
	c.setSysctls()
	return func() {}
}

func (c *compiler) setSysctls() {
	keys := make([]string, 0, len(c.spec.Linux.Sysctl))
	for k := range c.spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		c.writeProc("set "+k, "sys/"+sysctlPath(k), c.spec.Linux.Sysctl[k])
	}
}

// checkJoinedSysctls refuses parameters of a namespace that is joined by its
// path and turns out to be the caller's own.
func (c *compiler) checkJoinedSysctls() error {
	if c.in.host.ownNamespace == nil {
		return nil
	}
	for key := range c.spec.Linux.Sysctl {
		needs, err := sysctlNamespace(key)
		if err != nil {
			return err
		}
		for _, n := range c.spec.Linux.Namespaces {
			if n.Type == needs && n.Path != "" && c.in.host.ownNamespace(n) {
				return invalid("linux.sysctl: %s: %s is the host's %s namespace, which would change", key, n.Path, needs)
			}
		}
	}
	return nil
}

// sysctlPath turns a name with dots into its path. A name with slashes is one
// already (an interface's name may hold a dot).
func sysctlPath(name string) string {
	if strings.Contains(name, "/") {
		return filepath.Clean("/" + name)[1:]
	}
	return strings.ReplaceAll(name, ".", "/")
}

func (c *compiler) oomScore(adj *int) {
	if adj == nil {
		return
	}
	want := *adj
	if low := c.in.host.oomScoreAdj; want < low && !c.in.host.raises() {
		c.warn("oom_score_adj %d: only CAP_SYS_RESOURCE may go below the caller's %d, which is kept", want, low)
		want = low
	}
	c.writeProc("set oom_score_adj", "self/oom_score_adj", fmt.Sprint(want))
}

func (c *compiler) warn(format string, args ...any) {
	c.plan.Warnings = append(c.plan.Warnings, fmt.Sprintf(format, args...))
}

// writeFile writes a file of the host's cgroups.
func (c *compiler) writeFile(step, path, value string) {
	fd := c.Slot("file")
	c.Call(step, p.Openat, atCwd, c.Str(path), p.Flag(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, "O_WRONLY|O_NOFOLLOW")).Store(fd)
	c.Call(step, p.Write, fd, c.Str(value), p.Int(len(value)))
	c.Call(step, p.Close, fd)
}

// Explain writes the plan as text: how the process is made, then one line for
// each call of its program.
func (plan *Plan) Explain(w io.Writer) error {
	var names []string
	for _, f := range namespaceFlags {
		if plan.attr.Cloneflags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	if _, err := fmt.Fprintf(w, "     clone3(%s)\n", strings.Join(names, "|")); err != nil {
		return err
	}
	return plan.Program.Explain(w)
}
