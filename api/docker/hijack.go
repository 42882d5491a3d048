package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/berth-containers/berth/engine"
	"golang.org/x/sys/unix"
)

// errEnough ends a callback loop whose caller has what it wants.
var errEnough = errors.New("enough")

// ended forgives an error that only says that the answer was ended: by us, by
// the client that left or by the server that shuts down.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, errEnough) || ctx.Err() != nil {
		return nil
	}
	return err
}

// duplex is a connection taken over from HTTP: what the client sends is a
// process' input, what it reads the output.
type duplex struct {
	net.Conn
	in io.Reader // what the client sent right after its headers, then the rest
}

// hijack takes the connection over and tells the client: 101 when it asked for
// an upgrade, else, as clients before API 1.20 expect, 200.
func hijack(w *response, r *request, mediaType string) (*duplex, error) {
	// A body declared but not read must not be taken for input.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, invalid("read request body: %w", err)
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	w.started = true
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n\r\n"
	if r.wantsUpgrade() {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType +
			"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: " + currentVersion.String() + "\r\n\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return nil, errors.Join(fmt.Errorf("take over connection: %w", err), conn.Close())
	}
	// The buffered reader itself would end the request's context at EOF, that
	// is when a client has no more input but still wants the output.
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over connection: %w", err), conn.Close())
	}
	return &duplex{Conn: conn, in: io.MultiReader(bytes.NewReader(early), conn)}, nil
}

// wantsUpgrade says whether the client asked to switch protocols.
func (r *request) wantsUpgrade() bool { return r.Header.Get("Upgrade") != "" }

// carry takes the connection over and carries a process' input and output on it
// until one of them ends. It closes process.
func (s *Server) carry(ctx context.Context, w *response, r *request, process engine.Stream, stdin bool) error {
	s.hijacked.Add(1)
	defer s.hijacked.Done()
	client, err := hijack(w, r, streamType(process.TTY(), r.version))
	if err != nil {
		return errors.Join(err, process.Close())
	}
	client.carry(ctx, process, stdin)
	return nil
}

// carry copies between client and process until the process' output ends, the
// client is gone or ctx ends. It closes both. With stdin false the client's
// input goes nowhere and its end ends nothing.
func (d *duplex) carry(ctx context.Context, process engine.Stream, stdin bool) {
	stop := context.AfterFunc(ctx, func() { _ = process.Close() })
	defer stop()
	input := make(chan struct{})
	go func() {
		defer close(input)
		d.feed(process, stdin)
	}()
	_, _ = io.Copy(d.Conn, process)
	_ = process.Close()
	_ = d.Close() // wakes feed
	<-input
}

// feed copies the client's input to the process. The client may end its input
// and still read the output; when it has left altogether the process is
// detached.
func (d *duplex) feed(process engine.Stream, stdin bool) {
	if stdin {
		if _, err := io.Copy(process, d.in); err == nil {
			_ = process.CloseWrite()
		}
	}
	// When the process takes no input (any more), go on reading so as to
	// notice that the client leaves.
	_, _ = io.Copy(io.Discard, d.in)
	if d.awaitHangup() {
		_ = process.Close()
	}
}

// awaitHangup waits, after the client's input has ended, until the connection
// is closed in both directions (POLLHUP, poll(2)); false when that cannot be
// known or our side closed it. The runtime's poller wakes it on each change of
// the socket's state; nothing is polled in between.
func (d *duplex) awaitHangup() bool {
	sc, ok := d.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		gone = err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		return gone
	})
	return err == nil && gone
}
