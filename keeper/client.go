package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Client speaks to a keeper. It is safe for concurrent use. Its methods fail
// with [errdefs.ErrUnavailable] when the keeper is gone, see [Client.Done];
// what the keeper itself answers is an [*Error]. A request whose context ends
// is still carried out, and List tells what came of it; a start or an exec is
// called off.
type Client struct {
	place   place
	info    Info
	session *net.UnixConn
	gone    chan struct{}
	// reaper waits for a keeper that this client started; nil otherwise.
	reaper *reaper
}

// Info describes the keeper.
func (c *Client) Info() Info { return c.info }

// Done is closed when the keeper is gone or the client has been closed.
func (c *Client) Done() <-chan struct{} { return c.gone }

// Close ends the connection. The keeper and its containers stay.
func (c *Client) Close() error {
	err := c.session.Close()
	<-c.gone
	if c.reaper != nil {
		c.reaper.close()
	}
	return err
}

// Start starts a container and returns once its program runs. When ctx ends
// before that, what has been made of it is ended, and the error is ctx's cause.
func (c *Client) Start(ctx context.Context, r *StartRequest) (Status, error) {
	var files []*os.File
	if r.Rootfs != nil {
		files = append(files, r.Rootfs)
	}
	return c.launch(ctx, opStart, key{container: r.ID}, r, files...)
}

// Exec starts another process in a running container; ctx as with Start.
func (c *Client) Exec(ctx context.Context, r *ExecRequest) (Status, error) {
	return c.launch(ctx, opExec, key{r.ContainerID, r.ExecID}, r)
}

// answerPatience is how long a keeper is waited for that is to call off a start:
// longer than it takes for that, unless it stands still.
const answerPatience = abortPatience + time.Second

// launch has the keeper make a process, and calls that off when ctx ends.
func (c *Client) launch(ctx context.Context, op string, k key, body any, files ...*os.File) (Status, error) {
	conn, err := c.place.dial(ctx)
	if err != nil {
		return Status{}, c.explain(ctx, err)
	}
	defer conn.Close()
	return c.launchOn(ctx, conn, op, k, body, files...)
}

func (c *Client) launchOn(ctx context.Context, conn *net.UnixConn, op string, k key, body any, files ...*os.File) (Status, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return Status{}, fmt.Errorf("encode %s request: %w", op, err)
	}
	finish := duringAfter(ctx, func() { conn.SetWriteDeadline(longAgo()) })
	err = writeFrame(conn, &request{Op: op, ID: k.container, ExecID: k.exec, Body: encoded}, files...)
	finish()
	if err != nil { // it is not whole, and the keeper does nothing
		return Status{}, c.explain(ctx, err)
	}
	finish = duringAfter(ctx, func() {
		conn.SetDeadline(time.Now().Add(answerPatience))
		_ = writeFrame(conn, &request{Op: opAbort}) // who does not read does not answer
	})
	answer, err := receive(conn)
	finish()
	return statusOf(answer, c.explainAborted(ctx, err))
}

// duringAfter calls f when ctx ends, until finish is called, which waits for f.
func duringAfter(ctx context.Context, f func()) (finish func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// explainAborted is explain for a start that may have been called off.
func (c *Client) explainAborted(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return c.explain(ctx, err)
	}
	var answered *Error
	if errors.As(err, &answered) {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return fmt.Errorf("%w: keeper does not answer", context.Cause(ctx))
}

func (c *Client) callStatus(ctx context.Context, r *request) (Status, error) {
	return statusOf(c.call(ctx, r))
}

// statusOf is an answer's status.
func statusOf(answer *response, err error) (Status, error) {
	if err != nil {
		return Status{}, err
	}
	if answer.Status == nil {
		return Status{}, errors.New("keeper answered without a status")
	}
	return *answer.Status, nil
}

// Signal sends a signal to a process: to a container's init when execID is "".
func (c *Client) Signal(ctx context.Context, id, execID string, sig syscall.Signal) error {
	_, err := c.call(ctx, &request{Op: opSignal, ID: id, ExecID: execID, Signal: int(sig)})
	return err
}

// Resize sets the size of a process's terminal, in characters.
func (c *Client) Resize(ctx context.Context, id, execID string, height, width uint16) error {
	_, err := c.call(ctx, &request{Op: opResize, ID: id, ExecID: execID, Height: height, Width: width})
	return err
}

// Status is what the keeper knows about one process. While the process is being
// started it waits for that to succeed, or to fail, which is ErrNotFound.
func (c *Client) Status(ctx context.Context, id, execID string) (Status, error) {
	return c.callStatus(ctx, &request{Op: opStatus, ID: id, ExecID: execID})
}

// Wait waits for a process's exit. A start that fails meanwhile is ErrNotFound.
func (c *Client) Wait(ctx context.Context, id, execID string) (Status, error) {
	return c.callStatus(ctx, &request{Op: opWait, ID: id, ExecID: execID})
}

// List is the status of every process that has been started and not forgotten,
// in no particular order.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	answer, err := c.call(ctx, &request{Op: opList})
	if err != nil {
		return nil, err
	}
	return answer.List, nil
}

// Forget removes what the keeper knows about an exited process: for a
// container's init, about everything executed in it too.
func (c *Client) Forget(ctx context.Context, id, execID string) error {
	_, err := c.call(ctx, &request{Op: opForget, ID: id, ExecID: execID})
	return err
}

// Events is a channel of exits: first those not forgotten, in no particular
// order, then each as it happens. One may come twice. The channel is closed
// when ctx is done or the keeper is gone. Nothing is lost by reading slowly.
//
// To learn the state of everything without a gap, call Events before List.
func (c *Client) Events(ctx context.Context) (<-chan Status, error) {
	conn, stop, err := c.send(ctx, &request{Op: opEvents})
	if err != nil {
		return nil, err
	}
	if _, err := receive(conn); err != nil {
		stop()
		conn.Close()
		return nil, c.explain(ctx, err)
	}
	ch := make(chan Status)
	go func() {
		defer close(ch)
		defer conn.Close()
		defer stop()
		for {
			r, err := receive(conn)
			if err != nil || r.Status == nil {
				return
			}
			select {
			case ch <- *r.Status:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// Attach opens the streams of a process, see [Stream].
func (c *Client) Attach(ctx context.Context, id, execID string, o AttachOptions) (*Stream, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	conn, stop, err := c.send(ctx, &request{Op: opAttach, ID: id, ExecID: execID, Body: body})
	if err != nil {
		return nil, err
	}
	if _, err = receive(conn); err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		stop()
		conn.Close()
		return nil, c.explain(ctx, err)
	}
	return &Stream{conn}, nil
}

// call sends a request and receives its answer.
func (c *Client) call(ctx context.Context, r *request) (*response, error) {
	conn, stop, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer stop()
	answer, err := receive(conn)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return answer, nil
}

// send opens a connection for a request. Until stop is called the end of ctx
// makes everything on the connection fail.
func (c *Client) send(ctx context.Context, r *request, files ...*os.File) (_ *net.UnixConn, stop func() bool, err error) {
	conn, err := c.place.dial(ctx)
	if err != nil {
		return nil, nil, c.explain(ctx, err)
	}
	stop = context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo()) })
	if err := writeFrame(conn, r, files...); err != nil {
		stop()
		conn.Close()
		return nil, nil, c.explain(ctx, err)
	}
	return conn, stop, nil
}

// receive reads an answer; a failure is its error.
func receive(conn *net.UnixConn) (*response, error) {
	body, files, err := readFrame(conn)
	if err != nil {
		return nil, err
	}
	closeAll(files)
	var r response
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("decode keeper's answer: %w", err)
	}
	if r.Failure != nil {
		return nil, r.Failure.err()
	}
	return &r, nil
}

// explain names the cause of an error on a connection: the caller's context, an
// answer, or a keeper that is gone.
func (c *Client) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var answered *Error
	if errors.As(err, &answered) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explainLost(err)
}

// explainLost gives the errors of a keeper that is gone their class.
func explainLost(err error) error {
	for _, cause := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE, errdefs.ErrUnavailable} {
		if errors.Is(err, cause) {
			return errdefs.WithHint(errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("keeper does not answer: %w", err)),
				"keeper.log in the run directory may say why")
		}
	}
	return fmt.Errorf("keeper: %w", err)
}

// Stream carries a process's streams as bytes, with nothing in between: its
// connection is the one to the keeper.
//
// Read returns the process's output: raw with a terminal; without one in
// Docker's frames, each a header of eight bytes (1 for stdout or 2 for stderr,
// three zeros, the length as 32 bits big endian) and the data. It ends with
// [io.EOF] when the process has exited and all its output has been read, or
// could not be started. Write goes to the process's stdin.
type Stream struct{ conn *net.UnixConn }

// Read reads output.
func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	// A keeper that closes before it has read all input resets the connection.
	if errors.Is(err, unix.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}

// Write writes input.
func (s *Stream) Write(b []byte) (int, error) { return s.conn.Write(b) }

// CloseWrite says that there is no more input. It closes the process's stdin
// if that was asked for (StdinOnce; always with Exec).
func (s *Stream) CloseWrite() error { return s.conn.CloseWrite() }

// Close detaches from the process, which goes on.
func (s *Stream) Close() error { return s.conn.Close() }

// SetDeadline sets when Read and Write give up, as in [net.Conn].
func (s *Stream) SetDeadline(t time.Time) error { return s.conn.SetDeadline(t) }

// Conn is the connection itself, for copying by splice(2) or handing it to
// another process. It stays the stream's.
func (s *Stream) Conn() *net.UnixConn { return s.conn }

// Upgrade makes the program at the path the keeper. The process stays, and what is
// attached stays attached; this client's connection ends, and a new one finds the new
// program. A program that cannot go on from this keeper is ErrUnsupported, and so is
// a keeper that cannot be upgraded. After an error nothing has changed.
func (c *Client) Upgrade(ctx context.Context, binary string) error {
	body, err := json.Marshal(upgradeRequest{binary})
	if err != nil {
		return err
	}
	conn, stop, err := c.send(ctx, &request{Op: opUpgrade, Body: body})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer stop()
	if _, err := receive(conn); err != nil { // it has been tried
		return c.explain(ctx, err)
	}
	// The new program closes the connection; a second answer says why there is none.
	_, err = receive(conn)
	var failed *Error
	if errors.As(err, &failed) {
		return err
	}
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Succeed makes this client, of a keeper that has become another program, take over
// from its client of before: who has started a keeper reaps it.
func (c *Client) Succeed(old *Client) {
	if c.info.Pid == old.info.Pid && c.reaper == nil {
		c.reaper, old.reaper = old.reaper, nil
	}
}
