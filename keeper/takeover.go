package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// takeOver goes on as the keeper that this process was before it became this
// program. What of it cannot be taken over is logged: the rest must go on.
func (s *server) takeOver(context.Context) (_ *net.UnixListener, life *os.File, err error) {
	h, err := readHandover(s.options.Takeover)
	if err != nil {
		return nil, nil, err
	}
	s.options.Takeover.Close()
	for _, fd := range h.descriptors() {
		syscall.CloseOnExec(fd)
	}
	listener, err := net.FileListener(newFile(h.Listener, "socket"))
	if err != nil {
		return nil, nil, fmt.Errorf("take over socket: %w", err)
	}
	unix, ok := listener.(*net.UnixListener)
	if !ok {
		return nil, nil, fmt.Errorf("take over socket: it is a %T: %w", listener, errdefs.ErrInvalid)
	}
	unix.SetUnlinkOnClose(false)
	for i := range h.Processes {
		s.adopt(&h.Processes[i])
	}
	for i := range h.Clients {
		if err := s.adoptClient(&h.Clients[i]); err != nil {
			s.log.Error("take over a client", "container", h.Clients[i].ContainerID, "cause", err)
		}
	}
	// Nobody reads, or waits for an end, before all clients are there to be told.
	for _, begin := range s.takenOver {
		begin()
	}
	s.takenOver = nil
	fault.Here(fault.KeeperTookOver)
	s.log.Info("took over", "processes", len(h.Processes), "clients", len(h.Clients))
	return unix, newFile(h.Life, "life lock"), nil
}

// newFile makes a file of a descriptor that was handed over; nil of none.
func newFile(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

// adopt takes over a process, and waits for its end if it still runs.
func (s *server) adopt(h *handedProcess) {
	var io *stdio
	if h.Streams != nil {
		var err error
		if io, err = s.adoptStreams(h); err != nil {
			s.log.Error("take over streams", "container", h.Status.ContainerID, "exec", h.Status.ExecID, "cause", err)
		}
	}
	if h.Status.ContainerID == "" {
		return // nobody's, but somebody may write to them
	}
	k := key{h.Status.ContainerID, h.Status.ExecID}
	p := &process{key: k, io: io, cgroup: h.Cgroup, poststop: h.Poststop, settled: make(chan struct{}), done: make(chan struct{}),
		status: h.Status, forgotten: h.Forgotten, pidfd: newFile(h.Pidfd, "pidfd")}
	close(p.settled)
	s.mu.Lock()
	s.processes[k] = p
	s.mu.Unlock()
	if p.pidfd == nil {
		close(p.done)
		return
	}
	s.unfinished.Add(1)
	s.takenOver = append(s.takenOver, func() { go s.awaitExit(p, p.pidfd) })
}

// adoptStreams takes over the streams of a process. After an error they are served
// without what has failed, which is the log.
func (s *server) adoptStreams(process *handedProcess) (*stdio, error) {
	h, runs := process.Streams, process.Pidfd >= 0
	io := s.newStdio(key{process.Status.ContainerID, process.Status.ExecID})
	io.tty, io.stdinOnce, io.lingers, io.config, io.unwritten = h.TTY, h.StdinOnce, h.Lingers, h.Log, h.Unwritten
	if h.Capture > 0 {
		io.capture = &capture{limit: h.Capture, kept: h.Captured}
	}
	io.state = stdioEnded
	var err error
	if runs {
		io.state = stdioLive
		err = io.openLog(h.Log)
		if io.log != nil && h.Lost != nil {
			io.log.goOn(loss{h.Lost.Entries, h.Lost.Bytes, errors.New(h.Lost.Cause)})
		}
	}
	io.stdin, io.slave = newFile(h.Stdin, "stdin"), newFile(h.Terminal, "terminal")
	for _, o := range h.Outputs {
		file := io.stdin // a terminal is both
		if !h.TTY || file == nil {
			file = newFile(o.File, o.Name)
		}
		if aerr := io.addOutput(streamKind(o.Kind), o.Name, file); aerr != nil {
			err = errors.Join(err, aerr)
			continue
		}
		out := io.outputs[len(io.outputs)-1]
		out.stream.rest, out.stream.split, out.stream.firstAt = o.Rest, o.Split, o.First
		if out.over = o.Over; out.over {
			close(out.drained)
		}
	}
	s.takenOver = append(s.takenOver, func() {
		for _, o := range io.outputs {
			io.read(o)
		}
		if len(io.unwritten) > 0 {
			go s.park.move(func() bool { // a hand-over may come before the process takes it
				io.writeStdin(nil)
				return true
			})
		}
	})
	return io, err
}

// adoptClient goes on serving an attached client.
func (s *server) adoptClient(h *handedClient) error {
	file := newFile(h.Conn, "client")
	c, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return fmt.Errorf("it is a %T: %w", c, errdefs.ErrInvalid)
	}
	a, err := newAttachment(conn, h.Want)
	if err != nil {
		conn.Close()
		return err
	}
	a.idle, a.broken, a.rest = h.Idle, h.Broken, h.Rest
	k := key{h.ContainerID, h.ExecID}
	io := s.joinAgain(k, a, h.Waiting)
	s.admit(conn)
	s.mu.Lock()
	s.clients[a] = client{k, io}
	s.mu.Unlock()
	s.takenOver = append(s.takenOver, func() {
		go func() {
			defer s.dismiss(conn)
			s.serveClient(a, k, io)
		}()
		s.sendRest(a)
	})
	return nil
}

// joinAgain finds a client's streams: those of a process that runs or is to come, or,
// for what it has not read yet of one that has ended, streams of nothing.
func (s *server) joinAgain(k key, a *attachment, waiting bool) *stdio {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.processes[k]; p != nil && p.io != nil && p.io.attach(a) {
		return p.io
	}
	if !waiting {
		return &stdio{bufs: s.bufs, slog: s.log, park: s.park, state: stdioEnded}
	}
	io := s.pending[k]
	if io == nil {
		io = s.newStdio(k)
		s.pending[k] = io
	}
	io.attach(a)
	return io
}
