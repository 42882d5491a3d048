package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/oci"
)

// ociRuntime is the [Runtime] of package oci.
type ociRuntime struct{ runner *oci.Runner }

// newRuntime makes the keeper's own runtime; its caller closes the runner.
func newRuntime() (*ociRuntime, error) {
	runner, err := oci.NewRunner()
	if err != nil {
		return nil, err
	}
	return &ociRuntime{runner}, nil
}

func (r *ociRuntime) Start(l *Launch) (*Launched, error) {
	g, err := cgroup.Plan(l.Spec.Linux.CgroupsPath)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	made := false
	request := &oci.StartRequest{
		ID: l.ID, Spec: l.Spec, Bundle: l.Bundle, Rootfs: l.Rootfs, Stdio: oci.Stdio(l.Stdio), Cgroup: g, Init: l.Init, Abort: l.Abort,
		Prepare: func(*oci.Process) error {
			err := g.Make(oci.Resources(l.Spec))
			fault.Here(fault.KeeperCgroup)
			made = err == nil
			return err
		},
	}
	if !oci.MayPrepare(g, l.Spec) {
		if err := request.Prepare(nil); err != nil {
			return nil, err
		}
		request.Prepare = nil
	}
	process, err := r.runner.Start(request)
	if err == nil {
		fault.Here(fault.KeeperMade)
		return launchedBy(process), nil
	}
	if made {
		if cleanup := g.Destroy(); cleanup != nil {
			return nil, errors.Join(err, cleanup)
		}
	}
	return nil, errors.Join(err, r.Poststop(l))
}

func (r *ociRuntime) Poststop(l *Launch) error {
	var errs []error
	r.runner.Poststop(l.Spec, l.ID, l.Bundle, func(err error) { errs = append(errs, err) })
	return errors.Join(errs...)
}

// ociExec is the [PreparedExec] of package oci, with what it needs to stay open.
type ociExec struct {
	exec  *oci.PreparedExec
	group *cgroup.Group
	pidfd *os.File
}

func (r *ociRuntime) PrepareExec(l *Launch) (PreparedExec, error) {
	g, err := cgroup.Load(l.Spec.Linux.CgroupsPath)
	if err != nil {
		return nil, err
	}
	exec, err := r.runner.PrepareExec(&oci.ExecRequest{
		ID: l.ID, Bundle: l.Bundle, InitPid: l.InitPid, InitPidfd: l.InitPidfd, Spec: l.Spec, Process: l.Process,
		Cgroup: g, Stdio: oci.Stdio(l.Stdio),
	})
	if err != nil {
		g.Close()
		return nil, err
	}
	return &ociExec{exec, g, l.InitPidfd}, nil
}

func (e *ociExec) Start(l *Launch) (*Launched, error) {
	process, err := e.exec.Start(oci.Stdio(l.Stdio), l.Abort)
	if err != nil {
		return nil, err
	}
	fault.Here(fault.KeeperExecMade)
	return launchedBy(process), nil
}

func (e *ociExec) Close() {
	e.group.Close()
	e.pidfd.Close()
}

func launchedBy(p *oci.Process) *Launched {
	return &Launched{Pid: p.Pid, Pidfd: p.Pidfd, Console: p.Console}
}

func (r *ociRuntime) End(path string) (Used, error) {
	g, err := cgroup.Load(path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return Used{}, nil
	}
	if err != nil {
		return Used{}, err
	}
	defer g.Close()
	// Usually nobody is left: a container's init is the last of its pid
	// namespace. Looking is much cheaper than killing nobody.
	if left, err := g.Procs(); err != nil || len(left) > 0 {
		if err := g.Kill(unix.SIGKILL); err != nil {
			return Used{}, err
		}
	}
	// Asked after the last process was told to die and before the counts are gone.
	b, err := g.Balance()
	return Used{
		CPU: time.Duration(b.CPU), Periods: b.Periods, ThrottledPeriods: b.ThrottledPeriods, ThrottledTime: time.Duration(b.ThrottledTime),
		MemoryPeak: b.MemoryPeak, MemoryFailures: b.MemoryFailures, OOMKills: b.OOMKills, ForksRefused: b.ForksRefused,
	}, errors.Join(err, g.Destroy())
}

// checkCgroup refuses a path that means different cgroups to different keepers.
func checkCgroup(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("linux.cgroupsPath %q must be absolute: %w", path, errdefs.ErrInvalid)
	}
	return nil
}
