package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// Hooks are programs of the specification that run at certain moments of a
// container's life (config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle").
// Each is a process of the same interpreter that makes containers: where it
// runs is a matter of its program (compile_hooks.go).

// HookError says which hook failed and how.
type HookError struct {
	// Kind is the hook's name in the specification: "createRuntime".
	Kind string
	// Index is its place in the list of that name, from 0.
	Index int
	Path  string
	Err   error
	// Output is the end of what it wrote to its standard output and error.
	Output string
}

func (e *HookError) Error() string {
	s := fmt.Sprintf("%s hook %d (%s): %v", e.Kind, e.Index, e.Path, e.Err)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// Unwrap gives the cause.
func (e *HookError) Unwrap() error { return e.Err }

// hookKind is one of the specification's lists.
type hookKind struct {
	name string
	list []specs.Hook
	// status is the container's state at that moment. (It is "created" after step
	// 2 of the lifecycle, runtime.md; the first hooks are its step 3.)
	status specs.ContainerState
	// inside: it runs in the container's namespaces.
	inside bool
	// program: its path is one of the container, it has the rights of the
	// container's command.
	program bool
}

// hookKinds are the lists in the order of a container's life.
func hookKinds(h *specs.Hooks) []hookKind {
	return []hookKind{
		//lint:ignore SA1019 deprecated, and still in use
		{name: "prestart", list: h.Prestart, status: specs.StateCreated},
		{name: "createRuntime", list: h.CreateRuntime, status: specs.StateCreated},
		{name: "createContainer", list: h.CreateContainer, status: specs.StateCreated, inside: true},
		{name: "startContainer", list: h.StartContainer, status: specs.StateCreated, inside: true, program: true},
		{name: "poststart", list: h.Poststart, status: specs.StateRunning},
		{name: "poststop", list: h.Poststop, status: specs.StateStopped},
	}
}

// The moments at which hooks are run, as ranges of hookKinds.
const (
	firstCreateHook = 0
	startHook       = 3
	poststartHook   = 4
	poststopHook    = 5
)

func emptyHooks(h *specs.Hooks) bool {
	if h == nil {
		return true
	}
	for _, k := range hookKinds(h) {
		if len(k.list) > 0 {
			return false
		}
	}
	return true
}

// hasCreateHooks tells whether there are hooks to run while the container is
// being made.
func hasCreateHooks(h *specs.Hooks) bool {
	//lint:ignore SA1019 deprecated, and still in use
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

func checkHooks(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	for _, k := range hookKinds(s.Hooks) {
		for i, h := range k.list {
			field := fmt.Sprintf("hooks.%s[%d]", k.name, i)
			switch {
			case !path.IsAbs(h.Path):
				return invalid("%s.path %q: must be absolute", field, h.Path)
			case strings.ContainsRune(h.Path+strings.Join(h.Args, "")+strings.Join(h.Env, ""), 0):
				return invalid("%s: a string has a NUL character", field)
			case h.Timeout != nil && *h.Timeout <= 0:
				return invalid("%s.timeout %d: must be greater than zero", field, *h.Timeout)
			}
		}
	}
	return nil
}

// hookRun is what the hooks of one moment have in common.
type hookRun struct {
	runner *Runner
	spec   *specs.Spec
	state  specs.State // with the process's id on the host
	group  *cgroup.Group
	init   *os.File // the container's first process, nil when it has ended
	abort  *os.File // see StartRequest
}

// run runs the hooks of the kinds [from, to) in their order, up to the first
// that fails. With each set it goes on, and tells each of the failures.
func (h *hookRun) run(from, to int, each func(error)) error {
	for _, k := range hookKinds(h.spec.Hooks)[from:to] {
		for i := range k.list {
			err := h.one(&k, i)
			if err != nil && each == nil {
				return err
			}
			if err != nil {
				each(err)
			}
		}
	}
	return nil
}

// one runs a hook to its end.
func (h *hookRun) one(k *hookKind, i int) error {
	hook := &k.list[i]
	out, err := memoryFile("berth-hook-output")
	if err != nil {
		return err
	}
	defer out.Close()
	if err = h.execute(k, hook, out); err == nil {
		return nil
	}
	return &HookError{Kind: k.name, Index: i, Path: hook.Path, Err: err, Output: tail(out)}
}

func (h *hookRun) execute(k *hookKind, hook *specs.Hook, out *os.File) error {
	in, err := h.stdin(k)
	if err != nil {
		return err
	}
	defer in.Close()
	plan, err := h.plan(k, hook)
	if err != nil {
		return err
	}
	plan.abort = h.abort
	pr, err := h.runner.launch(plan, Stdio{In: in, Out: out, Err: out}, nil, launchHooks{})
	if err != nil {
		return err
	}
	defer pr.Close()
	return pr.endWithin(hook.Timeout, h.abort)
}

// stdin is a file with the container's state. A memory file, not a pipe: it
// needs nobody to write on while the hook reads.
func (h *hookRun) stdin(k *hookKind) (*os.File, error) {
	st := h.state
	st.Status = k.status
	if k.inside {
		pid, err := pidInside(st.Pid)
		if err != nil {
			return nil, err
		}
		st.Pid = pid
	}
	b, err := json.Marshal(&st)
	if err != nil {
		return nil, err
	}
	f, err := memoryFile("berth-hook-state")
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(b); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write state for hook: %w", err)
	}
	return f, nil
}

func (h *hookRun) plan(k *hookKind, hook *specs.Hook) (*Plan, error) {
	host, err := thisHost(k.program && h.spec.Process.OOMScoreAdj != nil)
	if err != nil {
		return nil, err
	}
	host.timerSlack = TimerSlack()
	in := &compileInput{spec: h.spec, bundle: h.state.Bundle, host: host, hook: hook}
	if !k.inside {
		return compileHook(in), nil
	}
	in.useCgroup(h.group)
	init := inherited{name: "init", file: h.init}
	var plan *Plan
	if k.program {
		plan, err = compileExec(in, hookProcess(h.spec, hook), init, h.state.Pid)
	} else {
		plan = compileInsideHook(in, init, h.state.Pid)
	}
	if err != nil {
		return nil, err
	}
	plan.cloneInto(h.group)
	return plan, nil
}

// endWithin waits for the process and tells how it failed; with a timeout, in
// seconds, it is killed when that has passed, and when it is to be given up.
func (pr *Process) endWithin(timeout *int, abort *os.File) error {
	if timeout != nil || abort != nil {
		var deadline time.Time
		if timeout != nil {
			deadline = time.Now().Add(time.Duration(*timeout) * time.Second)
		}
		ended, err := awaitEvent(pr.Pidfd, unix.POLLIN, abort, deadline)
		if err != nil {
			pr.abandon() // unreaped it would keep the container from ending
			return err
		}
		if !ended {
			pr.abandon()
			return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("not done after %d s, killed", *timeout))
		}
	}
	ws, err := pr.Wait()
	switch {
	case err != nil:
		return err
	case ws.Signaled():
		return fmt.Errorf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return nil
}

// memoryFile makes an empty anonymous file.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL came with Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// tail is the end of what a hook wrote, for its error.
func tail(out *os.File) string {
	const most = 2048
	b := make([]byte, most)
	end, err := out.Seek(0, 2)
	if err != nil {
		return ""
	}
	n, _ := out.ReadAt(b, max(end-most, 0))
	return string(bytes.TrimSpace(b[:n]))
}

// pidInside is a process's id in its own pid namespace (proc_pid_status(5),
// NSpid).
func pidInside(pid int) (int, error) {
	b, err := ReadSmallFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte("\nNSpid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return pid, nil
	}
	var inside int
	_, err = fmt.Sscan(fields[len(fields)-1], &inside)
	return inside, err
}

// hookProcess is the process description of a hook that runs as the container's
// command would: with its user, its rights and its limits.
func hookProcess(spec *specs.Spec, hook *specs.Hook) *specs.Process {
	pr := *spec.Process
	pr.Terminal = false
	pr.Args, pr.Env = hookArgs(hook), hook.Env
	return &pr
}

func hookArgs(hook *specs.Hook) []string {
	if len(hook.Args) == 0 {
		return []string{hook.Path}
	}
	return hook.Args
}

// hookRun makes the run of the container's hooks with its process as it is now.
func (c *Container) hookRun(r *Runner, spec *specs.Spec) *hookRun {
	return &hookRun{
		runner: r, spec: spec,
		state: specs.State{Version: specs.Version, ID: c.ID, Pid: c.Pid, Bundle: c.Bundle, Annotations: spec.Annotations},
	}
}

// createHooks runs the hooks of the creation, while the process waits.
func (c *Container) createHooks(r *Runner, spec *specs.Spec, pr *Process) error {
	c.Hooks, c.Creating = true, true
	if err := c.save(); err != nil {
		return err
	}
	h := c.hookRun(r, spec)
	h.init, h.group = pr.Pidfd, c.group
	return c.unlocked(func() error { return h.run(firstCreateHook, startHook, nil) })
}

// unlocked lets others look at the container, as hooks do, while act runs.
func (c *Container) unlocked(act func() error) error {
	if err := c.Unlock(); err != nil {
		return err
	}
	err := act()
	if lerr := c.relock(); err == nil {
		err = lerr
	}
	return err
}

// relock takes the lock again; the container must not have been deleted.
func (c *Container) relock() error {
	if err := unix.Flock(int(c.dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock container %s: %w", c.ID, err)
	}
	return c.deleted()
}

// deleted is the error for a container that somebody has deleted while it was
// unlocked: its name and its cgroup's path may be another's now.
func (c *Container) deleted() error {
	if !c.there() {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s was deleted meanwhile", c.ID))
	}
	return nil
}

// launchHooked launches a container that has hooks.
func (c *Container) launchHooked(r *Runner, spec *specs.Spec, hooks launchHooks, launch func(launchHooks) (*Process, error)) (*Process, error) {
	hooks.midway = func(pr *Process) error { return c.createHooks(r, spec, pr) }
	pr, err := launch(hooks)
	if err != nil {
		return nil, err
	}
	c.Hooks, c.Creating = true, false
	if err := c.save(); err != nil {
		pr.abandon()
		pr.Close()
		return nil, err
	}
	return pr, nil
}

// runHooked is what is left to do for a container that is to run at once.
func (c *Container) runHooked(spec *specs.Spec, pr *Process) error {
	var err error
	if len(spec.Hooks.StartContainer) > 0 {
		err = c.startHooked(spec)
	} else {
		err = c.poststart(spec)
	}
	if err != nil {
		pr.abandon()
		pr.Close()
	}
	return err
}

// startHooked starts a created container that has hooks.
func (c *Container) startHooked(spec *specs.Spec) error {
	if err := c.startHooks(spec); err != nil {
		return err
	}
	if err := c.release(); err != nil {
		return err
	}
	return c.poststart(spec)
}

// startHooks runs the startContainer hooks.
func (c *Container) startHooks(spec *specs.Spec) error {
	if len(spec.Hooks.StartContainer) == 0 {
		return nil
	}
	r, err := NewRunner()
	if err != nil {
		return err
	}
	defer r.Close()
	h := c.hookRun(r, spec)
	if h.init, err = c.Pidfd(); err != nil {
		return err
	}
	defer h.init.Close()
	if h.group, err = c.Group(); err != nil && !errors.Is(err, errNoGroup) {
		return err
	}
	return h.run(startHook, poststartHook, nil)
}

// poststart runs the hooks that follow the start of the command.
func (c *Container) poststart(spec *specs.Spec) error {
	if len(spec.Hooks.Poststart) == 0 {
		return nil
	}
	r, err := NewRunner()
	if err != nil {
		return err
	}
	defer r.Close()
	h := c.hookRun(r, spec)
	return c.unlocked(func() error { return h.run(poststartHook, poststopHook, nil) })
}

// poststop runs the hooks that follow the deletion. The container is gone by
// then: their failures are warnings.
func (c *Container) poststop(spec *specs.Spec) {
	if spec.Hooks == nil || len(spec.Hooks.Poststop) == 0 {
		return
	}
	r, err := NewRunner()
	if err != nil {
		c.warn(err)
		return
	}
	defer r.Close()
	h := c.hookRun(r, spec)
	h.state.Pid = 0
	_ = h.run(poststopHook, poststopHook+1, c.warn) // told one by one
}

func (c *Container) warn(err error) {
	if c.onWarning != nil {
		c.onWarning(err.Error())
	}
}

// endedBy removes the container when it was a hook that failed.
func (c *Container) endedBy(cause error) error {
	var hook *HookError
	if cause == nil || !errors.As(cause, &hook) {
		return cause
	}
	if err := c.deleted(); err != nil {
		return err
	}
	return errors.Join(cause, c.dismantle(false))
}
