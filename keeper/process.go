package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// process is one process that the keeper is or was the parent of, from the
// moment its start was asked for until it is forgotten.
type process struct {
	key key
	// io is nil for a process that an earlier keeper has seen exit.
	io *stdio
	// cgroup of an init, to be removed at its end.
	cgroup string
	// poststop tells that there are hooks to run when nothing of it is left.
	poststop bool
	// abort gives up its start; nil when an earlier keeper has started it.
	abort *abort
	// settled is closed when the process runs or could not be started, done when
	// it has exited or could not be started.
	settled, done chan struct{}
	// entering is held, shared, while a process is being executed in a
	// container, and taken by the end of its init.
	entering sync.RWMutex

	// captured says that its exit is told only to who waits for it, see answerEnd.
	captured bool

	mu     sync.Mutex
	status Status
	pidfd  *os.File // nil before the start and after the exit
	// forgotten is set when nobody wants to know of the process's exit.
	forgotten bool
}

func (p *process) currentStatus() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// begin records that the process runs.
func (p *process) begin(pid int, pidfd *os.File) Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pidfd = pidfd
	p.status.Pid = pid
	p.status.StartedAt = time.Now().UTC()
	close(p.settled)
	return p.status
}

// signal sends a signal to the process if it runs.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil {
		return notRunning(p.key)
	}
	switch err := sendSignal(p.pidfd, sig); {
	case errors.Is(err, unix.ESRCH):
		return notRunning(p.key)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("signal %d: %w", int(sig), errdefs.ErrInvalid)
	case err != nil:
		return fmt.Errorf("signal %s: %w", p.key, err)
	}
	return nil
}

func notRunning(k key) error {
	return fmt.Errorf("%s is not running: %w", k, errdefs.ErrConflict)
}

func notFound(k key) error {
	return fmt.Errorf("%s: %w", k, errdefs.ErrNotFound)
}

// reserve enters a new process into the table. Clients that attached ahead of
// it become its own.
func (s *server) reserve(k key, a *abort) (*process, error) {
	if err := k.validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.processes[k]; before != nil && before.abort != nil && before.abort.isOn() {
		return nil, errHeld(k)
	} else if before != nil {
		return nil, fmt.Errorf("%s exists: %w", k, errdefs.ErrConflict)
	}
	if s.closing {
		return nil, fmt.Errorf("start %s: keeper is shutting down: %w", k, errdefs.ErrUnavailable)
	}
	io := s.pending[k]
	delete(s.pending, k)
	if io == nil {
		io = s.newStdio(k)
	}
	p := &process{
		key: k, io: io, abort: a, settled: make(chan struct{}), done: make(chan struct{}),
		status: Status{ContainerID: k.container, ExecID: k.exec},
	}
	s.processes[k] = p
	s.unfinished.Add(1)
	return p, nil
}

// newStdio makes the streams of a process; what they have to say names it.
func (s *server) newStdio(k key) *stdio {
	return newStdio(s.bufs, s.log.With("process", k.String()), s.park)
}

func (s *server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// find returns a known process.
func (s *server) find(k key) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.processes[k]; p != nil {
		return p, nil
	}
	return nil, notFound(k)
}

// drop takes a process out of the table.
func (s *server) drop(p *process) {
	s.mu.Lock()
	if s.processes[p.key] == p {
		delete(s.processes, p.key)
	}
	s.mu.Unlock()
	s.checkIdle()
}

// execs are the known processes executed in a container.
func (s *server) execs(container string) []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ps []*process
	for k, p := range s.processes {
		if k.container == container && k.exec != "" {
			ps = append(ps, p)
		}
	}
	return ps
}
