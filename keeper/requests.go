package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// handle serves one connection: one request and what follows from it.
func (s *server) handle(conn *net.UnixConn) {
	if err := checkPeer(conn); err != nil {
		s.refuse(conn, err)
		return
	}
	body, files, err := readFrame(conn)
	if errors.Is(err, io.EOF) {
		return
	}
	if err != nil {
		s.refuse(conn, err)
		return
	}
	defer closeAll(files)
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		s.refuse(conn, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("decode request: %w", err)))
		return
	}
	s.dispatch(conn, &r, files)
}

// refuse answers a request that was not understood.
func (s *server) refuse(conn *net.UnixConn, err error) {
	s.log.Warn("request refused", "cause", err)
	s.reply(conn, &response{Failure: newFailure(err)})
}

// checkPeer lets in root and the keeper's own user. The socket's mode does the
// same; this holds when somebody changes it.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return fmt.Errorf("ask who the peer is: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not speak to the keeper: %w", cred.Uid, errdefs.ErrPermission)
	}
	return nil
}

func (s *server) dispatch(conn *net.UnixConn, r *request, files []*os.File) {
	switch r.Op {
	case opHello:
		s.reply(conn, &response{Keeper: s.info()})
		awaitHangup(conn)
	case opAttach:
		s.attach(conn, r)
	case opEvents:
		s.events(conn)
	case opWait:
		s.answerExit(conn, r.key())
	case opStart, opExec:
		s.answerLaunch(conn, r, files)
	default:
		var answer *response
		err := guard(s.log, "request "+r.Op, func() (err error) {
			answer, err = s.answer(r, files)
			return err
		})
		if err != nil {
			answer = &response{Failure: newFailure(err)}
		}
		s.reply(conn, answer)
		if err == nil && r.Op == opUpgrade {
			s.reply(conn, &response{Failure: newFailure(s.upgrade())}) // it has failed, or does not return
		}
	}
}

// reply sends an answer. A client that is gone does not get it and will ask
// with List what came of its request.
func (s *server) reply(conn *net.UnixConn, r *response) (sent bool) {
	err := writeFrame(conn, r)
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, net.ErrClosed) {
		s.log.Warn("answer not sent", "cause", err)
	}
	return err == nil
}

// answer carries out the operations that have one answer at once.
func (s *server) answer(r *request, files []*os.File) (*response, error) {
	switch r.Op {
	case opUpgrade:
		return &response{}, s.prepareUpgrade(r)
	case opList:
		return &response{List: s.list()}, nil
	case opForget:
		s.gate.RLock()
		defer s.gate.RUnlock()
		return &response{}, s.forget(r.key())
	case opStatus, opSignal, opResize:
		return s.answerProcess(r)
	}
	return nil, fmt.Errorf("keeper operation %q: %w", r.Op, errdefs.ErrUnsupported)
}

func (s *server) answerStart(r *request, files []*os.File, a *abort) (Status, error) {
	var start StartRequest
	if err := decodeBody(r, &start); err != nil {
		return Status{}, err
	}
	if len(files) > 1 {
		return Status{}, fmt.Errorf("start with %d files: %w", len(files), errdefs.ErrInvalid)
	}
	if len(files) == 1 {
		start.Rootfs = files[0]
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.start(&start, a)
}

func (s *server) answerExec(r *request, a *abort) (Status, error) {
	var e ExecRequest
	if err := decodeBody(r, &e); err != nil {
		return Status{}, err
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.exec(&e, a)
}

// answerProcess carries out what concerns one known process.
func (s *server) answerProcess(r *request) (*response, error) {
	p, err := s.find(r.key())
	if err != nil {
		return nil, err
	}
	switch r.Op {
	case opSignal:
		err := p.signal(syscall.Signal(r.Signal))
		fault.Here(fault.KeeperSignalSent)
		return &response{}, err
	case opResize:
		if p.io == nil {
			return nil, notRunning(p.key)
		}
		return &response{}, p.io.resize(r.Height, r.Width)
	}
	<-p.settled
	if p, err = s.find(r.key()); err != nil {
		return nil, err // it could not be started
	}
	status := p.currentStatus()
	return &response{Status: &status}, nil
}

func decodeBody(r *request, into any) error {
	if err := json.Unmarshal(r.Body, into); err != nil {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("decode %s request: %w", r.Op, err))
	}
	return nil
}

// list is the status of every process that has been started and not forgotten.
func (s *server) list() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Status{}
	for _, p := range s.processes {
		if status := p.currentStatus(); status.Exited || status.Pid != 0 {
			list = append(list, status)
		}
	}
	return list
}

// attach makes the connection a client of a process's streams.
func (s *server) attach(conn *net.UnixConn, r *request) {
	var want AttachOptions
	a, io, err := (*attachment)(nil), (*stdio)(nil), decodeBody(r, &want)
	if err == nil {
		a, err = newAttachment(conn, want)
	}
	if err == nil {
		io, err = s.admitClient(a, r.key())
	}
	if err != nil {
		s.reply(conn, &response{Failure: newFailure(err)})
		return
	}
	s.serveClient(a, r.key(), io)
}

// admitClient joins a client to a process's streams and tells it so: no output
// before the answer, and no answer before it is sure to get all output. It is one
// act for a hand-over: a client that has its answer is handed over.
func (s *server) admitClient(a *attachment, k key) (*stdio, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	io, err := s.join(k, a)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.clients[a] = client{k, io}
	s.mu.Unlock()
	s.reply(a.conn, &response{})
	return io, nil
}

// join finds the streams for a client, or makes them when the process is still
// to come.
func (s *server) join(k key, a *attachment) (*stdio, error) {
	if err := k.validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.processes[k]
	if p != nil && p.io != nil && p.io.attach(a) {
		return p.io, nil
	}
	switch {
	case !a.want.BeforeStart && p == nil:
		return nil, notFound(k)
	case !a.want.BeforeStart:
		return nil, notRunning(k)
	}
	io := s.pending[k]
	if io == nil {
		io = s.newStdio(k)
		s.pending[k] = io
	}
	io.attach(a)
	return io, nil
}

// abandon forgets streams that were made for a process to come when the last
// client has left them.
func (s *server) abandon(k key, io *stdio) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[k] == io && io.clients() == 0 {
		delete(s.pending, k)
	}
}

// answerExit answers when the process has exited.
func (s *server) answerExit(conn *net.UnixConn, k key) {
	p, err := s.find(k)
	if err != nil {
		s.reply(conn, &response{Failure: newFailure(err)})
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		awaitHangup(conn)
	}()
	select {
	case <-p.done:
		answer := &response{}
		if status := p.currentStatus(); status.Exited {
			answer.Status = &status
		} else {
			answer.Failure = newFailure(fmt.Errorf("%s could not be started: %w", k, errdefs.ErrNotFound))
		}
		s.reply(conn, answer)
		conn.Close()
	case <-gone:
	}
	<-gone
}

// awaitHangup returns when the client has closed the connection.
func awaitHangup(conn *net.UnixConn) {
	var b [1]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
	}
}
