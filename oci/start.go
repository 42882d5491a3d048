package oci

import (
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/kernel/cgroup"
)

// StartRequest describes a container to be created and started in one act.
type StartRequest struct {
	// ID names the container in errors only.
	ID string
	// Spec is the OCI specification. It is not changed.
	Spec *specs.Spec
	// Bundle is the directory relative paths of the specification start from.
	Bundle string
	// Rootfs is a detached mount (fsmount, open_tree) to be the root; nil means
	// Spec.Root.Path. It stays the caller's.
	Rootfs *os.File
	// Stdio are the standard streams, unless Spec.Process.Terminal.
	Stdio Stdio
	// ExtraFiles become descriptors 3 and up.
	ExtraFiles []*os.File
	// Cgroup is where the container's processes live, with its limits already
	// set; nil leaves them in the caller's cgroup.
	Cgroup *cgroup.Group
}

// Start creates and starts a container. On error nothing of it is left, the
// cgroup excepted. The error is a [*StepError] when the kernel refused a step;
// errors.Is tells [ErrCommandNotFound] and [ErrCommandNotExecutable].
func (r *Runner) Start(req *StartRequest) (*Process, error) {
	plan, closeFiles, err := r.plan(req, nil)
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	return r.launch(plan, req.Stdio, nil, nil)
}

// plan compiles a start for this host.
func (r *Runner) plan(req *StartRequest, wait *inherited) (*Plan, func(), error) {
	oom := req.Spec.Process != nil && req.Spec.Process.OOMScoreAdj != nil
	bundle, err := filepath.Abs(req.Bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle %s: %w", req.Bundle, err)
	}
	in := &compileInput{
		spec: req.Spec, bundle: bundle, rootfs: req.Rootfs, extra: req.ExtraFiles,
		wait: wait,
	}
	if in.host, err = thisHost(oom); err != nil {
		return nil, nil, err
	}
	closeFiles, err := in.useCgroup(req.Cgroup)
	if err != nil {
		return nil, nil, err
	}
	plan, err := compile(in)
	if err != nil {
		closeFiles()
		return nil, nil, err
	}
	if err := plan.cloneInto(req.Cgroup); err != nil {
		closeFiles()
		return nil, nil, err
	}
	return plan, closeFiles, nil
}

// ExecRequest describes another process in a running container.
type ExecRequest struct {
	// InitPid and InitPidfd are the container's first process. The descriptor
	// stays the caller's.
	InitPid   int
	InitPidfd *os.File
	// Spec is the container's specification: its namespaces and seccomp profile.
	Spec *specs.Spec
	// Process is what to run.
	Process    *specs.Process
	Cgroup     *cgroup.Group
	Stdio      Stdio
	ExtraFiles []*os.File
}

// Exec starts a process in a running container. Errors as for [Runner.Start].
func (r *Runner) Exec(req *ExecRequest) (*Process, error) {
	host, err := thisHost(req.Process.OOMScoreAdj != nil)
	if err != nil {
		return nil, err
	}
	in := &compileInput{spec: req.Spec, extra: req.ExtraFiles, host: host}
	closeFiles, err := in.useCgroup(req.Cgroup)
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	plan, err := compileExec(in, req.Process, inherited{name: "init", file: req.InitPidfd}, req.InitPid)
	if err != nil {
		return nil, err
	}
	if err := plan.cloneInto(req.Cgroup); err != nil {
		return nil, err
	}
	return r.launch(plan, req.Stdio, nil, nil)
}

// useCgroup opens the files by which a process joins the group on v1, and
// lists what a cgroup mount shows.
func (in *compileInput) useCgroup(g *cgroup.Group) (closeFiles func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	files, err := g.JoinFiles()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		in.joins = append(in.joins, inherited{name: filepath.Dir(f.Name()), file: f})
	}
	for _, m := range g.Mounts() {
		in.cgroups = append(in.cgroups, cgroupMount{Name: m.Name, Source: m.Source, Links: m.Links})
	}
	return func() {
		for _, f := range files {
			f.Close()
		}
	}, nil
}

// cloneInto makes the process be born in the group, where the kernel can
// (cgroup v2).
func (plan *Plan) cloneInto(g *cgroup.Group) error {
	if g == nil {
		return nil
	}
	if dir := g.CloneFD(); dir != nil {
		plan.attr.UseCgroupFD = true
		plan.attr.CgroupFD = int(dir.Fd())
	}
	return nil
}

// Compile makes the plan of a bundle's container without touching the host,
// for reading: anyone may, whatever their privileges.
func Compile(spec *specs.Spec, bundle string) (*Plan, error) {
	return compile(&compileInput{
		spec: spec, bundle: bundle, host: anyHost(),
		joins:   []inherited{{name: "of the container"}},
		cgroups: []cgroupMount{{Source: "/sys/fs/cgroup" + spec.Linux.CgroupsPath}},
	})
}
