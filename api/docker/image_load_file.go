package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// imageLoadFile answers POST /berth/images/load, which is POST /images/load with an
// open file in the place of a body: a client on a unix socket asks for an upgrade,
// is told 101, sends one byte with the descriptor (SCM_RIGHTS, unix(7)) and gets a
// usual answer over the same connection. The engine reads the archive itself, only
// what it needs of it and in the order it likes, and nothing of it is sent. It is a
// descriptor and no path: it is the client's right to read the file that counts, and
// the engine may see other files than the client.
func (s *Server) imageLoadFile(w *response, r *request) error {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || addr.Network() != "unix" || !r.wantsUpgrade() {
		return errdefs.WithHint(invalid("an open file can be sent on a unix socket only, after an upgrade"), "send the archive to /images/load")
	}
	s.hijacked.Add(1)
	defer s.hijacked.Done()
	client, err := hijack(w, r, "application/json")
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := s.stream(r)
	defer cancel()
	out := &takenOver{header: w.Header(), w: bufio.NewWriter(client.Conn)}
	answer := &response{ResponseWriter: out, operation: w.operation}
	file, err := receiveFile(ctx, client)
	if err == nil {
		defer file.Close()
		defer client.watch(cancel)()
		err = s.loadImages(ctx, answer, r, file)
	}
	if err = w.cancelled(err); err != nil { // it is w that a cancellation interrupts
		s.fail(answer, r.Request, err)
	}
	return ended(ctx, out.Close()) // the client may be gone
}

// receiveFile waits for the client's file.
func receiveFile(ctx context.Context, client *duplex) (*os.File, error) {
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	conn, ok := client.Conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("receive file: the connection is a %T", client.Conn)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("receive file: %w", err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err == nil && len(messages) > 0 {
		fds, err = unix.ParseUnixRights(&messages[0])
	}
	if err != nil || len(fds) == 0 {
		return nil, invalid("no file came with the request")
	}
	for _, fd := range fds[1:] { // where alignment leaves room for another
		unix.Close(fd)
	}
	file := os.NewFile(uintptr(fds[0]), "archive")
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errdefs.WithHint(invalid("what came with the request is not a regular file"), "send the archive to /images/load")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// watch calls gone when the client closes the connection, until stop is called.
func (d *duplex) watch(gone func()) (stop func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, d.in)
		gone()
	}()
	return func() {
		_ = d.Close()
		<-ended
	}
}

// takenOver writes a usual answer over a connection that was taken over, in chunks:
// an end without the last one is that of an engine that died.
type takenOver struct {
	header http.Header
	w      *bufio.Writer
	chunks io.WriteCloser // nil until the answer has begun
}

// Header implements [http.ResponseWriter].
func (t *takenOver) Header() http.Header { return t.header }

// WriteHeader implements [http.ResponseWriter].
func (t *takenOver) WriteHeader(status int) {
	if t.chunks != nil {
		return
	}
	t.header.Set("Transfer-Encoding", "chunked")
	t.header.Set("Connection", "close")
	fmt.Fprintf(t.w, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = t.header.Write(t.w) // like all of these it fails again in Flush
	_, _ = t.w.WriteString("\r\n")
	t.chunks = httputil.NewChunkedWriter(t.w)
}

// Write implements [io.Writer].
func (t *takenOver) Write(p []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	return t.chunks.Write(p)
}

// FlushError sends what was written.
func (t *takenOver) FlushError() error { return t.w.Flush() }

// Close ends the answer.
func (t *takenOver) Close() error {
	t.WriteHeader(http.StatusOK)
	err := t.chunks.Close()
	_, werr := t.w.WriteString("\r\n") // no trailers
	return errors.Join(err, werr, t.w.Flush())
}
