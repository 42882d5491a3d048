package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// A keeper is upgraded by becoming another program: execve(2) keeps the process, and
// with it the containers' parent, and the descriptors that are not to be closed. All
// that moves bytes stops where nothing is in its hands, what is known is written to a
// memory file, and the new program goes on from there (takeover.go). Clients that are
// attached stay connected; other connections are closed and made again; who connects
// meanwhile waits in the socket's queue.
//
// The new program is tried before: one that cannot read what is handed over changes
// nothing.

// handoverVersion changes when a keeper of before could not read what is handed over.
const handoverVersion = 1

// handover is what a keeper leaves to its successor. Numbers are descriptors.
type handover struct {
	Version        int
	Listener, Life int
	Processes      []handedProcess
	Clients        []handedClient
}

// handedProcess is a process, or what is known of one that has exited.
type handedProcess struct {
	Status    Status // of nobody: only the streams are left
	Cgroup    string `json:",omitempty"`
	Poststop  bool   `json:",omitempty"`
	Forgotten bool   `json:",omitempty"`
	Pidfd     int    // -1: exited
	Streams   *handedStreams
}

// handedStreams are the streams of a process that runs, or of which somebody still
// holds the other ends.
type handedStreams struct {
	TTY, StdinOnce, Lingers bool
	Log                     LogConfig
	Capture                 int    `json:",omitempty"` // how much is captured, Captured what it is so far
	Captured                []byte `json:",omitempty"`
	Stdin, Terminal         int    // -1: none; Stdin is a terminal's master when TTY
	Unwritten               []byte
	Lost                    *handedLoss `json:",omitempty"`
	Outputs                 []handedOutput
}

// handedLoss is what a log has lost and not told of yet.
type handedLoss struct {
	Entries, Bytes int
	Cause          string
}

// handedOutput is one stream from a process. With a terminal its descriptor is Stdin.
type handedOutput struct {
	Kind  byte
	Name  string
	File  int
	Over  bool
	Rest  []byte    `json:",omitempty"`
	Split bool      `json:",omitempty"`
	First time.Time `json:",omitzero"`
}

// handedClient is an attached client.
type handedClient struct {
	ContainerID, ExecID string
	Want                AttachOptions
	Conn                int
	// Waiting: its process is still to come. Idle: it sends nothing more. Broken: it
	// takes nothing any more.
	Waiting, Idle, Broken bool
	Rest                  []byte `json:",omitempty"`
}

// client is an attached client's place.
type client struct {
	key key
	io  *stdio
}

// upgradeRequest names the program.
type upgradeRequest struct {
	Binary string `json:"binary"`
}

// ProgramID identifies a program's file: it is another one after an installation.
func ProgramID(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d:%d", st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano())
}

func (s *server) info() *Info {
	return &Info{Pid: os.Getpid(), Protocol: [2]int{protocolMajor, protocolMinor},
		Version: s.options.Version, Begun: s.begun, Program: s.program}
}

// serveClient carries a client's streams until it is gone.
func (s *server) serveClient(a *attachment, k key, io *stdio) {
	s.park.move(func() bool { return a.serve(io) })
	s.mu.Lock()
	delete(s.clients, a)
	s.mu.Unlock()
	s.abandon(k, io)
}

// sendRest has a client sent what a hand-over kept from it: there may be no more
// output to send it with. Everybody is parked.
func (s *server) sendRest(a *attachment) {
	if len(a.rest) == 0 {
		return
	}
	go s.park.move(func() bool {
		a.send(nil)
		return true
	})
}

// prepareUpgrade tries the new program, stops everything and writes down what is
// known. After an error all goes on as before.
func (s *server) prepareUpgrade(r *request) error {
	var up upgradeRequest
	if err := decodeBody(r, &up); err != nil {
		return err
	}
	if err := tryProgram(up.Binary, &handover{Version: handoverVersion}); err != nil {
		return err
	}
	if err := s.lockGate(); err != nil {
		return err
	}
	s.successor = up.Binary
	return nil
}

// gatePatience bounds how long starts and ends under way may keep an upgrade waiting.
const gatePatience = 5 * time.Second

// lockGate waits until nothing changes what is known, without keeping others from it
// meanwhile.
func (s *server) lockGate() error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(gatePatience); !s.gate.TryLock(); <-ticker.C {
		if time.Now().After(deadline) {
			return errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable, errors.New("upgrade keeper: processes are being started or ended")),
				"try again when the host is less busy")
		}
	}
	return nil
}

// tryProgram has the program read a handover.
func tryProgram(binary string, h *handover) error {
	file, err := h.write()
	if err != nil {
		return err
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(context.Background(), gatePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "keep", "--takeover", "3", "--check-takeover")
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("upgrade keeper: %s cannot go on from this keeper: %w: %s", binary, err, out))
		return errdefs.WithHint(err, "an older keeper stays until its containers have ended")
	}
	return nil
}

// upgrade becomes the new program. It returns when that has failed, and then
// everything goes on. The request has locked the gate.
func (s *server) upgrade() error {
	defer s.gate.Unlock()
	s.park.set(true)
	s.setDeadlines(longAgo())
	s.park.awaitEmpty()
	fault.Here(fault.KeeperParked)
	err := guard(s.log, "upgrade", s.become) // a panic would leave everybody parked
	s.log.Error("upgrade", "program", s.successor, "cause", err)
	s.setDeadlines(time.Time{})
	s.park.set(false)
	return fmt.Errorf("upgrade keeper: %w", err)
}

// setDeadlines wakes all who wait to move bytes, or lets them wait again. Whoever
// clears a deadline of his own looks at the parking afterwards, so none is missed.
func (s *server) setDeadlines(t time.Time) {
	s.listener.SetDeadline(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	streams := s.park.read()
	for a, c := range s.clients {
		a.conn.SetDeadline(t)
		if streams[c.io] = true; t.IsZero() {
			a.late = false
			s.sendRest(a)
		}
	}
	for io := range streams {
		io.setDeadlines(t)
	}
}

func (s *stdio) setDeadlines(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin != nil {
		s.stdin.SetWriteDeadline(t)
	}
	for _, o := range s.outputs {
		o.file.SetReadDeadline(t) // fails for what is closed
	}
}

// become hands over and executes the new program; it returns an error or not at all.
func (s *server) become() error {
	h, err := s.collect()
	if err != nil {
		return err
	}
	if err := tryProgram(s.successor, h); err != nil {
		return err
	}
	state, err := h.write()
	if err != nil {
		return err
	}
	defer state.Close()
	args := []string{"berth-oci", "keep", "--root", s.place.root, "--idle", s.options.Idle.String(), "--takeover", strconv.Itoa(int(state.Fd()))}
	env := append(os.Environ(), fault.Environment()...)
	for _, fd := range append(h.descriptors(), int(state.Fd())) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", fd, err)
		}
	}
	err = syscall.Exec(s.successor, args, env)
	for _, fd := range h.descriptors() {
		syscall.CloseOnExec(fd)
	}
	return fmt.Errorf("execute %s: %w", s.successor, err)
}

// write puts the handover into a memory file.
func (h *handover) write() (*os.File, error) {
	fd, err := unix.MemfdCreate("berth:handover", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "handover")
	text, err := json.Marshal(h)
	if err == nil {
		_, err = file.WriteAt(text, 0)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("write handover: %w", err)
	}
	return file, nil
}

// readHandover reads what write has written.
func readHandover(file *os.File) (*handover, error) {
	if file == nil {
		return nil, fmt.Errorf("nothing to take over: %w", errdefs.ErrInvalid)
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<32))
	if err != nil {
		return nil, fmt.Errorf("read handover: %w", err)
	}
	h := new(handover)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, fmt.Errorf("read handover: %w", err)
	}
	if h.Version != handoverVersion {
		return nil, fmt.Errorf("handover of version %d, this program reads %d: %w", h.Version, handoverVersion, errdefs.ErrUnsupported)
	}
	return h, nil
}

// descriptors are all that the successor needs.
func (h *handover) descriptors() []int {
	fds := []int{h.Listener, h.Life}
	for i := range h.Processes {
		p := &h.Processes[i]
		fds = append(fds, p.Pidfd)
		if p.Streams == nil {
			continue
		}
		fds = append(fds, p.Streams.Stdin, p.Streams.Terminal)
		for _, o := range p.Streams.Outputs {
			fds = append(fds, o.File)
		}
	}
	for _, c := range h.Clients {
		fds = append(fds, c.Conn)
	}
	used := fds[:0]
	for _, fd := range fds {
		if fd >= 0 {
			used = append(used, fd)
		}
	}
	return used
}

// collect writes down what is known. Everybody is parked and the gate locked.
func (s *server) collect() (*handover, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &handover{Version: handoverVersion}
	var errs []error
	settle := settleLogs(&errs)
	number := func(f syscall.Conn) int {
		fd, err := descriptor(f)
		errs = append(errs, err)
		return fd
	}
	h.Listener, h.Life = number(s.listener), number(s.life)
	ownerless := s.park.read() // what outlives an executed process that is forgotten
	for _, p := range s.processes {
		h.Processes = append(h.Processes, p.hand(number, settle))
		delete(ownerless, p.io)
	}
	for io := range ownerless {
		h.Processes = append(h.Processes, handedProcess{Pidfd: -1, Streams: io.hand(number, settle)})
	}
	for a, c := range s.clients {
		h.Clients = append(h.Clients, handedClient{
			ContainerID: c.key.container, ExecID: c.key.exec, Want: a.want, Conn: number(a.conn),
			Waiting: c.io.currentState() == stdioWaiting, Idle: a.idle, Broken: a.broken, Rest: a.rest,
		})
	}
	return h, errors.Join(errs...)
}

// descriptor is a file's number, which stays its own.
func descriptor(f syscall.Conn) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// settleLogs makes what writes a log's entries before it is handed over, and says what
// of them is lost.
func settleLogs(errs *[]error) func(*jsonLog) *handedLoss {
	deadline := time.Now().Add(gatePatience) // for all of them
	return func(l *jsonLog) *handedLoss {
		lost, err := l.settle(deadline)
		*errs = append(*errs, err)
		if lost.entries == 0 {
			return nil
		}
		return &handedLoss{lost.entries, lost.bytes, lost.cause.Error()}
	}
}

func (p *process) hand(number func(syscall.Conn) int, settle func(*jsonLog) *handedLoss) handedProcess {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := handedProcess{Status: p.status, Cgroup: p.cgroup, Poststop: p.poststop, Forgotten: p.forgotten, Pidfd: -1}
	if p.pidfd != nil {
		h.Pidfd = number(p.pidfd)
	}
	if p.io != nil {
		h.Streams = p.io.hand(number, settle)
	}
	return h
}

// hand is nil for streams of which nothing is left.
func (s *stdio) hand(number func(syscall.Conn) int, settle func(*jsonLog) *handedLoss) *handedStreams {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &handedStreams{TTY: s.tty, StdinOnce: s.stdinOnce, Lingers: s.lingers, Log: s.config,
		Stdin: -1, Terminal: -1, Unwritten: s.unwritten}
	if s.stdin != nil {
		h.Stdin = number(s.stdin)
	}
	if s.slave != nil {
		h.Terminal = number(s.slave)
	}
	if s.capture != nil {
		h.Capture, h.Captured = s.capture.limit, s.capture.output()
	}
	for _, o := range s.outputs {
		if _, err := descriptor(o.file); err != nil {
			continue // at its end, and closed
		}
		h.Outputs = append(h.Outputs, handedOutput{Kind: byte(o.kind), Name: o.stream.name, File: number(o.file),
			Over: o.over, Rest: o.stream.rest, Split: o.stream.split, First: o.stream.firstAt})
	}
	if s.log != nil {
		h.Lost = settle(s.log)
	}
	if s.state == stdioEnded && len(h.Outputs) == 0 {
		return nil
	}
	return h
}
