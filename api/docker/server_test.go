package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// TestVersions: what a client of any age learns and may ask for.
func TestVersions(t *testing.T) {
	socket, _ := serve(t, nil)
	c := httpClient(t, socket)

	for _, method := range []string{http.MethodGet, http.MethodHead} {
		resp, body := send(t, c, method, "/_ping", "")
		if resp.StatusCode != 200 || resp.Header.Get("Api-Version") != "1.56" || resp.Header.Get("Ostype") != "linux" {
			t.Errorf("%s /_ping: %s %v", method, resp.Status, resp.Header)
		}
		if want := map[string]string{http.MethodGet: "OK", http.MethodHead: ""}[method]; body != want {
			t.Errorf("%s /_ping: body %q", method, body)
		}
	}
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/v1.24/_ping":             {200, "OK"},
		"/v1.56/_ping":             {200, "OK"},
		"/v1.57/_ping":             {400, "client version 1.57 is too new. Maximum supported API version is 1.56"},
		"/v2.0/_ping":              {400, "too new"},
		"/v1.23/_ping":             {400, "client version 1.23 is too old. Minimum supported API version is 1.24"},
		"/v1.41/nothing":           {404, `{"message":"page not found"}`},
		"/":                        {404, `{"message":"page not found"}`},
		"/images/a/b":              {404, "page not found"},
		"/swarm":                   {501, `{"message":"swarm mode: not supported by this version of Berth"}`},
		"/v1.41/plugins":           {501, "Docker plugins: not supported"},
		"/images/a/b/attestations": {501, "not supported"},
	} {
		resp, body := get(t, c, path)
		if resp.StatusCode != want.status || !strings.Contains(body, want.text) {
			t.Errorf("GET %s: %d %s, want %d %s", path, resp.StatusCode, body, want.status, want.text)
		}
	}
}

// TestNegotiation: Docker's own client agrees on the newest version both know.
func TestNegotiation(t *testing.T) {
	socket, _ := serve(t, nil)
	c := mobyClient(t, socket, "")
	if _, err := c.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.ClientVersion(); got != currentVersion.String() {
		t.Errorf("negotiated %s, want %s", got, currentVersion)
	}
}

// errorEngine answers every start with its error.
type errorEngine struct {
	Engine
	err error
}

func (e *errorEngine) ContainerStart(context.Context, string) error { return e.err }

// TestErrors: each class has its status, the message is the error's text and
// the hint travels in a header.
func TestErrors(t *testing.T) {
	e := &errorEngine{}
	socket, _ := serve(t, e)
	c := httpClient(t, socket)
	for _, test := range []struct {
		class  error
		status int
	}{
		{errdefs.ErrNotFound, 404}, {errdefs.ErrConflict, 409}, {errdefs.ErrInvalid, 400},
		{errdefs.ErrUnsupported, 501}, {errdefs.ErrUnavailable, 503}, {errdefs.ErrPermission, 403},
		{io.ErrUnexpectedEOF, 500},
	} {
		e.err = fmt.Errorf("start web: %w", errdefs.WithHint(test.class, "try\nthis"))
		resp, body := send(t, c, http.MethodPost, "/v1.50/containers/web/start", "")
		if resp.StatusCode != test.status {
			t.Errorf("%v: status %d, want %d", test.class, resp.StatusCode, test.status)
		}
		if want := fmt.Sprintf(`{"message":"start web: %v"}`, test.class); strings.TrimSpace(body) != want {
			t.Errorf("%v: body %s, want %s", test.class, body, want)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%v: content type %q", test.class, got)
		}
		if got := resp.Header.Get(hintHeader); got != "try this" {
			t.Errorf("%v: hint %q", test.class, got)
		}
	}
	e.err = errdefs.ErrNotModified
	if resp, body := send(t, c, http.MethodPost, "/containers/web/start", ""); resp.StatusCode != 304 || body != "" {
		t.Errorf("not modified: %d %q", resp.StatusCode, body)
	}
	e.err = nil
	if resp, body := send(t, c, http.MethodPost, "/containers/web/start", ""); resp.StatusCode != 204 || body != "" {
		t.Errorf("started: %d %q", resp.StatusCode, body)
	}
}

// exportEngine fails in the middle of an export.
type exportEngine struct{ Engine }

func (exportEngine) ContainerExport(_ context.Context, _ string, w io.Writer) error {
	if _, err := w.Write(make([]byte, 64<<10)); err != nil {
		return err
	}
	return errors.New("disk on fire")
}

// TestBrokenAnswer: an answer that fails after its first byte must not look
// complete.
func TestBrokenAnswer(t *testing.T) {
	socket, _ := serve(t, exportEngine{})
	resp, err := httpClient(t, socket).Get("http://berth/containers/web/export")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading half an export: %v, want unexpected EOF", err)
	}
}

// TestBodies: what is refused before the engine hears of it.
func TestBodies(t *testing.T) {
	socket, _ := serve(t, nil)
	c := httpClient(t, socket)
	for body, want := range map[string]string{
		"":               "got EOF while reading request body",
		"{}":             "config cannot be empty",
		"{":              "invalid JSON",
		`{"Image":"a"}x`: "unexpected content after JSON",
	} {
		resp, text := send(t, c, http.MethodPost, "/containers/create", body)
		if resp.StatusCode != 400 || !strings.Contains(text, want) {
			t.Errorf("body %q: %d %s, want 400 %s", body, resp.StatusCode, text, want)
		}
	}
	resp, err := c.Post("http://berth/containers/create", "text/plain", strings.NewReader(`{"Image":"a"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("body of type text/plain: %s, want 400", resp.Status)
	}
}

// TestBrowserOverTCP: a loopback port answers programs, not web pages.
func TestBrowserOverTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{})
	go s.Serve(listener) //nolint:errcheck // ends with Shutdown below
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	for _, test := range []struct {
		host, origin string
		status       int
	}{
		{"", "", 200},
		{"localhost:2375", "", 200},
		{"evil.example", "", 403},
		{"", "http://evil.example", 403},
	} {
		req, err := http.NewRequest(http.MethodGet, "http://"+listener.Addr().String()+"/_ping", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = test.host
		if test.origin != "" {
			req.Header.Set("Origin", test.origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.status {
			t.Errorf("host %q origin %q: %s, want %d", test.host, test.origin, resp.Status, test.status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// waitEngine yields the exits the test sends.
type waitEngine struct {
	Engine
	exits chan container.WaitResponse
	ended chan struct{}
}

func (e *waitEngine) ContainerWait(ctx context.Context, _ string, _ container.WaitCondition) (<-chan container.WaitResponse, error) {
	context.AfterFunc(ctx, func() { close(e.ended) })
	return e.exits, nil
}

// TestWait: the headers come before the exit, and a client that leaves ends
// the wait.
func TestWait(t *testing.T) {
	e := &waitEngine{exits: make(chan container.WaitResponse), ended: make(chan struct{})}
	socket, _ := serve(t, e)
	c := httpClient(t, socket)
	resp, err := c.Post("http://berth/containers/web/wait?condition=next-exit", "", nil)
	if err != nil {
		t.Fatal(err) // without early headers this would hang
	}
	e.exits <- container.WaitResponse{StatusCode: 137}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || strings.TrimSpace(string(body)) != `{"StatusCode":137}` {
		t.Errorf("exit %s, %v", body, err)
	}
	<-e.ended

	if resp, text := send(t, c, http.MethodPost, "/containers/web/wait?condition=never", ""); resp.StatusCode != 400 {
		t.Errorf("unknown condition: %d %s", resp.StatusCode, text)
	}
}

// TestWaitEndsWithClient: the engine's wait is cancelled when nobody waits.
func TestWaitEndsWithClient(t *testing.T) {
	e := &waitEngine{exits: make(chan container.WaitResponse), ended: make(chan struct{})}
	socket, _ := serve(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://berth/containers/web/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := httpClient(t, socket).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	<-e.ended
	close(e.exits)
}

// TestShutdownEndsWaits: the endless answers do not hold the server up.
func TestShutdownEndsWaits(t *testing.T) {
	e := &waitEngine{exits: make(chan container.WaitResponse), ended: make(chan struct{})}
	socket, s := serve(t, e)
	go func() { <-e.ended; close(e.exits) }() // as the engine does
	resp, err := httpClient(t, socket).Post("http://berth/containers/web/wait", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a wait without exit looks complete")
	}
}
