package docker

import (
	"bufio"
	"encoding/binary"
	"net/http"
	"strconv"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types"
)

// containerLogs answers GET /containers/{id}/logs.
func (s *Server) containerLogs(w *response, r *request) error {
	opt, err := r.logsOptions()
	if err != nil {
		return err
	}
	ctx, cancel := s.stream(r)
	defer cancel()
	out := &logWriter{w: w, version: r.version, lines: bufio.NewWriterSize(w, 32<<10)}
	if err := s.engine.ContainerLogs(ctx, r.PathValue("id"), opt, out); err != nil {
		return ended(ctx, err)
	}
	return out.Flush()
}

// logsOptions reads the parameters of a log request.
func (r *request) logsOptions() (engine.LogsOptions, error) {
	opt := engine.LogsOptions{
		Stdout:     r.boolean("stdout"),
		Stderr:     r.boolean("stderr"),
		Follow:     r.boolean("follow"),
		Timestamps: r.boolean("timestamps"),
		Details:    r.boolean("details"),
		Tail:       -1,
	}
	if !opt.Stdout && !opt.Stderr {
		return opt, invalid("Bad parameters: you must choose at least one stream")
	}
	// Like dockerd: what is not a number ("all") means all.
	if n, err := strconv.Atoi(r.value("tail")); err == nil {
		opt.Tail = n
	}
	var err error
	if opt.Since, err = r.time("since"); err != nil {
		return opt, err
	}
	opt.Until, err = r.time("until")
	return opt, err
}

// logWriter writes log lines to a client: raw with a terminal, else in stdcopy
// frames (a byte for the stream, three zero, a big endian length, the line).
type logWriter struct {
	w       *response
	version version
	lines   *bufio.Writer
	tty     bool
}

// Begin sends the headers.
func (l *logWriter) Begin(tty bool) error {
	l.tty = tty
	l.w.Header().Set("Content-Type", streamType(tty, l.version))
	l.w.WriteHeader(http.StatusOK)
	return l.w.flush()
}

// WriteLog buffers one line.
func (l *logWriter) WriteLog(stream engine.LogStream, p []byte) error {
	if !l.tty {
		frame := [8]byte{0: byte(stream)}
		binary.BigEndian.PutUint32(frame[4:], uint32(len(p)))
		if _, err := l.lines.Write(frame[:]); err != nil {
			return err
		}
	}
	_, err := l.lines.Write(p)
	return err
}

// Flush sends the buffered lines.
func (l *logWriter) Flush() error {
	if err := l.lines.Flush(); err != nil {
		return err
	}
	return l.w.flush()
}

// streamType is the media type of a process' output. Before API 1.42 both
// kinds were announced as raw.
func streamType(tty bool, v version) string {
	if tty || v < 42 {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}
