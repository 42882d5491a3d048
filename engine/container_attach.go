package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
	"github.com/moby/moby/api/types/events"
)

// ContainerAttach attaches to a container's stdio. Attached before the start
// it sees the first byte. With Logs the log so far comes first; lines printed
// in the very moment of attaching may then come twice.
func (e *Engine) ContainerAttach(ctx context.Context, ref string, opt AttachOptions) (Stream, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	// With act: an exit being settled would still have the old run's streams.
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	rec := c.rec
	switch st := rec.State.Status; st {
	case statePaused:
		return nil, errdefs.WithHint(conflictf("container %s is paused", short(c.id)),
			"unpause the container before attaching")
	case stateRestarting:
		return nil, conflictf("container %s is restarting, wait until it runs", short(c.id))
	case stateRemoving, stateDead:
		return nil, conflictf("container %s is %s", short(c.id), st)
	}
	if !opt.Stream {
		return e.replayOnly(ctx, ref, rec, opt)
	}
	s, err := e.openStream(ctx, c.id, "", rec.Config.Tty, keeper.AttachOptions{
		Stdin: opt.Stdin && rec.Config.OpenStdin, Stdout: opt.Stdout, Stderr: opt.Stderr, BeforeStart: true,
	}, opt.DetachKeys)
	if err != nil {
		return nil, fmt.Errorf("attach to container %s: %w", short(c.id), err)
	}
	s.onDetach = func() { e.emitContainer(c.snapshot(), events.ActionDetach, nil) }
	if opt.Logs {
		if s.replay, err = e.replay(ctx, ref, opt); err != nil {
			s.Close()
			return nil, err
		}
	}
	e.emitContainer(rec, events.ActionAttach, nil)
	return s, nil
}

// replay is the log so far as the stream would have carried it. It is read as
// fast as the client takes it: a log can be bigger than the memory.
func (e *Engine) replay(ctx context.Context, ref string, opt AttachOptions) (*replay, error) {
	pr, pw := io.Pipe()
	out := &frameWriter{out: bufio.NewWriter(pw), begun: make(chan struct{})}
	ended := make(chan error, 1)
	e.wg.Go(func() {
		defer context.AfterFunc(e.ctx, func() { pw.CloseWithError(e.ctx.Err()) })()
		err := e.ContainerLogs(ctx, ref, LogsOptions{Stdout: opt.Stdout, Stderr: opt.Stderr, Tail: -1}, out)
		ended <- err
		pw.CloseWithError(err)
	})
	select {
	case <-out.begun:
		return &replay{pr}, nil
	case err := <-ended:
		return &replay{pr}, err
	}
}

// replay is a log being read. It is closed by who reads it.
type replay struct{ *io.PipeReader }

// frameWriter is a LogWriter that frames lines as attached streams are.
type frameWriter struct {
	out   *bufio.Writer
	begun chan struct{} // closed when the request is known to be good
	tty   bool
}

func (w *frameWriter) Begin(tty bool) error { w.tty = tty; close(w.begun); return nil }
func (w *frameWriter) Flush() error         { return w.out.Flush() }

func (w *frameWriter) WriteLog(stream LogStream, p []byte) error {
	if !w.tty {
		header := [8]byte{0: byte(stream)}
		binary.BigEndian.PutUint32(header[4:], uint32(len(p)))
		if _, err := w.out.Write(header[:]); err != nil {
			return err
		}
	}
	_, err := w.out.Write(p)
	return err
}

// replayStream is an attachment to the log alone.
type replayStream struct {
	io.ReadCloser
	tty bool
}

func (s *replayStream) Write([]byte) (int, error) { return 0, errors.New("not attached to stdin") }
func (s *replayStream) CloseWrite() error         { return nil }
func (s *replayStream) TTY() bool                 { return s.tty }

func (e *Engine) replayOnly(ctx context.Context, ref string, rec *record, opt AttachOptions) (Stream, error) {
	if !opt.Logs {
		return &replayStream{ReadCloser: io.NopCloser(new(bytes.Buffer)), tty: rec.Config.Tty}, nil
	}
	r, err := e.replay(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	return &replayStream{ReadCloser: r, tty: rec.Config.Tty}, nil
}

// ContainerResize sets the size of a running container's terminal, in
// characters.
func (e *Engine) ContainerResize(ctx context.Context, ref string, height, width uint) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	rec := c.snapshot()
	if rec.State.Status != stateRunning && rec.State.Status != statePaused {
		return errNotRunning(c.id)
	}
	if err := e.keeper.resize(ctx, c.id, "", height, width); err != nil {
		return fmt.Errorf("resize container %s: %w", short(c.id), err)
	}
	e.emitContainer(rec, events.ActionResize, map[string]string{"height": fmt.Sprint(height), "width": fmt.Sprint(width)})
	return nil
}
