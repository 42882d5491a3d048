package client

import (
	"bufio"
	"context"
	"io"
	"net"
)

// Stream is a connection that has become a byte stream: a container's or an
// exec's stdio.
type Stream struct {
	conn net.Conn
	r    *bufio.Reader
	// Multiplexed tells that the engine says the output is framed
	// (stdcopy); false when it is raw or the engine does not say.
	Multiplexed bool
	// Raw tells that the engine says the output is not framed.
	Raw bool
}

// Media types of the two kinds of streams (Docker Engine API 1.42 and newer;
// older engines use the raw one for both).
const (
	mediaMultiplexed = "application/vnd.docker.multiplexed-stream"
	mediaRaw         = "application/vnd.docker.raw-stream"
)

// Stream takes over the connection of an answer to an Upgrade request.
func (r *Response) Stream() *Stream {
	return &Stream{
		conn:        r.p.conn.Conn,
		r:           r.p.conn.r,
		Multiplexed: r.Header["content-type"] == mediaMultiplexed,
		Raw:         r.Header["content-type"] == mediaRaw && r.p.c.APIAtLeast(1, 42),
	}
}

// Read reads output.
func (s *Stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// Write writes input.
func (s *Stream) Write(p []byte) (int, error) { return s.conn.Write(p) }

// CloseWrite ends the input.
func (s *Stream) CloseWrite() error {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close ends both directions; a Read under way returns.
func (s *Stream) Close() error { return s.conn.Close() }

// upgrade sends a request and takes over its connection.
func (c *Client) upgrade(ctx context.Context, req Request) (*Stream, error) {
	req.Upgrade = true
	resp, err := c.Do(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp.Stream(), nil
}

// Output is a stream of output that is read to its end: logs.
type Output struct {
	io.ReadCloser
	// Multiplexed and Raw are as in Stream; with neither only the
	// container's configuration tells.
	Multiplexed, Raw bool
}

func (r *Response) output() *Output {
	return &Output{
		ReadCloser:  r.Body,
		Multiplexed: r.Header["content-type"] == mediaMultiplexed,
		Raw:         r.Header["content-type"] == mediaRaw && r.p.c.APIAtLeast(1, 42),
	}
}
