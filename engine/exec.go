package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/keeper"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// execIndex finds the container of an exec.
type execIndex struct {
	mu   sync.RWMutex
	byID map[string]*ctr
}

func (i *execIndex) add(id string, c *ctr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.byID[id] = c
}

func (i *execIndex) remove(ids ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, id := range ids {
		delete(i.byID, id)
	}
}

// get finds an exec by its full id.
func (i *execIndex) get(id string) (*ctr, *execution, error) {
	i.mu.RLock()
	c := i.byID[id]
	i.mu.RUnlock()
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if x := c.execs[id]; x != nil {
			return c, x, nil
		}
	}
	return nil, nil, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such exec instance: %s", id))
}

// runningFor refuses execs in containers that cannot run one.
func runningFor(rec *record) error {
	switch rec.State.Status {
	case stateRunning:
		return nil
	case statePaused:
		return errdefs.WithHint(conflictf("container %s is paused", short(rec.ID)),
			"unpause the container before exec")
	case stateRestarting:
		return conflictf("container %s is restarting, wait until it runs", short(rec.ID))
	}
	return errNotRunning(rec.ID)
}

// ExecCreate prepares a further process in a running container and returns its
// id.
func (e *Engine) ExecCreate(_ context.Context, ref string, req *container.ExecCreateRequest) (string, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return "", err
	}
	rec := c.snapshot()
	if err := runningFor(rec); err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 || req.Cmd[0] == "" {
		return "", invalidf("no exec command specified")
	}
	if _, err := newDetachScanner(req.DetachKeys); err != nil {
		return "", err
	}
	if _, err := execUser(rec, req); err != nil {
		return "", err
	}
	x := &execution{ID: newID(), Created: time.Now().UTC(), Request: req, Status: execCreated, done: make(chan struct{})}
	if err := c.saveExec(x); err != nil {
		return "", err
	}
	fault.Here(fault.ExecCreated)
	c.mu.Lock()
	c.execs[x.ID] = x
	c.mu.Unlock()
	e.execs.add(x.ID, c)
	e.emitContainer(rec, execAction(events.ActionExecCreate, req.Cmd), map[string]string{"execID": x.ID})
	return x.ID, nil
}

// execUser resolves the exec's user in the running container's own files.
func execUser(rec *record, req *container.ExecCreateRequest) (processUser, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", rec.State.Pid), os.O_RDONLY, 0)
	if err != nil {
		return processUser{}, fmt.Errorf("open root of container %s: %w", short(rec.ID), err)
	}
	defer root.Close()
	return resolveUser(root, firstNonEmpty(req.User, rec.Config.User), rec.HostConfig.GroupAdd)
}

// ExecStart starts a prepared exec, once. The stream is nil when detached. A
// command that cannot be started leaves the exec ended with exit code 126 or
// 127, and is the error; so does one that does not run when ctx ends.
func (e *Engine) ExecStart(ctx context.Context, id string, opt ExecStartOptions) (_ Stream, err error) {
	ctx, end := e.observe(ctx, OpExec, id)
	defer func() { end(err) }()
	c, x, err := e.execs.get(id)
	if err != nil {
		return nil, err
	}
	rec := c.snapshot()
	if err := runningFor(rec); err != nil {
		return nil, err
	}
	if err := c.claimExec(x); err != nil {
		return nil, err
	}
	fault.Here(fault.ExecClaimed)
	s, err := e.runExec(ctx, c, rec, x, opt)
	if err != nil {
		err = givenUp(ctx, err)
		code := startExitCode(err)
		if code == exitStartFailed {
			code = exitNotExecutable // as Docker has it
		}
		failed := c.changeExec(x, func(x *execution) { endExec(x, code, time.Now().UTC()) })
		return nil, errors.Join(fmt.Errorf("exec in container %s: %w", short(c.id), err), failed)
	}
	return s, nil
}

// claimExec makes the caller the one who starts the exec.
func (c *ctr) claimExec(x *execution) error {
	if st := c.snapshotExec(x).Status; st != execCreated {
		return errExecUsed(x.ID, st)
	}
	var taken execState
	err := c.changeExec(x, func(x *execution) {
		if taken = x.Status; taken == execCreated {
			x.Status = execStarting
		}
	})
	if err == nil && taken != execCreated {
		return errExecUsed(x.ID, taken)
	}
	return err
}

func errExecUsed(id string, st execState) error {
	if st == execEnded {
		return conflictf("exec command %s has already run", short(id))
	}
	return conflictf("exec command %s is already running", short(id))
}

func endExec(x *execution, code int, at time.Time) {
	x.Status, x.Pid, x.ExitCode, x.EndedAt = execEnded, 0, &code, at
}

// runExec attaches, when asked to, before the process runs, so that no output
// is missed, and has the keeper start it.
func (e *Engine) runExec(ctx context.Context, c *ctr, rec *record, x *execution, opt ExecStartOptions) (Stream, error) {
	if err := e.checkThawed(rec); err != nil {
		return nil, err
	}
	process, err := execProcess(rec, x.Request, e.host)
	if err != nil {
		return nil, err
	}
	var s *stream
	if !opt.Detach {
		s, err = e.openStream(ctx, c.id, x.ID, x.Request.Tty, keeper.AttachOptions{
			Stdin: x.Request.AttachStdin, Stdout: x.Request.AttachStdout, Stderr: x.Request.AttachStderr, BeforeStart: true,
		}, x.Request.DetachKeys)
		if err != nil {
			return nil, err
		}
		s.ended = x.done
		s.onDetach = func() {
			e.emitContainer(c.snapshot(), events.ActionExecDetach, map[string]string{"execID": x.ID})
		}
	}
	e.emitContainer(rec, execAction(events.ActionExecStart, x.Request.Cmd), map[string]string{"execID": x.ID})
	done := awaitsText(ctx, time.Time{}, "the process to be made")
	st, err := e.keeper.exec(ctx, &keeper.ExecRequest{
		ContainerID: c.id, ExecID: x.ID, Process: process,
		OpenStdin: x.Request.AttachStdin && !opt.Detach, ConsoleSize: consoleSize(opt.ConsoleSize, x.Request.ConsoleSize),
	})
	done()
	if err == nil {
		fault.Here(fault.ExecAnswered)
		err = c.changeExec(x, func(x *execution) {
			if x.Status == execStarting { // its exit may be known already
				x.Status, x.Pid = execRunning, st.Pid
			}
		})
		fault.Here(fault.ExecDone)
	}
	if err != nil {
		if s != nil {
			s.Close()
		}
		return nil, err
	}
	if s == nil {
		return nil, nil
	}
	return s, nil
}

// checkThawed refuses an exec in what somebody has frozen behind the engine's
// back: it would be frozen itself on its way in.
func (e *Engine) checkThawed(rec *record) error {
	frozen, err := e.frozen(rec)
	if err != nil || !frozen {
		return err
	}
	return errdefs.WithHint(conflictf("container %s is frozen, and not by a pause", short(rec.ID)),
		"thaw its cgroup, or pause and unpause the container")
}

func consoleSize(sizes ...*[2]uint) [2]uint16 {
	for _, s := range sizes {
		if s != nil {
			return [2]uint16{uint16(min(s[0], 0xffff)), uint16(min(s[1], 0xffff))}
		}
	}
	return [2]uint16{}
}

// execProcess makes the process: the container's own with what the request
// changes.
func execProcess(rec *record, req *container.ExecCreateRequest, h *hostFacts) (*specs.Process, error) {
	u, err := execUser(rec, req)
	if err != nil {
		return nil, err
	}
	sec, err := parseSecurityOpt(rec.HostConfig.SecurityOpt, h)
	if err != nil {
		return nil, err
	}
	hc := rec.HostConfig
	caps, err := capabilities(h.caps, hc.CapAdd, hc.CapDrop, hc.Privileged || req.Privileged)
	if err != nil {
		return nil, err
	}
	cfg := *rec.Config
	cfg.Tty = req.Tty
	p := &specs.Process{
		Args: req.Cmd, Terminal: req.Tty, User: u.User,
		Cwd:             firstNonEmpty(req.WorkingDir, firstNonEmpty(cfg.WorkingDir, "/")),
		Env:             withHome(overrideEnv(environment(&cfg), req.Env), u.home),
		Capabilities:    capabilitySets(caps, u.UID),
		Rlimits:         rlimits(hc),
		NoNewPrivileges: sec.noNewPrivileges,
		OOMScoreAdj:     &hc.OomScoreAdj,
	}
	p.User.Umask = hc.Umask
	return p, nil
}

// execEnded handles the exit of an exec.
func (e *Engine) execEnded(c *ctr, st keeper.Status) error {
	if isProbe(st.ExecID) {
		return e.probeEnded(c, st)
	}
	c.mu.Lock()
	x := c.execs[st.ExecID]
	c.mu.Unlock()
	if x == nil {
		return e.keeper.forget(e.ctx, st.ContainerID, st.ExecID)
	}
	if c.snapshotExec(x).Status != execEnded {
		err := c.changeExecAndTell(x, func(x *execution) { endExec(x, st.ExitCode, st.ExitedAt.UTC()) }, func(rec *record) {
			fault.Here(fault.ExecEnded)
			e.emitContainer(rec, events.ActionExecDie, map[string]string{
				"execID": st.ExecID, "exitCode": strconv.Itoa(st.ExitCode),
			})
		})
		if err != nil {
			return err
		}
	}
	e.execs.remove(c.trimExecs()...)
	return e.keeper.forget(e.ctx, st.ContainerID, st.ExecID)
}

// settleExecs records how the execs of a container ended whose init has ended:
// the kernel has killed what still ran, but one may have ended by itself just
// before, so the keeper is asked.
func (e *Engine) settleExecs(ctx context.Context, c *ctr) error {
	var errs []error
	for _, id := range c.execIDs() {
		c.mu.Lock()
		x := c.execs[id]
		c.mu.Unlock()
		if x == nil || c.snapshotExec(x).Status == execCreated {
			continue
		}
		st, err := e.keeper.wait(ctx, c.id, id)
		if errors.Is(err, errdefs.ErrNotFound) {
			st, err = keeper.Status{ContainerID: c.id, ExecID: id, ExitCode: keeper.ExitCodeLost, ExitedAt: time.Now()}, nil
		}
		if err == nil {
			err = e.execEnded(c, st)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// forgetExecs drops the execs of a container that is removed.
func (e *Engine) forgetExecs(c *ctr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.execs {
		e.execs.remove(id)
	}
}

// ExecInspect describes an exec.
func (e *Engine) ExecInspect(_ context.Context, id string) (*container.ExecInspectResponse, error) {
	c, x, err := e.execs.get(id)
	if err != nil {
		return nil, err
	}
	now := c.snapshotExec(x)
	req := now.Request
	return &container.ExecInspectResponse{
		ID: id, ContainerID: c.id, Pid: now.Pid, ExitCode: now.ExitCode,
		Running:   now.Status == execRunning || now.Status == execStarting,
		OpenStdin: req.AttachStdin, OpenStdout: req.AttachStdout, OpenStderr: req.AttachStderr,
		CanRemove: now.Status == execEnded, DetachKeys: []byte(req.DetachKeys),
		ProcessConfig: &container.ExecProcessConfig{
			Tty: req.Tty, Entrypoint: req.Cmd[0], Arguments: req.Cmd[1:], Privileged: &req.Privileged, User: req.User,
		},
	}, nil
}

// ExecResize sets the size of a running exec's terminal, in characters.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint) error {
	c, x, err := e.execs.get(id)
	if err != nil {
		return err
	}
	if c.snapshotExec(x).Status != execRunning {
		return conflictf("exec %s is not running", short(id))
	}
	return e.keeper.resize(ctx, c.id, id, height, width)
}
