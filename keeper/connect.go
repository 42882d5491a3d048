package keeper

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// ConnectOptions say where the keeper is and how it is started.
type ConnectOptions struct {
	// Root is the keeper's absolute directory.
	Root string
	// Binary is the program that becomes the keeper when none runs: it is
	// called with "keep" and flags that [ParseArgs] reads. "" means that a
	// keeper which does not run is an error.
	Binary string
	// Env is the new keeper's environment; nil means PATH only. No container
	// gets it.
	Env []string
	// Idle is passed on, see [ServeOptions].
	Idle time.Duration
}

// Connect connects to the keeper and starts it if there is none. The keeper
// is in a session of its own and has no descriptor of its starter's: no signal
// to the starter, not even SIGKILL, reaches it. Any number of engines may do
// this at the same time.
func Connect(ctx context.Context, o ConnectOptions) (*Client, error) {
	p := place{o.Root}
	client, err := p.connect(ctx)
	if err == nil || o.Binary == "" || !errors.Is(err, errdefs.ErrUnavailable) {
		return client, err
	}
	if err := p.make(); err != nil {
		return nil, err
	}
	door, err := p.lockDoor(ctx)
	if err != nil {
		return nil, err
	}
	defer door.Close()
	for {
		client, err := p.connect(ctx)
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) {
			return client, err
		}
		r, err := p.spawn(ctx, o)
		if errors.Is(err, errdefs.ErrConflict) {
			// Its starter was killed just after starting it, and it does not
			// listen yet. Starting another one took long enough to look again.
			continue
		}
		if err != nil {
			return nil, err
		}
		client, err = p.connect(ctx)
		if err != nil {
			r.close()
			return nil, err
		}
		client.reaper = r
		return client, nil
	}
}

// connect opens the session with a running keeper.
func (p place) connect(ctx context.Context) (*Client, error) {
	c := &Client{place: p, gone: make(chan struct{})}
	conn, stop, err := c.send(ctx, &request{Op: opHello})
	if err != nil {
		return nil, err
	}
	answer, err := receive(conn)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil && answer.Keeper == nil {
		err = errors.New("keeper answered without saying who it is")
	}
	if err != nil {
		stop()
		conn.Close()
		return nil, explainVersion(c.explain(ctx, err))
	}
	c.info, c.session = *answer.Keeper, conn
	go func() {
		defer close(c.gone)
		awaitHangup(conn)
	}()
	return c, nil
}

func explainVersion(err error) error {
	var version *versionError
	if errors.As(err, &version) {
		return errdefs.WithHint(err, "the running keeper is of another release: stop all containers, then it ends by itself and a new one is started")
	}
	return err
}

// spawn starts a keeper and waits until it listens. ErrConflict means that
// another one holds the life lock. The caller holds the door lock.
func (p place) spawn(ctx context.Context, o ConnectOptions) (*reaper, error) {
	logFile, err := os.OpenFile(p.logFile(), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	defer logFile.Close()
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	defer ours.Close()
	cmd := keepCommand(p, o)
	cmd.Stderr = logFile
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	var pidfd int
	cmd.SysProcAttr.PidFD = &pidfd
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("start keeper: %w", err)),
			"the program berth-oci must be installed beside the engine")
	}
	r, err := newReaper(cmd.Process.Pid, pidfd)
	cmd.Process.Release()
	if err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	if err := p.awaitReady(ctx, ours); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func keepCommand(p place, o ConnectOptions) *exec.Cmd {
	cmd := exec.Command(o.Binary, "keep", "--root", p.root, "--notify-fd", "3")
	if o.Idle != 0 {
		cmd.Args = append(cmd.Args, "--idle", o.Idle.String())
	}
	cmd.Dir = "/"
	cmd.Env = o.Env
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	cmd.Env = append(cmd.Env, fault.Environment()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// awaitReady reads what a new keeper says about its start.
func (p place) awaitReady(ctx context.Context, from *os.File) error {
	stop := context.AfterFunc(ctx, func() { from.SetReadDeadline(longAgo()) })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(from, 4096))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("start keeper: %w", err)
	case string(text) == notifyReady:
		return nil
	case string(text) == notifyBusy:
		return fmt.Errorf("another keeper is starting: %w", errdefs.ErrConflict)
	case len(text) == 0:
		text = []byte("it ended without a word")
	}
	err = errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("start keeper: %s", text))
	return errdefs.WithHint(err, p.logFile()+" may say more")
}

// reaper reaps a keeper that was started by this process, should it end first.
type reaper struct {
	pid   int
	pidfd *os.File
	done  sync.WaitGroup
	err   error // why it was not reaped, once done
}

func newReaper(pid, fd int) (*reaper, error) {
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	pidfd, err := pollable(file)
	if err != nil {
		return nil, err
	}
	r := &reaper{pid: pid, pidfd: pidfd}
	r.done.Go(func() { _, r.err = reap(pid, pidfd) })
	return r, nil
}

// close stops waiting; a keeper that has ended by now is reaped.
func (r *reaper) close() {
	r.pidfd.Close()
	r.done.Wait()
	if r.err != nil {
		syscall.Wait4(r.pid, nil, syscall.WNOHANG, nil)
	}
}

// ParseArgs reads the flags that [Connect] starts a keeper with:
//
//	keep --root DIR [--idle DURATION] [--notify-fd N] [--takeover N [--check-takeover]]
//
// args are those after "keep".
func ParseArgs(args []string) (ServeOptions, error) {
	var o ServeOptions
	flags := flag.NewFlagSet("keep", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.Root, "root", "/run/berth", "directory of the socket and the records")
	flags.DurationVar(&o.Idle, "idle", defaultIdle, "end after so long without work; negative: never")
	fd := flags.String("notify-fd", "", "descriptor to report readiness on")
	state := flags.Int("takeover", -1, "descriptor of what the keeper before has left")
	flags.BoolVar(&o.CheckTakeover, "check-takeover", false, "only see whether the takeover can be done")
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err == nil && *fd != "" {
		var n int
		if n, err = strconv.Atoi(*fd); err == nil {
			syscall.CloseOnExec(n)
			o.Notify = os.NewFile(uintptr(n), "notify")
		}
	}
	if err == nil && *state >= 0 {
		syscall.CloseOnExec(*state)
		o.Takeover = os.NewFile(uintptr(*state), "takeover")
	}
	if err != nil {
		return o, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("keep: %w", err))
	}
	return o, nil
}
