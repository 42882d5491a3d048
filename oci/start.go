package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/resctrl"
)

// StartRequest describes a container to be created and started in one act.
type StartRequest struct {
	// ID names the container to a seccomp agent.
	ID string
	// Spec is the OCI specification. It is not changed.
	Spec *specs.Spec
	// Bundle is the directory relative paths of the specification start from.
	Bundle string
	// Rootfs is a detached mount (fsmount, open_tree) to be the root; nil means
	// Spec.Root.Path. It stays the caller's. With hooks the directory
	// Spec.Root.Path must be there too: they find the root by that name.
	Rootfs *os.File
	// Stdio are the standard streams, unless Spec.Process.Terminal.
	Stdio Stdio
	// ExtraFiles become descriptors 3 and up.
	ExtraFiles []*os.File
	// NoPivot and NoKeyring are those of [LaunchOptions].
	NoPivot, NoKeyring bool
	// Cgroup is where the container's processes live; nil leaves them in the
	// caller's cgroup. Its limits are set already, or Prepare sees to that.
	Cgroup *cgroup.Group
	// Resctrl is the container's group there; nil: Spec.Linux.IntelRdt is refused.
	Resctrl *resctrl.Group
	// Prepare runs while the process sets itself up, before it enters its cgroup:
	// it makes the cgroup, see [MayPrepare].
	// With an error nothing of the process is left. Nil means nothing to do. (On
	// a host that clones processes into cgroups the cgroup must exist before.)
	Prepare func(*Process) error
	// Joined: Prepare puts the process into its cgroup as well.
	Joined bool
	// Init gives the command an init: the container's first process forwards
	// signals to it, reaps what it leaves behind, and exits as it does.
	Init bool
	// Trace collects where the time goes; nil: nothing is collected.
	Trace *Trace
	// Abort is a descriptor that becomes readable when the start is to be given
	// up: what has been made is ended, hooks included, and the error is
	// [ErrAborted]. It may take as long as the kernel holds a process in a system
	// call. Nil: the start goes on to its end.
	Abort *os.File
}

// Start creates and starts a container, with its hooks but those that follow its
// end ([Runner.Poststop]). On error nothing of it is left, the cgroup excepted. The error is a [*StepError] when the kernel refused a step;
// errors.Is tells [ErrCommandNotFound] and [ErrCommandNotExecutable].
func (r *Runner) Start(req *StartRequest) (*Process, error) {
	if !emptyHooks(req.Spec.Hooks) {
		return r.startHooked(req)
	}
	plan, err := r.plan(req, nil)
	if err != nil {
		return nil, err
	}
	return r.launch(plan, req.Stdio, nil, launchHooks{prepare: req.Prepare})
}

// plan compiles a start for this host.
func (r *Runner) plan(req *StartRequest, wait *inherited) (*Plan, error) {
	oom := req.Spec.Process != nil && req.Spec.Process.OOMScoreAdj != nil
	bundle, err := filepath.Abs(req.Bundle)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", req.Bundle, err)
	}
	in := &compileInput{
		spec: req.Spec, bundle: bundle, rootfs: req.Rootfs, extra: req.ExtraFiles,
		wait: wait, hostNull: req.Stdio.hostNull(), noPivot: req.NoPivot, noKeyring: req.NoKeyring,
	}
	if in.host, err = r.host(oom); err != nil {
		return nil, err
	}
	if req.Init {
		if in.init, err = r.openInit(); err != nil {
			return nil, err
		}
	}
	in.useCgroup(req.Cgroup)
	in.awaitCgroup = req.Prepare != nil
	if req.Joined {
		in.joins = nil
	}
	if err := in.useResctrl(req.Resctrl); err != nil {
		return nil, err
	}
	plan, err := compile(in)
	if err != nil {
		return nil, err
	}
	plan.cloneInto(req.Cgroup)
	plan.describe(req.Spec, specs.State{ID: req.ID, Bundle: bundle, Status: specs.StateCreating})
	plan.trace, plan.abort = req.Trace, req.Abort
	req.Trace.Mark("compile the program")
	return plan, nil
}

// describe is what a seccomp agent is told about the container.
func (plan *Plan) describe(spec *specs.Spec, st specs.State) {
	if plan.listener != nil {
		st.Version, st.Annotations = specs.Version, spec.Annotations
		plan.listener.state = st
	}
}

// ExecRequest describes another process in a running container.
type ExecRequest struct {
	// ID and Bundle are the container's, for a seccomp agent.
	ID, Bundle string
	// InitPid and InitPidfd are the container's first process. The descriptor
	// stays the caller's.
	InitPid   int
	InitPidfd *os.File
	// Spec is the container's specification: its namespaces and seccomp profile.
	Spec *specs.Spec
	// Process is what to run.
	Process    *specs.Process
	Cgroup     *cgroup.Group
	Resctrl    *resctrl.Group
	Stdio      Stdio
	ExtraFiles []*os.File
	// Abort is that of [StartRequest].
	Abort *os.File
}

// Exec starts a process in a running container. Errors as for [Runner.Start].
func (r *Runner) Exec(req *ExecRequest) (*Process, error) {
	exec, err := r.PrepareExec(req)
	if err != nil {
		return nil, err
	}
	return exec.Start(req.Stdio, req.Abort)
}

// PreparedExec is a process compiled to be executed in a running container any
// number of times, as long as that and what the request refers to are there.
type PreparedExec struct {
	runner *Runner
	plan   *Plan
	req    *ExecRequest
}

// PrepareExec compiles an exec. Of the request's streams only those that are nil or
// /dev/null are noted.
func (r *Runner) PrepareExec(req *ExecRequest) (*PreparedExec, error) {
	host, err := r.host(req.Process.OOMScoreAdj != nil)
	if err != nil {
		return nil, err
	}
	in := &compileInput{spec: req.Spec, extra: req.ExtraFiles, host: host, hostNull: req.Stdio.hostNull()}
	in.useCgroup(req.Cgroup)
	if err := in.useResctrl(req.Resctrl); err != nil {
		return nil, err
	}
	plan, err := compileExec(in, req.Process, inherited{name: "init", file: req.InitPidfd}, req.InitPid)
	if err != nil {
		return nil, err
	}
	plan.cloneInto(req.Cgroup)
	plan.describe(req.Spec, specs.State{ID: req.ID, Bundle: req.Bundle, Status: specs.StateRunning, Pid: req.InitPid})
	return &PreparedExec{r, plan, req}, nil
}

// Start starts the process. The same of the streams must be nil or /dev/null as were
// when it was compiled. abort is that of [StartRequest]. Errors as for [Runner.Start].
func (e *PreparedExec) Start(stdio Stdio, abort *os.File) (*Process, error) {
	plan := *e.plan
	plan.abort = abort
	pr, err := e.runner.launch(&plan, stdio, nil, launchHooks{})
	if errors.Is(err, unix.EBUSY) && plan.attr.UseCgroupFD {
		return e.besideInit(plan, stdio, err)
	}
	return pr, err
}

// besideInit starts the process in the cgroup that the container's first
// process is in: it has made cgroups of its own (as systemd does), and nobody can
// enter the one above them (v2's no-internal-process rule).
func (e *PreparedExec) besideInit(plan Plan, stdio Stdio, why error) (*Process, error) {
	dir, err := e.req.Cgroup.CloneFDOf(e.req.InitPid)
	if err != nil {
		return nil, why
	}
	defer dir.Close()
	plan.attr.CgroupFD = int(dir.Fd())
	return e.runner.launch(&plan, stdio, nil, launchHooks{})
}

// MayPrepare tells whether the cgroup may be made while the container sets itself
// up ([StartRequest].Prepare). Where the process is born in it, or is given its
// files because its user namespace has no right to them, it must be there before.
func MayPrepare(g *cgroup.Group, s *specs.Spec) bool {
	return g.Mode() != cgroup.Unified && !hasNamespace(s.Linux, specs.UserNamespace)
}

// useCgroup lists the files by which a process joins the group on v1, and what
// a cgroup mount shows.
func (in *compileInput) useCgroup(g *cgroup.Group) {
	if g == nil {
		return
	}
	in.joins = g.JoinPaths()
	for _, m := range g.Mounts() {
		in.cgroups = append(in.cgroups, cgroupMount{Name: m.Name, Source: m.Source, Links: m.Links})
	}
}

// useResctrl lists the files by which a process joins its class of service.
func (in *compileInput) useResctrl(g *resctrl.Group) error {
	switch asked := in.spec.Linux != nil && in.spec.Linux.IntelRdt != nil; {
	case g != nil:
		in.tasks = g.Tasks()
	case asked: // whoever starts it does not keep what would have to be removed
		return unsupported("linux.intelRdt")
	}
	return nil
}

// cloneInto makes the process be born in the group, where the kernel can
// (cgroup v2).
func (plan *Plan) cloneInto(g *cgroup.Group) {
	if g == nil {
		return
	}
	if dir := g.CloneFD(); dir != nil {
		plan.attr.UseCgroupFD = true
		plan.attr.CgroupFD = int(dir.Fd())
	}
}

// Compile makes the plan of a bundle's container without touching the host,
// for reading: anyone may, whatever their privileges.
func Compile(spec *specs.Spec, bundle string) (*Plan, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	return compile(&compileInput{
		spec: spec, bundle: bundle, host: anyHost(),
		cgroups: []cgroupMount{{Source: "/sys/fs/cgroup" + spec.Linux.CgroupsPath}},
	})
}
