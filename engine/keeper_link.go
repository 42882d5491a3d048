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

	// turn is held, shared, while a request is under way, so that an upgrade of the
	// keeper interrupts none; waits excepted, which are made again.
	turn sync.RWMutex

	// connecting admits one who connects.
	connecting chan struct{}

	mu     sync.Mutex
	client *keeper.Client
	closed bool
}

func newKeeperLink(opts keeper.ConnectOptions) *keeperLink {
	return &keeperLink{opts: opts, connecting: make(chan struct{}, 1)}
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

// connect returns the client, connecting first when the keeper is gone. That may take
// as long as another keeper's start does: one connects, and the others wait no longer
// than they like.
func (l *keeperLink) connect(ctx context.Context) (*keeper.Client, error) {
	c, err := l.connected()
	if c != nil || err != nil {
		return c, err
	}
	select {
	case l.connecting <- struct{}{}:
		defer func() { <-l.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c, err := l.connected(); c != nil || err != nil {
		return c, err // another has connected meanwhile
	}
	if c, err = keeper.Connect(ctx, l.opts); err != nil {
		return nil, err
	}
	if err := l.take(c); err != nil {
		return nil, err
	}
	return c, nil
}

// connected returns the client of a keeper that is there, else nil.
func (l *keeperLink) connected() (*keeper.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errLinkClosed()
	}
	if l.client != nil {
		select {
		case <-l.client.Done():
		default:
			return l.client, nil
		}
	}
	return nil, nil
}

func errLinkClosed() error { return fmt.Errorf("engine is closed: %w", errdefs.ErrUnavailable) }

// take makes a new client the one that is used, in the place of one whose keeper is
// gone.
func (l *keeperLink) take(c *keeper.Client) error {
	l.mu.Lock()
	closed, last := l.closed, l.client
	if !closed {
		l.client = c
	}
	l.mu.Unlock()
	if closed {
		return errors.Join(errLinkClosed(), c.Close())
	}
	if last != nil {
		c.Succeed(last)
		last.Close()
	}
	return nil
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

// goneSoon is how long after a broken request its keeper may take to be seen as
// dead.
const goneSoon = 2 * time.Second

// retried asks the keeper and, when it dies meanwhile, the next one: for requests
// that mean the same to a keeper that has buried what the last one ran.
func (l *keeperLink) retried(ctx context.Context, ask func(c *keeper.Client) error) error {
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	if err = ask(c); !errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if l.awaitGone(ctx, c); ctx.Err() != nil {
		return err
	}
	next, cerr := l.connect(ctx)
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	return ask(next)
}

// awaitGone waits until a keeper that has broken off a request is seen as dead; it
// is false when the keeper lives on.
func (l *keeperLink) awaitGone(ctx context.Context, c *keeper.Client) bool {
	timer := time.NewTimer(goneSoon)
	defer timer.Stop()
	select {
	case <-c.Done():
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

const (
	// keeperSlow is after how long the log says that the engine waits for the keeper.
	keeperSlow = 2 * time.Second
	// keeperPatience is how long a keeper may take to answer an engine that begins. A
	// new one ends first what the one before has left running.
	keeperPatience = time.Minute
)

// errKeeperSilent is the end of that patience.
var errKeeperSilent = errdefs.WithHint(
	errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("keeper has not answered for %s", keeperPatience)),
	"it may be stopped, or wait for a disk: see the process berth-oci keep, and keeper.log in the run directory")

// patiently bounds what asks the keeper while the engine begins, and has the log say
// so when it takes long.
func (e *Engine) patiently(ctx context.Context, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, keeperPatience, errKeeperSilent)
	defer cancel()
	slow := time.AfterFunc(keeperSlow, func() { e.log.Warn("waiting for the keeper", "for", keeperSlow, "at most", keeperPatience) })
	defer slow.Stop()
	return ask(ctx)
}

// meetKeeper connects to the keeper for the first time.
func (e *Engine) meetKeeper(ctx context.Context) error {
	return e.patiently(ctx, func(ctx context.Context) error {
		_, err := e.keeper.connect(ctx)
		return err
	})
}

// keeperList is what the keeper knows, for an engine that begins.
func (e *Engine) keeperList(ctx context.Context) (list []keeper.Status, err error) {
	err = e.patiently(ctx, func(ctx context.Context) error {
		list, err = e.keeper.list(ctx)
		return err
	})
	return list, err
}

// start has the keeper start a process; see [keeperDied].
func (l *keeperLink) start(ctx context.Context, r *keeper.StartRequest) (keeper.Status, error) {
	l.turn.RLock()
	defer l.turn.RUnlock()
	c, err := l.connect(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	status, err := c.Start(ctx, r)
	if errors.Is(err, errdefs.ErrUnavailable) && l.awaitGone(ctx, c) {
		err = &keeperDied{err}
	}
	return status, err
}

// keeperDied is the error of a start whose keeper was killed meanwhile: nothing of
// the process is left, or will be once another keeper has looked.
type keeperDied struct{ error }

func (e *keeperDied) Unwrap() error { return e.error }

func (l *keeperLink) exec(ctx context.Context, r *keeper.ExecRequest) (keeper.Status, error) {
	l.turn.RLock()
	defer l.turn.RUnlock()
	c, err := l.connect(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	return c.Exec(ctx, r)
}

// execCaptured starts a process whose output comes with its exit. An upgrade of the
// keeper does not wait for that.
func (l *keeperLink) execCaptured(ctx context.Context, r *keeper.ExecRequest) (*keeper.Captured, error) {
	l.turn.RLock()
	defer l.turn.RUnlock()
	c, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c.ExecCaptured(ctx, r)
}

// signal sends sig; a process that has ended meanwhile is no error.
func (l *keeperLink) signal(ctx context.Context, id, execID string, sig syscall.Signal) error {
	l.turn.RLock()
	defer l.turn.RUnlock()
	err := l.retried(ctx, func(c *keeper.Client) error { return c.Signal(ctx, id, execID, sig) })
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrConflict) {
		return nil
	}
	return err
}

func (l *keeperLink) resize(ctx context.Context, id, execID string, height, width uint) error {
	l.turn.RLock()
	defer l.turn.RUnlock()
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
	l.turn.RLock()
	defer l.turn.RUnlock()
	c, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c.Attach(ctx, id, execID, o)
}

// wait waits for the end of a process.
func (l *keeperLink) wait(ctx context.Context, id, execID string) (keeper.Status, error) {
	var status keeper.Status
	err := l.retried(ctx, func(c *keeper.Client) (err error) {
		status, err = c.Wait(ctx, id, execID)
		return err
	})
	return status, err
}

// forget drops the keeper's record of an ended process; one it does not know
// is no error.
func (l *keeperLink) forget(ctx context.Context, id, execID string) error {
	l.turn.RLock()
	defer l.turn.RUnlock()
	err := l.retried(ctx, func(c *keeper.Client) error { return c.Forget(ctx, id, execID) })
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// list asks for everything the keeper knows.
func (l *keeperLink) list(ctx context.Context) ([]keeper.Status, error) {
	l.turn.RLock()
	defer l.turn.RUnlock()
	var list []keeper.Status
	err := l.retried(ctx, func(c *keeper.Client) (err error) {
		list, err = c.List(ctx)
		return err
	})
	return list, err
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
		e.log.Warn("connection to the keeper has ended, connecting again", "cause", err)
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
func (c *ctr) startRequest(spec *specs.Spec, rootfs *os.File) (*keeper.StartRequest, error) {
	cfg, hc := c.rec.Config, c.rec.HostConfig
	log, err := c.keptLog()
	return &keeper.StartRequest{
		ID: c.id, Spec: spec, Bundle: c.dir, Rootfs: rootfs,
		OpenStdin: cfg.OpenStdin, StdinOnce: cfg.StdinOnce,
		Log:         log,
		Init:        hc.Init != nil && *hc.Init,
		ConsoleSize: [2]uint16{uint16(hc.ConsoleSize[0]), uint16(hc.ConsoleSize[1])},
	}, err
}
