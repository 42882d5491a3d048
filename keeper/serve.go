package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/berth-containers/berth/errdefs"
)

// ServeOptions configure a keeper.
type ServeOptions struct {
	// Root is the absolute directory of the socket and the records.
	Root string
	// Runtime makes the containers; nil means package oci.
	Runtime Runtime
	// Idle is how long the keeper stays without a running process and without
	// a client before it ends itself. 0 means ten seconds, negative for ever.
	// Exits nobody has taken note of are on disk and do not keep it.
	Idle time.Duration
	// StopGrace is how long processes have to obey SIGTERM when the keeper is
	// told to end; 0 means ten seconds.
	StopGrace time.Duration
	// Notify is told "ready\n" once clients can connect, "busy\n" when another
	// keeper runs, or else what went wrong; it is closed then. Nil means nobody wants to know. Who gives it holds
	// the door lock.
	Notify *os.File
	// Takeover is what the keeper that this process was before has left; nil for
	// a new keeper. See handover.go.
	Takeover *os.File
	// CheckTakeover makes Serve only read Takeover: nil means that it could go on
	// from there.
	CheckTakeover bool
	// Version is shown to clients.
	Version string
	// Log is for the keeper's own messages; nil means text on stderr.
	Log *slog.Logger
}

const (
	defaultIdle      = 10 * time.Second
	defaultStopGrace = 10 * time.Second
)

func (o ServeOptions) withDefaults() ServeOptions {
	if o.Idle == 0 {
		o.Idle = defaultIdle
	}
	if o.StopGrace == 0 {
		o.StopGrace = defaultStopGrace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return o
}

// server is a keeper at work.
type server struct {
	place   place
	records records
	runtime Runtime
	options ServeOptions
	log     *slog.Logger
	bufs    *buffers
	memory  *trimmer
	// prepared are execs to be started again.
	prepared preparedExecs
	// slots bounds how many processes are being started at a time.
	slots chan struct{}
	// quit gets the locked door when the keeper has nothing to do any more.
	quit chan *os.File
	// unfinished counts the processes that are being started or run. It grows
	// only while closing is not set.
	unfinished sync.WaitGroup

	// gate is held, shared, by whatever changes what a successor must know, and
	// alone by a hand-over. park stops who moves bytes.
	gate sync.RWMutex
	park *parking
	// listener and life are what a successor goes on with; successor is its program.
	listener  *net.UnixListener
	life      *os.File
	successor string
	// takenOver is to be begun when all is taken over.
	takenOver []func()
	// begun is when this program became the keeper, program which one it is.
	begun   time.Time
	program string

	mu          sync.Mutex
	clients     map[*attachment]client
	processes   map[key]*process
	pending     map[key]*stdio // clients attached ahead of a start
	conns       map[*net.UnixConn]struct{}
	subscribers map[*subscriber]struct{}
	closing     bool
	idle        *time.Timer // nil while there is something to do
}

// Serve is the keeper. It returns nil when it has ended itself for want of
// work, and when ctx is done, after all containers have been stopped:
// containers do not outlive their keeper. It fails with ErrConflict when
// another keeper runs in the same root.
func Serve(ctx context.Context, options ServeOptions) error {
	o := options.withDefaults()
	if o.CheckTakeover {
		_, err := readHandover(o.Takeover)
		return err
	}
	s := &server{
		place: place{o.Root}, records: records{place{o.Root}.containers()},
		runtime: o.Runtime, options: o, log: o.Log,
		bufs: newBuffers(), memory: newTrimmer(),
		slots: make(chan struct{}, max(8, 4*runtime.GOMAXPROCS(0))), quit: make(chan *os.File, 1),
		park: newParking(), begun: time.Now().UTC(), program: ProgramID("/proc/self/exe"), clients: map[*attachment]client{},
		processes: map[key]*process{}, pending: map[key]*stdio{},
		conns: map[*net.UnixConn]struct{}{}, subscribers: map[*subscriber]struct{}{},
	}
	defer s.memory.stop()
	if s.runtime == nil {
		own, err := newRuntime()
		if err != nil {
			notify(o.Notify, err)
			return fmt.Errorf("keeper: %w", err)
		}
		defer own.runner.Close()
		s.runtime = own
	}
	become := s.open
	if o.Takeover != nil {
		become = s.takeOver
	}
	listener, life, err := become(ctx)
	s.listener, s.life = listener, life
	notify(o.Notify, err)
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	defer life.Close()
	// A hangup is no reason to end.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	return s.run(ctx, listener)
}

const (
	notifyReady = "ready\n"
	notifyBusy  = "busy\n"
)

// notify tells who started the keeper how that went.
func notify(to *os.File, err error) {
	if to == nil {
		return
	}
	defer to.Close()
	text := notifyReady
	switch {
	case errors.Is(err, errdefs.ErrConflict):
		text = notifyBusy
	case err != nil:
		text = err.Error()
	}
	// Nobody may be listening any more, which is no reason not to go on.
	to.WriteString(text)
}

// open becomes the keeper of the root.
func (s *server) open(ctx context.Context) (_ *net.UnixListener, life *os.File, err error) {
	if err := s.place.make(); err != nil {
		return nil, nil, err
	}
	if s.options.Notify == nil {
		door, err := s.place.lockDoor(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer door.Close()
	}
	if life, err = s.place.lockLife(); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			life.Close()
		}
	}()
	if err := s.restore(); err != nil {
		return nil, nil, err
	}
	listener, err := s.place.listen()
	return listener, life, err
}

// run serves until there is nothing to do or ctx is done.
func (s *server) run(ctx context.Context, listener *net.UnixListener) error {
	var accepting sync.WaitGroup
	accepting.Go(func() { s.accept(listener) })
	s.checkIdle()
	s.memory.trimSoon()
	var door *os.File
	select {
	case door = <-s.quit:
	case <-ctx.Done():
		var err error
		if door, err = s.stop(ctx); err != nil {
			return fmt.Errorf("keeper: %w", err)
		}
	}
	// The door is locked until nothing of this keeper is left: nobody starts
	// another one before that.
	defer door.Close()
	listener.Close()
	s.closeConns()
	accepting.Wait()
	if !sameFile(s.life, s.place.lifeLock()) {
		return nil // the directory was removed, and what is there now is another keeper's
	}
	return s.place.remove()
}

func (s *server) accept(listener *net.UnixListener) {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		conn, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if s.park.isOn() {
			s.park.awaitOff() // the next keeper takes the connection, or we do
			if err != nil {
				continue
			}
			// This one was taken already, and is ours: there is no next keeper.
		}
		if err != nil {
			// Out of descriptors, most likely. The connection waits in the
			// backlog; accepting it again at once would be a busy loop.
			s.log.Error("accept", "cause", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if !s.admit(conn) {
			conn.Close()
			return
		}
		handlers.Go(func() {
			defer s.dismiss(conn)
			guard(s.log, "connection", func() error {
				s.handle(conn)
				return nil
			})
		})
	}
}

func (s *server) admit(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *server) dismiss(conn *net.UnixConn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	s.checkIdle()
}

func (s *server) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for conn := range s.conns {
		conn.Close()
	}
}

// stop ends every process and returns the locked door. A keeper that is about to end
// itself for want of work has locked it already: nobody can lock it twice.
func (s *server) stop(ctx context.Context) (door *os.File, err error) {
	if s.stopAll() {
		return <-s.quit, nil
	}
	return s.place.lockDoor(context.WithoutCancel(ctx))
}

// stopAll ends every process: containers do not outlive their keeper. It tells
// whether the keeper was ending itself, which has none.
func (s *server) stopAll() (ending bool) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return true
	}
	s.closing = true
	var inits []*process
	for k, p := range s.processes {
		if k.exec == "" {
			inits = append(inits, p)
		}
		select {
		case <-p.settled:
		default:
			p.abort.now() // it may hang
		}
	}
	s.mu.Unlock()
	signalAll := func(sig syscall.Signal) {
		for _, p := range inits {
			if err := p.signal(sig); err != nil && !errors.Is(err, errdefs.ErrConflict) {
				s.log.Error("stop", "process", p.key.String(), "cause", err)
			}
		}
	}
	signalAll(syscall.SIGTERM)
	kill := time.AfterFunc(s.options.StopGrace, func() { signalAll(syscall.SIGKILL) })
	defer kill.Stop()
	s.unfinished.Wait()
	return false
}
