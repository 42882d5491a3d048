package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// startHooked is [Runner.Start] for a container with hooks: the same moments as
// in the life of one that has a record. Those of the creation run while the
// program pauses, those of the start while it waits at a gate before its command.
func (r *Runner) startHooked(req *StartRequest) (_ *Process, err error) {
	h, err := r.hooksOf(req.Spec, req.ID, req.Bundle)
	if err != nil {
		return nil, err
	}
	h.group, h.abort = req.Cgroup, req.Abort
	var g gate
	defer g.close()
	if len(req.Spec.Hooks.StartContainer) > 0 {
		if err := g.make(); err != nil {
			return nil, err
		}
	}
	plan, err := r.plan(req, g.wait)
	if err != nil {
		return nil, err
	}
	pr, err := r.launch(plan, req.Stdio, g.image, launchHooks{prepare: req.Prepare, midway: func(pr *Process) error {
		h.init, h.state.Pid = pr.Pidfd, pr.Pid
		return h.run(firstCreateHook, startHook, nil)
	}})
	if err != nil {
		return nil, err
	}
	h.init, h.state.Pid = pr.Pidfd, pr.Pid
	if g.wait != nil {
		if err = h.run(startHook, poststartHook, nil); err == nil {
			err = g.open(plan)
		}
	}
	if err == nil {
		err = h.run(poststartHook, poststopHook, nil)
	}
	if err != nil {
		pr.abandon()
		pr.Close()
		return nil, err
	}
	return pr, nil
}

// Poststop runs the hooks that follow the end of a container that [Runner.Start]
// made, when nothing of it is left. Each failure is told to warn; nothing stops
// them.
func (r *Runner) Poststop(spec *specs.Spec, id, bundle string, warn func(error)) {
	if spec.Hooks == nil || len(spec.Hooks.Poststop) == 0 {
		return
	}
	h, err := r.hooksOf(spec, id, bundle)
	if err != nil {
		warn(err)
		return
	}
	_ = h.run(poststopHook, poststopHook+1, warn) // told one by one
}

func (r *Runner) hooksOf(spec *specs.Spec, id, bundle string) (*hookRun, error) {
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	return &hookRun{runner: r, spec: spec, state: specs.State{
		Version: specs.Version, ID: id, Bundle: bundle, Annotations: spec.Annotations,
	}}, nil
}

// gate is what a container waits at before its command: a pipe without a name,
// and the program's image, where it tells how it went on. The zero value is no
// gate.
type gate struct {
	wait  *inherited
	key   *os.File // the pipe's writing end
	image *os.File
}

func (g *gate) make() error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make start pipe: %w", err)
	}
	defer unix.Close(ends[0])
	g.key = os.NewFile(uintptr(ends[1]), "start")
	// Both ways, so that there is always a writer and reading waits, also when
	// this process has ended.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", ends[0]), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open start pipe: %w", err)
	}
	g.wait = &inherited{name: "start", file: f}
	g.image, err = memoryFile("berth-program")
	return err
}

// open lets the process through and follows it to its command.
func (g *gate) open(plan *Plan) error {
	g.wait.file.Close() // or the process's going would not be seen
	if _, err := unix.Write(int(g.key.Fd()), []byte("s")); err != nil && err != unix.EPIPE {
		return fmt.Errorf("start: %w", err)
	}
	if err := readersGone(g.key, plan.abort); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	report, err := p.ReadReport(g.image)
	if err != nil {
		return err
	}
	if report.Failed {
		return stepError(plan.Program.Step(report.Op), report.Errno)
	}
	ran, err := p.InCall(g.image, report.Op, p.Execve)
	if err == nil && !ran {
		err = errdefs.As(errdefs.ErrConflict, errors.New("the container was killed before its command ran"))
	}
	return err
}

func (g *gate) close() {
	for _, f := range []*os.File{g.key, g.image} {
		if f != nil {
			f.Close()
		}
	}
	if g.wait != nil {
		g.wait.file.Close()
	}
}
