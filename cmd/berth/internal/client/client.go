package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Client speaks to one engine. Its methods may be called from several
// goroutines.
type Client struct {
	// Host is the engine's address.
	Host Host
	// Start, when set, is called once when nobody listens at Host; when it
	// returns nil the connection is tried again.
	Start func(ctx context.Context) error

	mu         sync.Mutex
	idle       []*conn
	tried      bool
	apiVersion string
}

// Request is what is asked of an engine.
type Request struct {
	Method string
	// Path is the API's path without a version: an engine then answers in its
	// newest one, which saves asking for it first. It is not escaped.
	Path  string
	Query url.Values
	// Body is sent as JSON, without fields that are zero; nil sends none.
	Body any
	// Stream is sent as it comes, with Length -1 in chunks.
	Stream io.Reader
	Length int64
	// Header holds further fields.
	Header map[string]string
	// Upgrade asks for the connection to become a byte stream.
	Upgrade bool
}

// conn is a connection to the engine and what has been read ahead from it.
type conn struct {
	net.Conn
	r *bufio.Reader
	// used tells that an answer has come over it before: then a failure may
	// mean that the engine had closed it while it was idle.
	used bool
}

// Close closes the idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cn := range c.idle {
		cn.Close()
	}
	c.idle = nil
	return nil
}

// APIVersion is the newest API version the engine has named in an answer so
// far; empty before the first one.
func (c *Client) APIVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apiVersion
}

// APIAtLeast tells whether the engine has named an API version of at least
// major.minor.
func (c *Client) APIAtLeast(major, minor int) bool {
	a, b, ok := strings.Cut(c.APIVersion(), ".")
	if !ok {
		return false
	}
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}

func (c *Client) dial(ctx context.Context) (*conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, c.Host.Network, c.Host.Address)
	if err == nil {
		return &conn{Conn: nc, r: bufio.NewReaderSize(nc, 16<<10)}, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	unreachable := &UnreachableError{Host: c.Host, Err: err}
	if !unreachable.Absent() || !c.mayStart() {
		return nil, unreachable
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return c.dial(ctx)
}

func (c *Client) mayStart() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Start == nil || c.tried {
		return false
	}
	c.tried = true
	return true
}

func (c *Client) take(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		cn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return cn, nil
	}
	c.mu.Unlock()
	return c.dial(ctx)
}

func (c *Client) put(cn *conn) {
	cn.used = true
	c.mu.Lock()
	c.idle = append(c.idle, cn)
	c.mu.Unlock()
}

// Pending is a request that has been sent and whose answer has not been read.
type Pending struct {
	c    *Client
	ctx  context.Context
	conn *conn
	req  Request
	// stop ends the watch over ctx.
	stop func() bool
	// sent yields the outcome of sending req.Stream; nil without one.
	sent chan error
}

// Send sends a request and returns without waiting for the answer.
// The context governs the whole exchange including the answer's body.
func (c *Client) Send(ctx context.Context, req Request) (*Pending, error) {
	for {
		cn, err := c.take(ctx)
		if err != nil {
			return nil, err
		}
		p := &Pending{c: c, ctx: ctx, conn: cn, req: req}
		p.stop = context.AfterFunc(ctx, func() { cn.Close() })
		err = p.write()
		if err == nil {
			return p, nil
		}
		p.drop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !cn.used {
			return nil, &LostError{Err: err}
		}
	}
}

// write sends the request's head and body; a stream is sent by a goroutine
// whose outcome Answer or the answer's Close collects.
func (p *Pending) write() error {
	var body []byte
	if p.req.Body != nil {
		var err error
		if body, err = lean(p.req.Body); err != nil {
			return fmt.Errorf("encode request %s %s: %w", p.req.Method, p.req.Path, err)
		}
	}
	w := bufio.NewWriterSize(p.conn, 16<<10)
	p.writeHead(w, len(body))
	w.Write(body)
	if err := w.Flush(); err != nil {
		return err
	}
	if p.req.Stream != nil {
		p.sent = make(chan error, 1)
		source := &sourceReader{r: p.req.Stream}
		p.req.Stream = source
		go func() {
			err := p.writeStream(w)
			p.sent <- err
			if source.err != nil || errors.Is(err, io.ErrUnexpectedEOF) {
				// The engine waits for what will not come. When it was the
				// connection that failed an answer may still be on its way.
				p.conn.Close()
			}
		}()
	}
	return nil
}

func (p *Pending) writeHead(w *bufio.Writer, length int) {
	target := (&url.URL{Path: p.req.Path}).EscapedPath()
	if len(p.req.Query) > 0 {
		target += "?" + p.req.Query.Encode()
	}
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: berth\r\n", p.req.Method, target, p.c.Host.header())
	if p.req.Upgrade {
		w.WriteString("Connection: Upgrade\r\nUpgrade: tcp\r\n")
	}
	for name, value := range p.req.Header {
		fmt.Fprintf(w, "%s: %s\r\n", name, value)
	}
	switch {
	case p.req.Stream != nil && p.req.Length >= 0:
		fmt.Fprintf(w, "Content-Type: application/x-tar\r\nContent-Length: %d\r\n", p.req.Length)
	case p.req.Stream != nil:
		w.WriteString("Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n")
	case p.req.Body != nil:
		fmt.Fprintf(w, "Content-Type: application/json\r\nContent-Length: %d\r\n", length)
	case p.req.Method != "GET" && p.req.Method != "HEAD":
		w.WriteString("Content-Length: 0\r\n")
	}
	w.WriteString("\r\n")
}

// sourceReader remembers the error that reading ended with.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (p *Pending) writeStream(w *bufio.Writer) error {
	if p.req.Length >= 0 {
		n, err := io.Copy(p.conn, io.LimitReader(p.req.Stream, p.req.Length))
		if err == nil && n < p.req.Length {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	cw := chunkedWriter{w: w}
	if _, err := io.CopyBuffer(cw, struct{ io.Reader }{p.req.Stream}, make([]byte, 256<<10)); err != nil {
		return err
	}
	return cw.Close()
}

// drop ends the exchange and its connection.
func (p *Pending) drop() {
	p.stop()
	p.conn.Close()
}

// Cancel gives up on the answer.
func (p *Pending) Cancel() { p.drop() }

// Response is an engine's answer. Its Body has to be closed.
type Response struct {
	Status int
	// Header holds the fields, names in lower case.
	Header map[string]string
	Body   io.ReadCloser

	p *Pending
}

// Answer waits for the answer's head. A refusal is returned as an *Error.
func (p *Pending) Answer() (*Response, error) {
	h, err := p.readFinalHead()
	if err != nil {
		return nil, p.failed(err)
	}
	p.c.noteVersion(h.fields["api-version"])
	if p.req.Upgrade && (h.status == 101 || h.status == 200) {
		p.stop()
		return &Response{Status: h.status, Header: h.fields, p: p}, nil
	}
	reader, whole, err := bodyOf(h, p.req.Method, p.conn.r)
	if err != nil {
		p.drop()
		return nil, err
	}
	if strings.EqualFold(h.fields["connection"], "close") {
		whole = false
	}
	resp := &Response{Status: h.status, Header: h.fields, p: p}
	resp.Body = &body{p: p, r: reader, reusable: whole}
	if h.status >= 300 && h.status != 304 {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

func (p *Pending) readFinalHead() (head, error) {
	for {
		h, err := readHead(p.conn.r)
		if err != nil || h.status >= 200 || h.status == 101 {
			return h, err
		}
	}
}

// failed names why an answer did not come.
func (p *Pending) failed(err error) error {
	p.drop()
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	select {
	case sent := <-p.sent:
		if sent != nil && !errors.Is(sent, net.ErrClosed) && !errors.Is(sent, syscall.EPIPE) {
			return fmt.Errorf("send %s: %w", p.req.Path, sent)
		}
	default:
	}
	return &LostError{Err: unexpectedEOF(err)}
}

func (c *Client) noteVersion(v string) {
	if v == "" {
		return
	}
	c.mu.Lock()
	c.apiVersion = v
	c.mu.Unlock()
}

// body is an answer's body; it gives the connection back when read to its end.
type body struct {
	p        *Pending
	r        io.Reader
	reusable bool
	done     bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	n, err := b.r.Read(p)
	switch {
	case err == io.EOF:
		b.finish(b.reusable)
	case err != nil && b.p.ctx.Err() != nil:
		err = b.p.ctx.Err()
	case err != nil:
		err = &LostError{Err: err}
	}
	return n, err
}

// Close ends the exchange. A body that is not read to its end costs the connection.
func (b *body) Close() error {
	if !b.done {
		n, err := io.CopyN(io.Discard, b.r, 4<<10)
		b.finish(b.reusable && n < 4<<10 && errors.Is(err, io.EOF))
	}
	return nil
}

func (b *body) finish(reusable bool) {
	if b.done {
		return
	}
	b.done = true
	if b.p.sent != nil {
		// The request's stream may still be on its way: an engine may answer
		// before it has read all of it.
		reusable = false
	}
	if !reusable || !b.p.stop() {
		b.p.drop()
		return
	}
	b.p.c.put(b.p.conn)
}

func refusal(resp *Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var msg struct{ Message string }
	if json.Unmarshal(text, &msg) != nil || msg.Message == "" {
		msg.Message = strings.TrimSpace(string(text))
	}
	if msg.Message == "" {
		msg.Message = "the engine answered with HTTP status " + strconv.Itoa(resp.Status)
	}
	return &Error{Status: resp.Status, Message: msg.Message, Hint: resp.Header["berth-hint"]}
}

// Do sends a request and waits for its answer's head. A request without side
// effects is repeated when an idle connection turns out to have been closed.
func (c *Client) Do(ctx context.Context, req Request) (*Response, error) {
	for {
		p, err := c.Send(ctx, req)
		if err != nil {
			return nil, err
		}
		stale := p.conn.used
		resp, err := p.Answer()
		var lost *LostError
		if stale && req.Method == "GET" && errors.As(err, &lost) {
			continue
		}
		return resp, err
	}
}

// call sends a request and decodes the JSON answer into out; nil ignores it.
func (c *Client) call(ctx context.Context, req Request, out any) error {
	resp, err := c.Do(ctx, req)
	if err != nil {
		return err
	}
	return resp.decode(out)
}

// decode reads one JSON value into out and closes the body.
func (r *Response) decode(out any) error {
	defer r.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, r.Body)
		return err
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("decode answer to %s %s: %w", r.p.req.Method, r.p.req.Path, err)
	}
	return nil
}

// Records decodes a stream of JSON values, calling fn with each until it
// returns an error or the stream ends.
func Records[T any](r io.Reader, fn func(*T) error) error {
	d := json.NewDecoder(r)
	for {
		var v T
		if err := d.Decode(&v); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := fn(&v); err != nil {
			return err
		}
	}
}
