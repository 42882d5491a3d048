package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// stampLayout is how Docker writes a log line's time: RFC 3339 with all nine
// digits.
const stampLayout = "2006-01-02T15:04:05.000000000Z07:00"

// logReader reads a log's entries, each once and in order, over rotations.
type logReader struct {
	files *logFiles
	opt   LogsOptions
	out   LogWriter
	// each, when not nil, gets every entry in place of out. What it is given is
	// only valid during the call.
	each func(*logEntry) error

	queue   []*os.File // still to be read, oldest first; [0] is being read
	rest    []byte     // the beginning of an entry not yet whole
	buf     []byte
	scratch []byte
	stamped []byte
	past    bool  // an entry after opt.Until has been seen
	read    int64 // bytes of queue[0] that have been dealt with, when read from its beginning
}

func newLogReader(files *logFiles, opt LogsOptions, out LogWriter) (*logReader, error) {
	r := &logReader{files: files, opt: opt, out: out, buf: make([]byte, 64<<10)}
	if opt.Tail >= 0 {
		files.tail = &opt.Tail
	}
	queue, err := files.open()
	files.tail = nil
	if err != nil {
		return nil, err
	}
	r.queue = queue
	if opt.Tail >= 0 && len(queue) > 0 {
		r.queue, err = seekTail(queue, opt.Tail)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *logReader) close() { closeFiles(r.queue) }

// readAll writes out what is there. Afterwards the newest file is at its end.
func (r *logReader) readAll(ctx context.Context) error {
	if len(r.queue) == 0 { // nothing was there yet
		more, err := r.files.open()
		if err != nil || len(more) == 0 {
			return err
		}
		r.queue = more
	}
	for !r.past {
		// Whether the file is final has to be known before its end is seen.
		final := len(r.queue) > 1 || r.files.rotated(r.queue[0])
		if err := r.readFile(ctx, r.queue[0]); err != nil || !final {
			return err
		}
		if more, err := r.advance(); err != nil || !more {
			return err
		}
	}
	return nil
}

// advance goes to the file after the one just read. It says false while there
// is none: the keeper is between renaming and opening, or the log was removed.
func (r *logReader) advance() (bool, error) {
	if len(r.queue) == 1 {
		more, err := r.files.next(r.queue[0])
		if err != nil || len(more) == 0 {
			return false, err
		}
		r.queue = append(r.queue, more...)
	}
	r.queue[0].Close()
	r.queue, r.read = r.queue[1:], 0
	r.rest = r.rest[:0] // a torn entry that nobody will complete
	return true, nil
}

// readFile writes out f from where it is to its end.
func (r *logReader) readFile(ctx context.Context, f *os.File) error {
	for !r.past {
		n, err := f.Read(r.buf)
		if n > 0 {
			if err := r.lines(r.buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// lines writes out the whole entries of b after rest, and keeps what is left.
func (r *logReader) lines(b []byte) error {
	for !r.past {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			r.rest = append(r.rest, b...)
			return nil
		}
		line := b[:i]
		if len(r.rest) > 0 {
			line = append(r.rest, line...)
			r.rest = r.rest[:0]
		}
		b = b[i+1:]
		size := int64(len(line)) + 1
		entry, err := decodeEntry(line, r.scratch)
		if err != nil {
			r.read += size
			continue // a line torn by a crash
		}
		r.scratch = entry.text
		if err := r.emit(&entry); err != nil {
			return err
		}
		r.read += size
	}
	return nil
}

func (r *logReader) emit(e *logEntry) error {
	switch {
	case !r.opt.Until.IsZero() && e.at.After(r.opt.Until):
		r.past = true
		return nil
	case !r.opt.Since.IsZero() && e.at.Before(r.opt.Since),
		e.stream == Stdout && !r.opt.Stdout,
		e.stream == Stderr && !r.opt.Stderr:
		return nil
	case r.each != nil:
		return r.each(e)
	case !r.opt.Timestamps && !r.opt.Details:
		return r.out.WriteLog(e.stream, e.text)
	}
	r.stamped = r.stamped[:0]
	if r.opt.Timestamps {
		r.stamped = append(e.at.UTC().AppendFormat(r.stamped, stampLayout), ' ')
	}
	if r.opt.Details {
		r.stamped = append(append(r.stamped, detailsText(e.attrs)...), ' ')
	}
	r.stamped = append(r.stamped, e.text...)
	return r.out.WriteLog(e.stream, r.stamped)
}

// untilPassed fires when opt.Until has passed; nil never does.
func (r *logReader) untilPassed() (<-chan time.Time, func()) {
	if r.opt.Until.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(r.opt.Until))
	return timer.C, func() { timer.Stop() }
}
