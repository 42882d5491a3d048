package keeper

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attachment is a client's connection that carries the streams of a process.
//
// A client that reads slowly slows the process down, as with a pipe. One that
// is gone does not, and none delays the announcement of the process's exit by
// more than hurryTime: what a client has not taken by then is set aside and
// written by the client's own goroutine.
type attachment struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	want AttachOptions

	// mu keeps frames whole; it is held while a frame is being written.
	mu sync.Mutex
	// late is set once a write was cut off by hurry; from then on frames are
	// added to rest.
	late bool
	rest []byte
	// broken is set when the client takes nothing any more.
	broken bool

	// idle says that the client sends nothing, or nothing more. Only serve's.
	idle bool
}

func newAttachment(conn *net.UnixConn, want AttachOptions) (*attachment, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &attachment{conn: conn, raw: raw, want: want, idle: !want.Stdin}, nil
}

// wants says whether the client asked for the stream.
func (a *attachment) wants(kind streamKind) bool {
	if kind == streamStderr {
		return a.want.Stderr
	}
	return a.want.Stdout
}

// send writes a frame, waiting for the client as long as it may.
func (a *attachment) send(frame []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken {
		return
	}
	if !a.late {
		if len(a.rest) > 0 { // what a hand-over interrupted comes first
			frame = append(a.rest, frame...)
			a.rest = nil
		}
		n, err := a.conn.Write(frame)
		if err == nil {
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			a.broken = true
			return
		}
		a.late = true
		frame = frame[n:]
	}
	a.rest = append(a.rest, frame...)
}

// longAgo is a deadline that has passed.
func longAgo() time.Time { return time.Unix(1, 0) }

// hurryTime is how long after the exit of the process its clients may take to
// read what their sockets cannot hold.
const hurryTime = 100 * time.Millisecond

// hurry makes send wait no longer than that.
func (a *attachment) hurry() { a.conn.SetWriteDeadline(time.Now().Add(hurryTime)) }

// wake makes serve look at the state of the process.
func (a *attachment) wake() { a.conn.SetReadDeadline(longAgo()) }

// serve carries the client's input to the process until the client is gone or
// the process has ended and the client has all output; it owns the connection. It
// is false when interrupted by a hand-over, and the connection then still open.
func (a *attachment) serve(io *stdio) (over bool) {
	defer func() {
		if over {
			io.detach(a)
			a.conn.Close()
		}
	}()
	for {
		a.conn.SetReadDeadline(time.Time{})
		if io.park.isOn() { // looked at after the deadline is off: see interrupt
			return false
		}
		switch state := io.currentState(); {
		case state == stdioEnded:
			return a.writeRest(io)
		case state == stdioLive && !a.idle:
			if a.copyStdin(io) {
				a.idle = true
				io.stdinDone()
			}
		case a.hungUp() && (a.idle || io.currentState() != stdioLive):
			// Else it is gone, but the process started meanwhile, and what it
			// sent before is still to be read.
			return true
		}
	}
}

// copyStdin copies until the client has closed its side; that is true. It is
// false when woken. What the process does not take is dropped.
func (a *attachment) copyStdin(io *stdio) (closed bool) {
	for {
		c, n, err := io.bufs.read(a.raw)
		if n > 0 {
			io.writeStdin(c.payload(n))
			io.bufs.put(c)
			continue
		}
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
}

// hungUp waits until the client is gone altogether; that is true. Having
// closed only its sending side is not being gone. It is false when woken.
func (a *attachment) hungUp() bool {
	err := a.raw.Read(func(fd uintptr) bool {
		return polled(fd, 0)&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// writeRest writes what the client has not taken yet; it is false when interrupted
// by a hand-over.
func (a *attachment) writeRest(io *stdio) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn.SetWriteDeadline(time.Time{})
	if io.park.isOn() {
		return false
	}
	if len(a.rest) > 0 && !a.broken {
		n, err := a.conn.Write(a.rest)
		if err != nil && io.park.isOn() {
			a.rest = a.rest[n:]
			return false
		}
		a.broken = err != nil
	}
	a.rest = nil
	return true
}
