package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// stdioState is where the streams of a process are in their life:
// waiting → live → ending → ended, or waiting → ended.
type stdioState int

const (
	stdioWaiting stdioState = iota // the process has not started
	stdioLive
	stdioEnding // it has exited, its last output is being read
	stdioEnded
)

// stdio is the keeper's side of the streams of one process. It can exist, with
// clients attached, before the process does.
type stdio struct {
	bufs *buffers
	slog *slog.Logger
	park *parking

	// Set by open and start, before any of the goroutines that read it.
	tty       bool
	stdinOnce bool
	// lingers says that others than this process may hold on to its output
	// after its end; they are read, and ignored, to the end.
	lingers bool
	capture *capture // nil: none
	config  LogConfig
	log     *jsonLog // nil: no log
	outputs []*output
	slave   *os.File // keeps a terminal from being hung up while nobody has it open

	// typing is held while input is given to the process; unwritten is what a
	// hand-over has interrupted, and comes first.
	typing    sync.Mutex
	unwritten []byte

	mu       sync.Mutex
	state    stdioState
	stdin    *os.File // nil: none, or closed
	attached []*attachment
}

// output is one stream from the process.
type output struct {
	kind   streamKind
	file   *os.File
	raw    syscall.RawConn
	stream logStream
	// drained is closed when all that the process wrote has been dealt with.
	drained chan struct{}
	// over says that the process has ended and what comes is read and dropped.
	over bool
}

func newStdio(bufs *buffers, log *slog.Logger, park *parking) *stdio {
	return &stdio{bufs: bufs, slog: log, park: park}
}

// stdioConfig says what streams a process gets.
type stdioConfig struct {
	tty, openStdin, stdinOnce, lingers bool
	capture                            int // bytes
	log                                LogConfig
}

// open makes the pipes and opens the log. The process's ends are the caller's.
// After an error, or when there will be no process, call abort.
func (s *stdio) open(c stdioConfig) (Stdio, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tty, s.stdinOnce, s.lingers, s.config = c.tty, c.stdinOnce, c.lingers, c.log
	if err := s.openLog(c.log); err != nil {
		return Stdio{}, err
	}
	var child Stdio
	if c.tty {
		return child, nil
	}
	err := s.openOutput(streamStdout, &child.Out)
	switch {
	case err != nil:
	case c.capture > 0: // as they come: one pipe keeps their order
		s.capture, child.Err = &capture{limit: c.capture}, child.Out
	default:
		err = s.openOutput(streamStderr, &child.Err)
	}
	if err == nil && c.openStdin {
		child.In, s.stdin, err = pipe("stdin", 1)
	}
	if err != nil {
		child.close()
		return Stdio{}, err
	}
	return child, nil
}

func (s *stdio) openLog(c LogConfig) error {
	switch c.Driver {
	case "", "none":
		return nil
	case "json-file":
		log, err := newJSONLog(c, &s.bufs.entries, s.slog)
		s.log = log
		return err
	}
	return fmt.Errorf("log driver %q: %w", c.Driver, errdefs.ErrUnsupported)
}

func (s *stdio) openOutput(kind streamKind, childEnd **os.File) error {
	name := "stdout"
	if kind == streamStderr {
		name = "stderr"
	}
	child, own, err := pipe(name, 0)
	if err != nil {
		return err
	}
	*childEnd = child
	return s.addOutput(kind, name, own)
}

func (s *stdio) addOutput(kind streamKind, name string, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return err
	}
	o := &output{kind: kind, file: file, raw: raw, drained: make(chan struct{})}
	o.stream.name = name
	s.outputs = append(s.outputs, o)
	return nil
}

// pipe makes a pipe whose end number own (0 to read from, 1 to write to) is
// ours and pollable; the other one is blocking, as programs expect.
func pipe(name string, own int) (child, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(fds[own], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[1-own]), name), os.NewFile(uintptr(fds[own]), name), nil
}

func (s Stdio) close() {
	for _, f := range []*os.File{s.In, s.Out, s.Err} {
		if f != nil {
			f.Close() // twice where one pipe is both outputs, which does no harm
		}
	}
}

// start begins to serve a running process. console is the master of its
// terminal, or nil; it becomes the stdio's, also on error.
func (s *stdio) start(console *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if console != nil {
		defer console.Close()
		if err := s.openConsole(console); err != nil {
			return err
		}
	}
	s.state = stdioLive
	for _, a := range s.attached {
		a.wake()
	}
	for _, o := range s.outputs {
		s.read(o)
	}
	return nil
}

// read has an output read to its end.
func (s *stdio) read(o *output) {
	s.park.reads(s, 1)
	go func() {
		defer s.park.reads(s, -1)
		s.park.move(func() bool { return s.run(o) })
	}()
}

func (s *stdio) openConsole(console *os.File) error {
	own, err := pollable(console)
	if err != nil {
		return err
	}
	if err := s.addOutput(streamStdout, "stdout", own); err != nil {
		return err
	}
	s.stdin = own
	// A program may close its terminal and open it again later; while nobody
	// has it open the master would read as ended.
	s.slave, err = openSlave(own)
	return err
}

// openSlave opens a terminal's other side without looking up a path
// (TIOCGPTPEER, ioctl_tty(2)).
func openSlave(master *os.File) (*os.File, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd uintptr
	var inner error
	err = raw.Control(func(m uintptr) {
		const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
		var errno syscall.Errno
		if fd, _, errno = unix.Syscall(unix.SYS_IOCTL, m, unix.TIOCGPTPEER, flags); errno != 0 {
			inner = errno
		}
	})
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	return os.NewFile(fd, "terminal"), nil
}

// abort closes everything of a process that does not run.
func (s *stdio) abort() {
	for _, o := range s.outputs {
		o.file.Close()
	}
	s.closeLog()
	s.end()
}

func (s *stdio) closeLog() {
	if s.log == nil {
		return
	}
	if err := s.log.close(); err != nil {
		s.slog.Warn("log is incomplete", "path", s.log.file.path, "cause", err)
	}
}

// end lets go of stdin, the terminal and the clients.
func (s *stdio) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = stdioEnded
	if s.stdin != nil && !s.tty {
		s.stdin.Close()
	}
	s.stdin = nil
	if s.slave != nil {
		s.slave.Close()
		s.slave = nil
	}
	for _, a := range s.attached {
		a.wake()
	}
	s.attached = nil
}

// drain is called once, after the process's end: it returns when everything
// the process wrote is in the log and handed to the clients. It does not wait
// for clients, nor for other processes that hold the same pipes.
func (s *stdio) drain() {
	s.mu.Lock()
	s.state = stdioEnding
	for _, a := range s.attached {
		a.hurry()
	}
	if s.stdin != nil {
		s.stdin.SetWriteDeadline(longAgo())
	}
	s.mu.Unlock()
	for _, o := range s.outputs {
		o.file.SetReadDeadline(longAgo())
	}
	for _, o := range s.outputs {
		<-o.drained
	}
	s.closeLog()
	s.end()
}

// run reads one stream to its end, or until the keeper is handed over. It is the
// stream's only reader.
func (s *stdio) run(o *output) (over bool) {
	if !o.over {
		if !s.copyLive(o) {
			return false
		}
		if s.log != nil {
			s.log.end(&o.stream, time.Now())
		}
		o.over = true
		close(o.drained)
	}
	if s.lingers && !s.discard(o) {
		return false
	}
	o.file.Close()
	return true
}

// copyLive copies until the end of the stream, or until the process has exited
// and the stream is empty. It is false when it was interrupted by a hand-over.
func (s *stdio) copyLive(o *output) bool {
	var c *chunk
	var n int
	var failure error
	try := func(fd uintptr) bool {
		c, n, failure = s.bufs.readOnce(fd)
		if errors.Is(failure, unix.EAGAIN) {
			if s.log != nil {
				s.log.flush()
			}
			return false
		}
		return true
	}
	for {
		if err := o.raw.Read(try); err != nil {
			if s.park.isOn() {
				return false
			}
			break // woken: the process has exited
		}
		if failure != nil {
			return true
		}
		s.deliver(o, c, n)
	}
	// Nothing that the process wrote is still under way; others may go on
	// writing, so this is bounded by what is there now.
	left := s.readable(o)
	for left > 0 {
		if err := o.raw.Control(func(fd uintptr) { try(fd) }); err != nil || failure != nil {
			return true
		}
		left -= n
		s.deliver(o, c, n)
	}
	return true
}

// maxTerminalBuffer is more than the kernel keeps of a terminal's output, and
// is used because it does not tell how much there is (tty_buffer.c: 64 KiB, and
// the line discipline's 4 KiB).
const maxTerminalBuffer = 256 << 10

// readable is how much can be read without waiting.
func (s *stdio) readable(o *output) int {
	if s.tty {
		return maxTerminalBuffer
	}
	n := 0
	o.raw.Control(func(fd uintptr) {
		if size, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			n = size
		}
	})
	return n
}

// deliver logs a piece of output and sends it to the clients.
func (s *stdio) deliver(o *output, c *chunk, n int) {
	defer s.bufs.put(c)
	if s.log != nil {
		s.log.add(&o.stream, c.payload(n), time.Now())
	}
	if s.capture != nil {
		s.capture.add(c.payload(n))
	}
	s.mu.Lock()
	attached := s.attached
	s.mu.Unlock()
	if len(attached) == 0 {
		return
	}
	if s.log != nil {
		s.log.flush() // a client may keep us waiting
	}
	frame := c.frame(o.kind, n)
	if s.tty {
		frame = c.payload(n)
	}
	for _, a := range attached {
		if a.wants(o.kind) {
			a.send(frame)
		}
	}
}

// discard reads to the end; it is false when interrupted by a hand-over.
func (s *stdio) discard(o *output) bool {
	o.file.SetReadDeadline(time.Time{})
	for !s.park.isOn() { // looked at after the deadline is off: see interrupt
		c, _, err := s.bufs.read(o.raw)
		if err != nil {
			return !s.park.isOn()
		}
		s.bufs.put(c)
	}
	return false
}

// attach adds a client, unless the process has exited.
func (s *stdio) attach(a *attachment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state > stdioLive {
		return false
	}
	s.attached = append(slices.Clone(s.attached), a)
	return true
}

func (s *stdio) detach(a *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached = slices.DeleteFunc(slices.Clone(s.attached), func(b *attachment) bool { return a == b })
}

func (s *stdio) clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.attached)
}

func (s *stdio) currentState() stdioState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// writeStdin gives input to the process, waiting until it takes it. What a
// process does not take because it closed its stdin is dropped.
func (s *stdio) writeStdin(b []byte) {
	s.typing.Lock()
	defer s.typing.Unlock()
	if len(s.unwritten) > 0 {
		b = append(s.unwritten, b...)
		s.unwritten = nil
	}
	s.mu.Lock()
	stdin := s.stdin
	s.mu.Unlock()
	if stdin == nil || len(b) == 0 {
		return
	}
	n, err := stdin.Write(b)
	if err != nil && s.park.isOn() {
		s.unwritten = slices.Clone(b[n:])
	}
}

// stdinDone is called when a client has closed its side.
func (s *stdio) stdinDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdinOnce && !s.tty && s.stdin != nil {
		s.stdin.Close()
		s.stdin = nil
	}
}

// resize sets the terminal's size.
func (s *stdio) resize(height, width uint16) error {
	s.mu.Lock()
	console, tty := s.stdin, s.tty
	s.mu.Unlock()
	if !tty || console == nil {
		return fmt.Errorf("process has no terminal: %w", errdefs.ErrConflict)
	}
	raw, err := console.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}
