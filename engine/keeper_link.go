package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// keeperLink is the engine's side of the keeper: the client of the one that
// runs now, and a new one when it is gone.
type keeperLink struct {
	opts keeper.ConnectOptions

	mu     sync.Mutex
	client *keeper.Client
	closed bool
}

// findBinary is where berth-oci is when the configuration does not say.
func findBinary(configured string) string {
	if configured != "" {
		return configured
	}
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), "berth-oci"); exists(p) {
			return p
		}
	}
	if p, err := exec.LookPath("berth-oci"); err == nil {
		return p
	}
	return "berth-oci"
}

// connect returns the client, connecting first when the keeper is gone.
func (l *keeperLink) connect(ctx context.Context) (*keeper.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("engine is closed: %w", errdefs.ErrUnavailable)
	}
	if l.client != nil {
		select {
		case <-l.client.Done():
			l.client.Close()
			l.client = nil
		default:
			return l.client, nil
		}
	}
	c, err := keeper.Connect(ctx, l.opts)
	if err != nil {
		return nil, err
	}
	l.client = c
	return c, nil
}

func (l *keeperLink) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.client == nil {
		return nil
	}
	err := l.client.Close()
	l.client = nil
	return err
}

func (l *keeperLink) start(ctx context.Context, r *keeper.StartRequest) (keeper.Status, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	return c.Start(ctx, r)
}

func (l *keeperLink) exec(ctx context.Context, r *keeper.ExecRequest) (keeper.Status, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	return c.Exec(ctx, r)
}

// signal sends sig; a process that has ended meanwhile is no error.
func (l *keeperLink) signal(ctx context.Context, id, execID string, sig syscall.Signal) error {
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	err = c.Signal(ctx, id, execID, sig)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrConflict) {
		return nil
	}
	return err
}

func (l *keeperLink) resize(ctx context.Context, id, execID string, height, width uint) error {
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	if height > 0xffff || width > 0xffff {
		return invalidf("terminal size %dx%d is out of range", height, width)
	}
	return c.Resize(ctx, id, execID, uint16(height), uint16(width))
}

func (l *keeperLink) attach(ctx context.Context, id, execID string, o keeper.AttachOptions) (*keeper.Stream, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c.Attach(ctx, id, execID, o)
}

// wait waits for the end of a process.
func (l *keeperLink) wait(ctx context.Context, id, execID string) (keeper.Status, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	return c.Wait(ctx, id, execID)
}

// forget drops the keeper's record of an ended process; one it does not know
// is no error.
func (l *keeperLink) forget(ctx context.Context, id, execID string) error {
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	if err := c.Forget(ctx, id, execID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

// list asks for everything the keeper knows.
func (l *keeperLink) list(ctx context.Context) ([]keeper.Status, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c.List(ctx)
}

// keeperRetry is the pause between attempts to reach a keeper that cannot be
// started.
const keeperRetry = time.Second

// watchExits takes the keeper's news until the engine closes. When the keeper
// is gone a new one is started; what that one finds left of the containers it
// ends and reports, so it arrives here too.
func (e *Engine) watchExits() {
	for e.ctx.Err() == nil {
		err := e.takeExits()
		if e.ctx.Err() != nil {
			return
		}
		e.log.Warn("keeper is gone, starting another", "cause", err)
		if err == nil {
			continue
		}
		select {
		case <-time.After(keeperRetry):
		case <-e.ctx.Done():
		}
	}
}

// takeExits reads one keeper's news to their end. Each is handled on its own:
// one container's clean-up delays no other's.
func (e *Engine) takeExits() error {
	c, err := e.keeper.connect(e.ctx)
	if err != nil {
		return err
	}
	exits, err := c.Events(e.ctx)
	if err != nil {
		return err
	}
	for st := range exits {
		e.wg.Go(func() { e.processEnded(st) })
	}
	return nil
}

// processEnded handles one exit, of an init or an exec.
func (e *Engine) processEnded(st keeper.Status) {
	c, err := e.containers.get(st.ContainerID)
	if err != nil || c.id != st.ContainerID {
		e.forgetStray(st)
		return
	}
	if st.ExecID != "" {
		err = e.execEnded(c, st)
	} else {
		err = e.containerEnded(c, st)
	}
	if err != nil && e.ctx.Err() == nil && !errors.Is(err, errdefs.ErrNotFound) {
		e.log.Error("handle exit", "container", c.id, "exec", st.ExecID, "err", err)
	}
}

// forgetStray drops an exit that belongs to no container of ours.
func (e *Engine) forgetStray(st keeper.Status) {
	if err := e.keeper.forget(e.ctx, st.ContainerID, st.ExecID); err != nil && e.ctx.Err() == nil {
		e.log.Error("forget stray process", "container", st.ContainerID, "exec", st.ExecID, "err", err)
	}
}

// startRequest is the order to the keeper.
func (c *ctr) startRequest(spec *specs.Spec, rootfs *os.File) *keeper.StartRequest {
	cfg, hc := c.rec.Config, c.rec.HostConfig
	req := &keeper.StartRequest{
		ID: c.id, Spec: spec, Bundle: c.dir, Rootfs: rootfs,
		OpenStdin: cfg.OpenStdin, StdinOnce: cfg.StdinOnce,
		Log:         keeper.LogConfig{Driver: hc.LogConfig.Type},
		ConsoleSize: [2]uint16{uint16(hc.ConsoleSize[0]), uint16(hc.ConsoleSize[1])},
	}
	if hc.LogConfig.Type == logJSONFile {
		req.Log.Path = c.logPath()
		req.Log.MaxSize, req.Log.MaxFiles, _ = logLimits(hc.LogConfig) // checked at creation
	}
	return req
}
