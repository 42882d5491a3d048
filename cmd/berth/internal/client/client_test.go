package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
)

// engine serves a handler on a unix socket and counts the connections.
type engine struct {
	*Client
	mu    sync.Mutex
	conns int
}

func newEngine(t *testing.T, handler http.HandlerFunc) *engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{Client: &Client{Host: Host{Network: "unix", Address: socket}}}
	srv := &http.Server{Handler: handler, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			e.mu.Lock()
			e.conns++
			e.mu.Unlock()
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { e.Close(); srv.Close(); <-done })
	return e
}

// raw answers each connection with the same text.
func rawEngine(t *testing.T, answer string) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, answer)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return &Client{Host: Host{Network: "unix", Address: socket}}
}

func get(t *testing.T, c *Client, path string) (string, error) {
	t.Helper()
	resp, err := c.Do(context.Background(), Request{Method: "GET", Path: path})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func TestConnectionIsReused(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			io.WriteString(w, "with a length")
		case "/chunks":
			for range 3 {
				io.WriteString(w, strings.Repeat("x", 5000))
				w.(http.Flusher).Flush()
			}
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/same":
			w.WriteHeader(http.StatusNotModified)
		default:
			http.Error(w, `{"message":"no such page"}`, http.StatusNotFound)
		}
	})
	for range 3 {
		for path, want := range map[string]string{"/length": "with a length", "/chunks": strings.Repeat("x", 15000), "/none": "", "/same": ""} {
			got, err := get(t, e.Client, path)
			if err != nil || got != want {
				t.Errorf("%s: %d bytes, %v, want %d", path, len(got), err, len(want))
			}
		}
		if _, err := get(t, e.Client, "/missing"); !NotFound(err) || err.Error() != "no such page" {
			t.Errorf("/missing: %v", err)
		}
	}
	if e.conns != 1 {
		t.Errorf("%d connections were made, want 1", e.conns)
	}
}

// TestAnswersInBodies holds the reader to the shapes of RFC 9112, at every way the bytes may arrive.
func TestAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct{ answer, body, err string }{
		"length":          {ok + "Content-Length: 3\r\n\r\nabcdef", "abc", ""},
		"until close":     {ok + "\r\nabc", "abc", ""},
		"chunks":          {ok + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nTrailer: x\r\n\r\n", "abc", ""},
		"hex chunk":       {ok + "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""},
		"informational":   {"HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 1\r\n\r\na", "a", ""},
		"bare line feeds": {"HTTP/1.1 200 OK\nContent-Length: 1\n\na", "a", ""},
		"short length":    {ok + "Content-Length: 4\r\n\r\nabc", "abc", "unexpected EOF"},
		"short chunk":     {ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nabc", "abc", "unexpected EOF"},
		"no last chunk":   {ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "abc", "unexpected EOF"},
		"bad chunk size":  {ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", "", "malformed"},
		"huge chunk size": {ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", "", "malformed"},
		"no chunk end":    {ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "a", "malformed"},
		"negative length": {ok + "Content-Length: -1\r\n\r\n", "", "malformed"},
		"no answer":       {"", "", "unexpected EOF"},
		"half a head":     {ok + "Content-Le", "", "unexpected EOF"},
		"not HTTP":        {"SSH-2.0-x\r\n\r\n", "", "malformed"},
		"no colon":        {ok + "Foo\r\n\r\n", "", "malformed"},
		"endless head":    {ok + strings.Repeat("A: b\r\n", 20000) + "\r\n", "", "header too long"},
		"endless line":    {ok + "A: " + strings.Repeat("b", 100000) + "\r\n\r\n", "", "header too long"},
		"redirect":        {"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n", "", "HTTP status 301"},
		"plain refusal":   {"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nno :(", "", "no :("},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := get(t, rawEngine(t, c.answer), "/x")
			if body != c.body || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("body %q, error %v; want %q, %q", body, err, c.body, c.err)
			}
		})
	}
}

func TestChunksInAnyPieces(t *testing.T) {
	const text = "4\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
	for name, r := range map[string]io.Reader{
		"bytes":  iotest.OneByteReader(strings.NewReader(text)),
		"halves": iotest.HalfReader(strings.NewReader(text)),
		"eof":    iotest.DataErrReader(strings.NewReader(text)),
	} {
		got, err := io.ReadAll(&chunkedReader{r: bufio.NewReaderSize(r, 16)})
		if err != nil || string(got) != "abcd0123456789abcdef" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bufio.NewReader(strings.NewReader(string(text)))
		h, err := readHead(r)
		if err != nil {
			return
		}
		body, _, err := bodyOf(h, "GET", r)
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, body)
		if n > int64(len(text)) {
			t.Errorf("%d bytes read from %d", n, len(text))
		}
	})
}

func TestRefusalCarriesHint(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Berth-Hint", "do it otherwise")
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"message":"name taken"}`)
	})
	_, err := get(t, e.Client, "/x")
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != 409 || refused.Message != "name taken" || refused.Hint != "do it otherwise" {
		t.Errorf("%#v", err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	c := &Client{Host: Host{Network: "unix", Address: filepath.Join(dir, "none")}}
	_, err := get(t, c, "/x")
	var gone *UnreachableError
	if !errors.As(err, &gone) || !gone.Absent() {
		t.Fatalf("%#v", err)
	}
	if want := "cannot reach the Berth engine at unix://" + dir + "/none: no such file or directory"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if (&UnreachableError{Err: syscall.EACCES}).Absent() {
		t.Error("an engine one may not speak to is taken for absent")
	}
}

func TestStartIsTriedOnce(t *testing.T) {
	starts := 0
	c := &Client{Host: Host{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}}
	c.Start = func(context.Context) error { starts++; return nil }
	for range 2 {
		var gone *UnreachableError
		if _, err := get(t, c, "/x"); !errors.As(err, &gone) {
			t.Fatalf("%#v", err)
		}
	}
	if starts != 1 {
		t.Errorf("started %d times", starts)
	}
	failing := errors.New("it does not start")
	c = &Client{Host: c.Host, Start: func(context.Context) error { return failing }}
	if _, err := get(t, c, "/x"); !errors.Is(err, failing) {
		t.Errorf("%v", err)
	}
}

func TestStream(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "tcp" || r.Header.Get("Connection") != "Upgrade" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nApi-Version: 1.44\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ", r.URL.Query().Get("type"))
		text, _ := io.ReadAll(rw) // until the input ends
		fmt.Fprintf(conn, "then %s", text)
	})
	for _, media := range []string{mediaMultiplexed, mediaRaw, ""} {
		resp, err := e.Do(context.Background(), Request{Method: "POST", Path: "/x", Query: map[string][]string{"type": {media}}, Upgrade: true})
		if err != nil {
			t.Fatal(err)
		}
		s := resp.Stream()
		if s.Multiplexed != (media == mediaMultiplexed) || s.Raw != (media == mediaRaw) {
			t.Errorf("%q: multiplexed %v, raw %v", media, s.Multiplexed, s.Raw)
		}
		io.WriteString(s, "input")
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s)
		if err != nil || string(got) != "early then input" {
			t.Errorf("read %q, %v", got, err)
		}
		s.Close()
	}
}

func TestUploads(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d bytes, length %d, %v", len(text), r.ContentLength, err)
	})
	big := strings.Repeat("0123456789", 100000)
	for length, want := range map[int64]string{
		-1:              "1000000 bytes, length -1, <nil>",
		int64(len(big)): "1000000 bytes, length 1000000, <nil>",
	} {
		resp, err := e.Do(context.Background(), Request{Method: "POST", Path: "/x", Stream: strings.NewReader(big), Length: length})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("length %d: %q, %v", length, got, err)
		}
	}
}

// TestUploadRefused: the engine says no before it has read what is sent.
func TestUploadRefused(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, `{"message":"too much"}`, http.StatusInsufficientStorage)
	})
	endless, stop := io.Pipe()
	defer stop.Close()
	go func() {
		for {
			if _, err := stop.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	_, err := e.Do(context.Background(), Request{Method: "POST", Path: "/x", Stream: endless, Length: -1})
	var refused *Error
	if !errors.As(err, &refused) || refused.Message != "too much" {
		t.Errorf("%#v", err)
	}
}

func TestUploadFails(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	})
	broken := errors.New("the disk is gone")
	_, err := e.Do(context.Background(), Request{Method: "POST", Path: "/x", Stream: iotest.ErrReader(broken), Length: 100})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestCancel(t *testing.T) {
	entered := make(chan struct{})
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.(http.Flusher).Flush()
		}
		close(entered)
		<-r.Context().Done() // the client's leaving ends the request
	})
	for _, path := range []string{"/head", "/body"} {
		entered = make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			resp, err := e.Do(ctx, Request{Method: "GET", Path: path})
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			done <- err
		}()
		<-entered
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestIdleConnectionClosed: an engine that was restarted meanwhile is asked again.
func TestIdleConnectionClosed(t *testing.T) {
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	for range 2 {
		if got, err := get(t, e.Client, "/x"); err != nil || got != "ok" {
			t.Fatalf("%q, %v", got, err)
		}
		for _, c := range e.idle {
			c.Conn.(*net.UnixConn).CloseRead()
			c.Conn.(*net.UnixConn).CloseWrite()
		}
	}
	if e.conns != 2 {
		t.Errorf("%d connections, want 2", e.conns)
	}
}

func TestRequestLine(t *testing.T) {
	var got []string
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.RequestURI+" "+r.Host)
	})
	ref := "a b\r\nX: y?z/é"
	if _, err := e.ContainerInspect(context.Background(), ref, true); err == nil {
		t.Error("an empty answer was decoded")
	}
	want := "GET /containers/a%20b%0D%0AX:%20y%3Fz/%C3%A9/json?size=1 berth"
	if len(got) != 1 || got[0] != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestAPIVersion(t *testing.T) {
	version := "1.41"
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Api-Version", version) })
	if e.APIAtLeast(1, 0) {
		t.Error("a version is known before the first answer")
	}
	for v, atLeast := range map[string]bool{"1.41": false, "1.42": true, "1.100": true, "2.0": true, "nonsense": false} {
		version = v
		get(t, e.Client, "/x")
		if e.APIVersion() != v || e.APIAtLeast(1, 42) != atLeast {
			t.Errorf("version %q taken for %q, at least 1.42: %v", v, e.APIVersion(), e.APIAtLeast(1, 42))
		}
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///a/b":            "unix:///a/b",
		"/a/b":                   "unix:///a/b",
		"tcp://127.0.0.1:2375":   "tcp://127.0.0.1:2375",
		"tcp://[::1]:2375/":      "tcp://[::1]:2375",
		"http://localhost:2375/": "tcp://localhost:2375",
	} {
		h, err := ParseHost(in)
		if err != nil || h.String() != want {
			t.Errorf("ParseHost(%q) = %v, %v, want %s", in, h, err, want)
		}
	}
	for _, in := range []string{"", "unix://", "tcp://nohost", "ssh://x", "a/b", "https://x:1"} {
		if h, err := ParseHost(in); err == nil {
			t.Errorf("ParseHost(%q) = %v", in, h)
		}
	}
}
