package client

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxHead bounds the bytes of an answer's status line and header fields.
const maxHead = 64 << 10

var errHeadTooLong = errors.New("malformed HTTP answer: header too long")

// head is an answer's status line and header fields, names in lower case.
type head struct {
	status int
	fields map[string]string
}

// readHead reads a status line and header fields (RFC 9112 sections 4 and 5).
func readHead(r *bufio.Reader) (head, error) {
	budget := maxHead
	line, err := readLine(r, &budget)
	if err != nil {
		return head{}, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") || status < 100 || status > 999 {
		return head{}, fmt.Errorf("malformed HTTP answer: %q", line)
	}
	h := head{status: status, fields: make(map[string]string, 8)}
	for {
		line, err := readLine(r, &budget)
		if err != nil {
			return head{}, unexpectedEOF(err)
		}
		if line == "" {
			return h, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return head{}, fmt.Errorf("malformed HTTP answer: header %q", line)
		}
		h.fields[strings.ToLower(name)] = strings.TrimSpace(value)
	}
}

// readLine reads up to a line feed and drops it and a carriage return before it.
func readLine(r *bufio.Reader, budget *int) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if *budget -= len(part); *budget < 0 {
			return "", errHeadTooLong
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if len(line) > 0 {
				err = unexpectedEOF(err)
			}
			return "", err
		}
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return string(line), nil
}

// bodyOf returns the reader of an answer's body (RFC 9112 section 6.3); it
// yields io.EOF exactly when the body is complete. whole tells whether the
// connection can be used again after that.
func bodyOf(h head, method string, r *bufio.Reader) (body io.Reader, whole bool, err error) {
	if method == "HEAD" || h.status == 204 || h.status == 304 {
		return eofReader{}, true, nil
	}
	if strings.EqualFold(h.fields["transfer-encoding"], "chunked") {
		return &chunkedReader{r: r}, true, nil
	}
	if length, ok := h.fields["content-length"]; ok {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return nil, false, fmt.Errorf("malformed HTTP answer: Content-Length %q", length)
		}
		return &lengthReader{r: r, left: n}, true, nil
	}
	return r, false, nil
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

type lengthReader struct {
	r    io.Reader
	left int64
}

func (l *lengthReader) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left > 0 {
		err = unexpectedEOF(err)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// chunkedReader reads the chunked transfer coding (RFC 9112 section 7.1).
type chunkedReader struct {
	r    *bufio.Reader
	left uint64
	// inside tells that a chunk's data has been begun, so that its closing
	// line end is still to come.
	inside bool
	err    error
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	for c.err == nil && c.left == 0 {
		c.err = c.nextChunk()
	}
	if c.err != nil {
		return 0, c.err
	}
	if uint64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= uint64(n)
	if err != nil {
		c.err = unexpectedEOF(err)
	}
	return n, c.err
}

func (c *chunkedReader) nextChunk() error {
	budget := maxHead
	if c.inside {
		if line, err := readLine(c.r, &budget); err != nil || line != "" {
			return malformedChunk(line, err)
		}
		c.inside = false
	}
	line, err := readLine(c.r, &budget)
	if err != nil {
		return malformedChunk(line, err)
	}
	size, _, _ := strings.Cut(line, ";")
	c.left, err = strconv.ParseUint(strings.TrimSpace(size), 16, 63)
	if err != nil {
		return malformedChunk(line, nil)
	}
	if c.left > 0 {
		c.inside = true
		return nil
	}
	for { // trailer fields
		line, err := readLine(c.r, &budget)
		if err != nil {
			return malformedChunk(line, err)
		}
		if line == "" {
			return io.EOF
		}
	}
}

func malformedChunk(line string, err error) error {
	if err != nil {
		return unexpectedEOF(err)
	}
	return fmt.Errorf("malformed HTTP answer: chunk %q", line)
}

// unexpectedEOF turns the end of a stream where more had to come into an error.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunkedWriter writes the chunked transfer coding.
type chunkedWriter struct{ w *bufio.Writer }

func (c chunkedWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	fmt.Fprintf(c.w, "%x\r\n", len(p))
	c.w.Write(p)
	c.w.WriteString("\r\n")
	if err := c.w.Flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c chunkedWriter) Close() error {
	c.w.WriteString("0\r\n\r\n")
	return c.w.Flush()
}
