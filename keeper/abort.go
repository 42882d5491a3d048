package keeper

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// A start or an exec is called off by who has asked for it, on the same
// connection: so the wish cannot overtake the request, not even when the keeper
// stands still meanwhile. A connection that only ends calls nothing off: its
// engine may have been killed, and the next one asks what came of it.

// abortPatience is how long whoever calls a start off is kept waiting for its end.
// Then the kernel holds its process in a system call that no signal ends, for a
// file server that does not answer say; it ends when the kernel lets go of it.
const abortPatience = time.Second

// abort gives up one process that is being made.
type abort struct {
	file *os.File // an eventfd, readable once it is given up

	mu       sync.Mutex
	on       bool
	answered bool // who asked for it waits no more
}

func newAbort() (*abort, error) {
	// Blocking, which it never does: so the runtime does not watch it.
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &abort{file: os.NewFile(uintptr(fd), "abort")}, nil
}

// now gives it up.
func (a *abort) now() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.on {
		a.on = true
		a.file.Write([]byte{7: 1}) // fails only when closed: it has been made, or has failed
	}
}

func (a *abort) isOn() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.on
}

// claim is true for the one who may answer.
func (a *abort) claim() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.answered
	a.answered = true
	return first
}

// errAborted is the error of a process that was given up.
func errAborted(k key, err error) error {
	return errdefs.As(errdefs.ErrConflict, fmt.Errorf("%s was called off: %w", k, err))
}

// errHeld is the same for one that the kernel does not let go of.
func errHeld(k key) error {
	return errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable,
		fmt.Errorf("%s was called off, and its process waits in the kernel, where no signal reaches it", k)),
		"a file server that does not answer, or a frozen cgroup, does this; it ends when that goes on")
}

// answerLaunch answers a request to make a process, which can be called off.
func (s *server) answerLaunch(conn *net.UnixConn, r *request, files []*os.File) {
	a, err := newAbort()
	if err != nil {
		s.reply(conn, &response{Failure: newFailure(err)})
		return
	}
	defer a.file.Close()
	made, heard := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		s.hearAbort(conn, a, r.key(), made)
	}()
	var answer *response
	err = guard(s.log, "request "+r.Op, func() (err error) {
		answer, err = s.launchFor(r, files, a)
		return err
	})
	close(made)
	conn.SetReadDeadline(longAgo())
	<-heard
	if err != nil {
		answer = &response{Failure: newFailure(err)}
	}
	known := a.claim() && s.reply(conn, answer)
	if err != nil {
		return
	}
	p, err := s.find(r.key())
	if err != nil {
		return // forgotten already
	}
	if !known && a.isOn() {
		// Called off by somebody who does not know that it has begun.
		p.signal(unix.SIGKILL) // it fails when the process has ended
	}
	if p.captured {
		s.answerEnd(conn, p)
	}
}

// hearAbort reads on the connection of a request to make a process until it is
// made.
func (s *server) hearAbort(conn *net.UnixConn, a *abort, k key, made <-chan struct{}) {
	body, files, err := readFrame(conn)
	closeAll(files)
	var r request
	if err != nil || json.Unmarshal(body, &r) != nil || r.Op != opAbort {
		return // the connection has ended, or the process has been made
	}
	a.now()
	timer := time.NewTimer(abortPatience)
	defer timer.Stop()
	select {
	case <-made:
	case <-timer.C:
		if a.claim() {
			s.log.Warn("process does not end", "process", k.String())
			s.reply(conn, &response{Failure: newFailure(errHeld(k))})
		}
	}
}

// launchFor makes the process.
func (s *server) launchFor(r *request, files []*os.File, a *abort) (*response, error) {
	var status Status
	var err error
	if r.Op == opStart {
		status, err = s.answerStart(r, files, a)
	} else {
		status, err = s.answerExec(r, a)
	}
	if err != nil && a.isOn() {
		err = errAborted(r.key(), err)
	}
	return &response{Status: &status}, err
}

// abortExecs gives up what is still being executed in a container that has ended.
func (s *server) abortExecs(container string) {
	for _, e := range s.execs(container) {
		if e.abort != nil {
			e.abort.now() // in vain when it runs
		}
	}
}

// awaitEntering returns when nobody is being executed in the container any more.
// Its init has ended: who is in its pid namespace has been killed with it, and who
// takes long is not to keep the container from ending.
func (s *server) awaitEntering(p *process) {
	timer := time.AfterFunc(slotPatience, func() { s.abortExecs(p.key.container) })
	defer timer.Stop()
	p.entering.Lock()
	p.entering.Unlock() //lint:ignore SA2001 it is waited for, nothing else
}
