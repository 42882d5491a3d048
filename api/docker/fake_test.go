package docker

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// serve runs a server in front of e on a unix socket and returns the socket's
// path. The test fails when the server does not end cleanly.
func serve(t *testing.T, e Engine) (socket string, s *Server) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s = New(Config{Engine: e, Version: "test"})
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return socket, s
}

// httpClient speaks plain HTTP to a socket.
func httpClient(t *testing.T, socket string) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// mobyClient is Docker's own client in the given API version, "" negotiates.
func mobyClient(t *testing.T, socket, version string) *client.Client {
	t.Helper()
	opts := []client.Opt{client.WithHost("unix://" + socket)}
	if version != "" {
		opts = append(opts, client.WithAPIVersion(version))
	}
	c, err := client.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// get answers a GET request's response with its body read.
func get(t *testing.T, c *http.Client, path string) (*http.Response, string) {
	t.Helper()
	return send(t, c, http.MethodGet, path, "")
}

// send makes a request with a JSON body, when there is one.
func send(t *testing.T, c *http.Client, method, path, body string) (*http.Response, string) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = &stringReader{body}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://berth"+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// stringReader is a body of unknown length, so that it is sent in chunks.
type stringReader struct{ s string }

func (r *stringReader) Read(p []byte) (int, error) {
	if r.s == "" {
		return 0, io.EOF
	}
	n := copy(p, r.s)
	r.s = r.s[n:]
	return n, nil
}

// fakeProcess is an attached process: what the test writes to out the client
// reads, what the client sends the test reads from in.
type fakeProcess struct {
	tty    bool
	out    *io.PipeReader
	stdout *io.PipeWriter
	stdin  *io.PipeReader
	in     *io.PipeWriter
	closed chan struct{}
}

func newFakeProcess(tty bool) *fakeProcess {
	p := &fakeProcess{tty: tty, closed: make(chan struct{})}
	p.out, p.stdout = io.Pipe()
	p.stdin, p.in = io.Pipe()
	return p
}

func (p *fakeProcess) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *fakeProcess) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *fakeProcess) CloseWrite() error           { return p.in.Close() }
func (p *fakeProcess) TTY() bool                   { return p.tty }

func (p *fakeProcess) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	_ = p.out.Close()
	return p.in.Close()
}

// rawRequest sends a request on a connection of its own and reads the head of
// the answer.
func rawRequest(t *testing.T, socket, head string) (*net.UnixConn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		t.Fatalf("connection is a %T", conn)
	}
	return unix, reader, resp
}
