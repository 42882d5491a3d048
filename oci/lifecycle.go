package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	p "github.com/berth-containers/berth/kernel/program"
	"github.com/berth-containers/berth/kernel/resctrl"
	"github.com/berth-containers/berth/kernel/systemd"
)

const (
	startFifo   = "start"
	programFile = "program"
)

// LaunchOptions are the choices of create and run that are not in the
// specification.
type LaunchOptions struct {
	Stdio      Stdio
	ExtraFiles []*os.File
	// Wait leaves the container created; Start makes it run its command.
	Wait bool
	// Trace collects where the time goes; nil: nothing is collected.
	Trace *Trace
	// Systemd keeps the container in a scope of systemd, which
	// linux.cgroupsPath names: slice:prefix:name.
	Systemd bool
	// NoPivot changes the root with chroot(2) alone, for hosts whose own root
	// cannot be pivoted away (an initial ramdisk).
	NoPivot bool
	// NoKeyring leaves the caller's session keyring to the container.
	NoKeyring bool
}

// Launch makes the container's cgroup and process and records them. On error
// the container is removed, with everything made for it.
func (c *Container) Launch(r *Runner, spec *specs.Spec, o LaunchOptions) (*Process, error) {
	pr, err := c.launch(r, spec, o)
	if err == nil && c.Hooks && !o.Wait {
		err = c.runHooked(spec, pr)
	}
	if err == nil {
		return pr, nil
	}
	if derr := c.deleted(); derr != nil {
		c.Close()
		return nil, derr
	}
	if !c.made { // whoever is in a cgroup of that path is not ours to kill
		c.Cgroup, c.Scope = cgroup.State{}, nil
	}
	if derr := c.dismantle(false); derr != nil {
		err = errors.Join(err, derr)
	}
	return nil, err
}

func (c *Container) launch(r *Runner, spec *specs.Spec, o LaunchOptions) (*Process, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	g, manager, err := c.planCgroup(spec, o.Systemd)
	if err != nil {
		return nil, err
	}
	if manager != nil {
		defer manager.Close()
	}
	if rdt := spec.Linux.IntelRdt; rdt != nil {
		if err := c.makeResctrl(rdt); err != nil {
			return nil, err
		}
	}
	g.SetOwner(c.ownerName())
	c.group, c.Cgroup = g, g.State()
	// Recorded before there is a process: whoever finds the record can clean up.
	if err := c.save(); err != nil {
		return nil, err
	}
	o.Trace.Mark("plan the cgroup and write the record")
	req := &StartRequest{
		ID: c.ID, Spec: spec, Bundle: c.Bundle, Stdio: o.Stdio, ExtraFiles: o.ExtraFiles, Cgroup: g, Resctrl: c.Resctrl,
		NoPivot: o.NoPivot, NoKeyring: o.NoKeyring, Trace: o.Trace,
	}
	var wait *inherited
	var image *os.File
	if o.Wait || spec.Hooks != nil && len(spec.Hooks.StartContainer) > 0 {
		if wait, image, err = c.waiting(); err != nil {
			return nil, err
		}
		defer image.Close()
		defer wait.file.Close()
	}
	return c.launchGrouped(r, req, manager, wait, image)
}

// launchGrouped launches the container in its cgroup; or, where the caller may
// make none, without.
func (c *Container) launchGrouped(r *Runner, req *StartRequest, manager *systemd.Conn, wait *inherited, image *os.File) (*Process, error) {
	prepare := func(*Process) error {
		err := makeGroup(req.Cgroup, req.Spec)
		c.made = err == nil
		return err
	}
	pr, err := c.launchWith(r, req, manager, wait, image, prepare)
	if errors.Is(err, errNoGroup) {
		c.withoutGroup()
		req.Cgroup = nil
		pr, err = c.launchWith(r, req, nil, wait, image, nil)
	}
	return pr, err
}

func (c *Container) launchWith(r *Runner, req *StartRequest, manager *systemd.Conn, wait *inherited, image *os.File, prepare func(*Process) error) (*Process, error) {
	spec, g := req.Spec, req.Cgroup
	hooks := launchHooks{prepare: prepare, made: c.adopt}
	if manager != nil {
		hooks.prepare = func(pr *Process) error { return c.enterScope(manager, spec, pr) }
		req.Joined = true
	} else if prepare != nil && !MayPrepare(g, spec) {
		if err := hooks.prepare(nil); err != nil {
			return nil, err
		}
		hooks.prepare = nil
	}
	req.Prepare = hooks.prepare
	plan, err := r.plan(req, wait)
	if err != nil {
		return nil, err
	}
	if emptyHooks(spec.Hooks) {
		return r.launch(plan, req.Stdio, image, hooks)
	}
	return c.launchHooked(r, spec, hooks, func(hooks launchHooks) (*Process, error) {
		return r.launch(plan, req.Stdio, image, hooks)
	})
}

// makeResctrl makes the container's class of service and monitoring group.
func (c *Container) makeResctrl(rdt *specs.LinuxIntelRdt) error {
	plan, err := resctrl.New(rdt, c.ID)
	if err != nil {
		return invalid("linux.intelRdt.%v", err)
	}
	root, err := resctrl.Root()
	if err == nil {
		c.Resctrl, err = plan.Make(root)
	}
	if err != nil {
		return fmt.Errorf("config.json: linux.intelRdt: %w", err)
	}
	return nil
}

// adopt records the process.
func (c *Container) adopt(pr *Process) error {
	started, _, err := procStat(pr.Pid)
	if err != nil {
		return err
	}
	c.Pid, c.Started, c.Owned = pr.Pid, started, c.group != nil && c.group.Owned()
	return c.save()
}

// waiting makes the files of a container that waits to be started.
func (c *Container) waiting() (*inherited, *os.File, error) {
	fifo := filepath.Join(c.path, startFifo)
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return nil, nil, fmt.Errorf("make start fifo: %w", err)
	}
	// Both ways, so that there is always a writer and reading waits.
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open start fifo: %w", err)
	}
	image, err := os.OpenFile(filepath.Join(c.path, programFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return &inherited{name: "start", file: f}, image, nil
}

// Start lets a created container run its command. It returns when the command
// runs, or with the reason why it cannot.
func (c *Container) Start() error {
	if st := c.Status(); st != specs.StateCreated {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s, not created", c.ID, st))
	}
	if !c.Hooks {
		return c.release()
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	return c.endedBy(c.startHooked(spec))
}

// release writes the byte the process waits for and follows it to its command.
func (c *Container) release() error {
	path := filepath.Join(c.path, startFifo)
	fifo, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) { // nobody reads
		return c.endedBeforeStart()
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	defer fifo.Close()
	image, err := os.Open(filepath.Join(c.path, programFile))
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	defer image.Close()
	_, err = fifo.Write([]byte("s"))
	if errors.Is(err, unix.EPIPE) { // nobody reads any more
		return c.endedBeforeStart()
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	if err := readersGone(fifo, nil); err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	report, err := p.ReadReport(image)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Remove(path), os.Remove(image.Name())); err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	if report.Failed {
		return c.startFailed(report)
	}
	ran, err := p.InCall(image, report.Op, p.Execve)
	if err == nil && !ran {
		err = c.endedBeforeStart()
	}
	return err
}

// endedBeforeStart is the error for a container that was killed while it waited.
func (c *Container) endedBeforeStart() error {
	return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s was killed before its command ran", c.ID))
}

// readersGone waits until the process has let go of the fifo: it ran its
// command, or ended.
func readersGone(fifo, abort *os.File) error {
	_, err := awaitEvent(fifo, 0, abort, time.Time{})
	return err
}

// startFailed names the failed step: the program is the same when compiled
// again from the same specification, waiting included.
func (c *Container) startFailed(report p.Report) error {
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	// Only the steps of the command itself come after waiting.
	return stepError(execStep+spec.Process.Args[0], report.Errno)
}

// Kill sends a signal to the container's first process, or with all to each of
// its processes. SIGKILL goes to all of them too when the container has a cgroup
// but no pid namespace of its own, in which they would end with the first, and
// it acts on a paused container. With all there may be nobody left.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	if all {
		return c.killAll(sig)
	}
	pidfd, err := c.Pidfd()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	if sig == unix.SIGKILL {
		spec, err := c.Spec()
		if err != nil {
			return err
		}
		// Without a cgroup they cannot be told from others.
		if c.hasGroup() && !makesNamespace(spec.Linux, specs.PIDNamespace) {
			return c.killAll(sig)
		}
	}
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0); err != nil {
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	if sig == unix.SIGKILL {
		return c.letDie()
	}
	return nil
}

func (c *Container) killAll(sig unix.Signal) error {
	if !c.hasGroup() {
		return c.killAllWithout(sig)
	}
	g, err := c.Group()
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.Kill(sig)
}

// letDie thaws a container that cgroup v1's freezer holds: what it holds cannot
// die. (On v2 the frozen do.)
func (c *Container) letDie() error {
	if !c.hasGroup() {
		return nil
	}
	g, err := c.Group()
	if errors.Is(err, errdefs.ErrNotFound) || err == nil && g.Mode() == cgroup.Unified {
		return nil
	}
	if err != nil {
		return err
	}
	frozen, err := g.Frozen()
	if err != nil || !frozen {
		return err
	}
	return g.Thaw()
}

// Delete removes a stopped container; with force one in any state.
func (c *Container) Delete(force bool) error {
	st := c.Status()
	unfinished := st == specs.StateCreating && !c.Creating
	if st != specs.StateStopped && !unfinished && !force {
		c.Close()
		return errdefs.WithHint(errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s", c.ID, st)),
			"stop it first, or delete it with --force")
	}
	return c.dismantle(st == specs.StateStopped)
}

// dismantle kills what runs in the container and removes all traces of it; its
// record last, so that a second try finds what is left. ended: its first process
// has.
func (c *Container) dismantle(ended bool) error {
	var spec *specs.Spec
	var err error
	if c.Hooks {
		spec, err = c.Spec()
	}
	if err == nil {
		err = c.destroy(ended)
	}
	store := Store{Root: filepath.Dir(c.path), Warn: c.onWarning}
	if err == nil && c.Hooks {
		err = c.retire()
	}
	if err != nil {
		c.Close()
		return fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	if !c.Hooks {
		return c.Remove()
	}
	err = c.afterlife(spec)
	_, ferr := store.FinishDelete(c.ID)
	return errors.Join(err, ferr)
}

// destroy ends the container's processes and removes what was made for them.
func (c *Container) destroy(ended bool) error {
	if !c.hasGroup() {
		if err := c.endWithout(endTime); err != nil {
			return err
		}
	} else {
		if !ended {
			c.killFirst()
		}
		err := c.removeGroup()
		if errors.Is(err, errdefs.ErrNotFound) {
			err = nil
			if c.Pid == 0 { // its making may have been interrupted
				err = cgroup.RemoveUnnamed(c.Cgroup)
			}
		}
		if err != nil {
			return err
		}
	}
	if c.Resctrl != nil {
		return c.Resctrl.Remove()
	}
	return nil
}

// removeGroup removes the cgroup and kills whoever is in it.
func (c *Container) removeGroup() error {
	g, err := c.Group()
	if err != nil {
		return err
	}
	if c.Scope == nil {
		if done, err := g.DestroyUnused(); done || err != nil {
			return err
		}
	}
	if err := g.Kill(unix.SIGKILL); err != nil { // Destroy would wait for what lives on
		return err
	}
	return errors.Join(c.leaveScope(), g.Destroy())
}

// killFirst kills the first process, which may not be in the cgroup: on v1 it joins
// by itself, and its maker may have been killed before.
func (c *Container) killFirst() {
	if pidfd, err := c.Pidfd(); err == nil {
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0) // it may just have ended
		pidfd.Close()
	}
}

// Unlock lets others work on the container while the caller waits for it to end.
func (c *Container) Unlock() error { return unix.Flock(int(c.dir.Fd()), unix.LOCK_UN) }

// DeleteEnded removes an unlocked container whose process has ended, unless
// somebody else has removed it meanwhile.
func (c *Container) DeleteEnded() error {
	if err := unix.Flock(int(c.dir.Fd()), unix.LOCK_EX); err != nil {
		c.Close()
		return fmt.Errorf("lock container %s: %w", c.ID, err)
	}
	if !c.there() {
		c.Close()
		return nil
	}
	return c.dismantle(true)
}

// allowedDevices may be used in every container, on top of what the
// specification says (runc's list): making nodes, the default devices and the
// terminals.
func allowedDevices() []specs.LinuxDeviceCgroup {
	const any = -1
	list := [...]struct {
		kind         string
		major, minor int64
		access       string
	}{
		{"c", any, any, "m"}, {"b", any, any, "m"},
		{"c", 1, 3, "rwm"}, {"c", 1, 8, "rwm"}, {"c", 1, 7, "rwm"}, {"c", 5, 0, "rwm"}, {"c", 1, 5, "rwm"}, {"c", 1, 9, "rwm"},
		{"c", 136, any, "rwm"}, {"c", 5, 2, "rwm"},
	}
	out := make([]specs.LinuxDeviceCgroup, len(list))
	for i := range list {
		d := &list[i]
		out[i] = specs.LinuxDeviceCgroup{Allow: true, Type: d.kind, Access: d.access}
		if d.major != any {
			out[i].Major = &d.major
		}
		if d.minor != any {
			out[i].Minor = &d.minor
		}
	}
	return out
}

// Resources are the limits of a specification, with the device rules every
// container has: everything is denied, then the specification's rules apply,
// then the default devices are allowed.
func Resources(spec *specs.Spec) *specs.LinuxResources {
	res := specs.LinuxResources{}
	if spec.Linux.Resources != nil {
		res = *spec.Linux.Resources
	}
	res.Devices = withDefaultDevices(res.Devices)
	return &res
}

func withDefaultDevices(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	all := append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, rules...)
	return append(all, allowedDevices()...)
}

// ExecOptions are the choices of exec that are not in the process description.
type ExecOptions struct {
	Stdio      Stdio
	ExtraFiles []*os.File
	// Cgroup are places below the container's cgroup to start the process in: see
	// [cgroup.Group.Sub]. None: the container's own.
	Cgroup []string
	// IgnorePaused starts the process in a paused container too; it then waits
	// for the container to be resumed.
	IgnorePaused bool
}

// Exec starts another process in the container, which it unlocks.
func (c *Container) Exec(r *Runner, spec *specs.Spec, process *specs.Process, o ExecOptions) (*Process, error) {
	switch st := c.Status(); {
	case st == statePaused && !o.IgnorePaused:
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is paused", c.ID)), "resume it first")
	case st != statePaused && st != specs.StateRunning && st != specs.StateCreated:
		return nil, errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s, not running", c.ID, st))
	}
	pidfd, err := c.Pidfd()
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	g, err := c.Group()
	if err != nil && !errors.Is(err, errNoGroup) {
		return nil, err
	}
	if len(o.Cgroup) > 0 {
		if g, err = g.Sub(o.Cgroup); err != nil {
			return nil, fmt.Errorf("exec in container %s: %w", c.ID, err)
		}
		defer g.Close()
	}
	// What is open cannot become another's. Who is to resume or delete the
	// container meanwhile must not wait for us: in a paused one for ever.
	if err := c.Unlock(); err != nil {
		return nil, err
	}
	return r.Exec(&ExecRequest{
		ID: c.ID, Bundle: c.Bundle,
		InitPid: c.Pid, InitPidfd: pidfd, Spec: spec, Process: process, Cgroup: g, Resctrl: c.Resctrl, Stdio: o.Stdio, ExtraFiles: o.ExtraFiles,
	})
}

// Pause freezes all processes of the container.
func (c *Container) Pause() error {
	if st := c.Status(); st != specs.StateRunning && st != specs.StateCreated {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s, not running", c.ID, st))
	}
	return c.withGroup((*cgroup.Group).Freeze)
}

// Resume thaws a paused container.
func (c *Container) Resume() error {
	if st := c.Status(); st != statePaused {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s, not paused", c.ID, st))
	}
	return c.withGroup((*cgroup.Group).Thaw)
}

func (c *Container) withGroup(act func(*cgroup.Group) error) error {
	g, err := c.Group()
	if err != nil {
		return err
	}
	return act(g)
}
