package keeper

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/berth-containers/berth/errdefs"
)

// maxLogLine is how long a line may become in one log entry; what is longer is
// split into entries of which only the last has the newline. Docker's number.
const maxLogLine = 16 << 10

// logFlushSize is how many bytes of entries are gathered at most before they
// are written.
const logFlushSize = 64 << 10

// jsonLog turns the output of a container into entries of Docker's json-file
// format and gathers them until a stream has nothing more to read, so that one
// write serves a burst of lines and a single line is visible at once. Both
// streams' readers use it, at the same time.
type jsonLog struct {
	buffers *sync.Pool // of *bytes.Buffer

	// attrs is put between an entry's stream and its time.
	attrs string

	mu   sync.Mutex
	file *logFile
	// queue, when not nil, writes to the file in its own time.
	queue *logQueue
	// pending holds whole entries not yet written; nil when there are none.
	pending *bytes.Buffer
}

// newJSONLog opens the log that the configuration describes.
func newJSONLog(c LogConfig, buffers *sync.Pool, log *slog.Logger) (*jsonLog, error) {
	if c.Attrs != "" && !json.Valid([]byte(c.Attrs)) || c.MaxBuffer < 0 {
		return nil, fmt.Errorf("log %s: attributes %q, buffer %d: %w", c.Path, c.Attrs, c.MaxBuffer, errdefs.ErrInvalid)
	}
	file, err := openLogFile(c, log)
	if err != nil {
		return nil, err
	}
	l := &jsonLog{buffers: buffers, file: file}
	if c.Attrs != "" {
		l.attrs = `,"attrs":` + c.Attrs
	}
	if c.MaxBuffer > 0 {
		l.queue = newLogQueue(file, buffers, c.MaxBuffer)
	}
	return l, nil
}

// logStream is the unfinished line of one stream.
type logStream struct {
	name string
	rest []byte
	// split says that rest continues a line whose beginning is in the log
	// already, with the time firstAt.
	split   bool
	firstAt time.Time
}

// add logs data, which was read at the given time.
func (l *jsonLog) add(s *logStream, data []byte, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		l.pending = l.buffers.Get().(*bytes.Buffer)
	}
	stamp := at.UTC().AppendFormat(nil, time.RFC3339Nano)
	for len(data) > 0 {
		room := maxLogLine - len(s.rest)
		if i := bytes.IndexByte(data[:min(len(data), room)], '\n'); i >= 0 {
			l.line(s, data[:i+1], stamp)
			data = data[i+1:]
			continue
		}
		if len(data) < room {
			s.rest = append(s.rest, data...)
			break
		}
		l.part(s, data[:room], at)
		data = data[room:]
	}
	if l.pending.Len() >= logFlushSize {
		l.flushLocked()
	}
}

// line logs the end of a line.
func (l *jsonLog) line(s *logStream, end, stamp []byte) {
	if s.split {
		stamp = s.firstAt.AppendFormat(nil, time.RFC3339Nano)
	}
	appendEntry(l.pending, s.rest, end, s.name, l.attrs, stamp)
	s.rest, s.split = nil, false
}

// part logs a piece of a line that is too long. All pieces carry the time of
// the first, as with Docker.
func (l *jsonLog) part(s *logStream, piece []byte, at time.Time) {
	if !s.split {
		s.split, s.firstAt = true, at.UTC()
	}
	appendEntry(l.pending, s.rest, piece, s.name, l.attrs, s.firstAt.AppendFormat(nil, time.RFC3339Nano))
	s.rest = nil
}

// end logs what a stream left without a newline.
func (l *jsonLog) end(s *logStream, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(s.rest) > 0 {
		if l.pending == nil {
			l.pending = l.buffers.Get().(*bytes.Buffer)
		}
		l.part(s, nil, at)
	}
	l.flushLocked()
}

// flush writes what is pending.
func (l *jsonLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
}

func (l *jsonLog) flushLocked() {
	if l.pending == nil {
		return
	}
	if l.queue != nil {
		l.queue.add(l.pending)
	} else {
		l.file.write(l.pending.Bytes())
		giveBack(l.buffers, l.pending)
	}
	l.pending = nil
}

// settle writes what is pending and returns what has been lost and not told of. Nothing
// is added meanwhile. A disk too slow for the deadline is an error.
func (l *jsonLog) settle(deadline time.Time) (loss, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
	if l.queue != nil && !l.queue.settle(deadline) {
		return loss{}, errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("log %s: its disk is too slow", l.file.path))
	}
	return l.file.lost, nil
}

// goOn begins with a loss of before.
func (l *jsonLog) goOn(lost loss) { l.file.lost = lost }

// giveBack returns a buffer to the pool, unless it has become big.
func giveBack(pool *sync.Pool, b *bytes.Buffer) {
	if b.Cap() <= 4*logFlushSize {
		b.Reset()
		pool.Put(b)
	}
}

// close writes what is pending and closes the file.
func (l *jsonLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
	if l.queue != nil {
		l.queue.close()
		l.queue = nil // an exited process's log is asked to settle as well
	}
	return l.file.close()
}

// appendEntry writes one entry: {"log":"…","stream":"…","time":"…"} and a
// newline, byte for byte as Docker's jsonfilelog does. The text is head
// followed by tail; attrs is "" or ,"attrs":{…}.
func appendEntry(b *bytes.Buffer, head, tail []byte, stream, attrs string, stamp []byte) {
	b.WriteString(`{"log":"`)
	if len(head) > 0 {
		// A character may lie across the two.
		head = append(head, tail...)
		tail = nil
	}
	escape(b, head)
	escape(b, tail)
	b.WriteString(`","stream":"`)
	b.WriteString(stream)
	b.WriteByte('"')
	b.WriteString(attrs)
	b.WriteString(`,"time":"`)
	b.Write(stamp)
	b.WriteString("\"}\n")
}

// escape writes s as the inside of a JSON string: besides what JSON demands it
// escapes <, > and & and the two Unicode line separators, and it replaces
// bytes that are not UTF-8.
func escape(b *bytes.Buffer, s []byte) {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '\\' && c != '"' && c != '<' && c != '>' && c != '&' {
				i++
				continue
			}
			b.Write(s[start:i])
			switch c {
			case '\\', '"':
				b.Write([]byte{'\\', c})
			case '\n':
				b.WriteString(`\n`)
			case '\r':
				b.WriteString(`\r`)
			default:
				b.Write([]byte{'\\', 'u', '0', '0', hex[c>>4], hex[c&0xf]})
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		if invalid := r == utf8.RuneError && size == 1; invalid || r == '\u2028' || r == '\u2029' {
			b.Write(s[start:i])
			if invalid {
				b.WriteString(`\ufffd`)
			} else {
				b.Write([]byte{'\\', 'u', '2', '0', '2', hex[r&0xf]})
			}
			i += size
			start = i
			continue
		}
		i += size
	}
	b.Write(s[start:])
}
