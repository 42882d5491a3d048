package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeEngine answers as an engine would, from a table, and keeps what it was asked.
type fakeEngine struct {
	t      *testing.T
	socket string

	mu    sync.Mutex
	asked []string
	// answers are by method and path.
	answers map[string]http.HandlerFunc
}

func newFakeEngine(t *testing.T, answers map[string]http.HandlerFunc) *fakeEngine {
	t.Helper()
	e := &fakeEngine{t: t, socket: filepath.Join(t.TempDir(), "s"), answers: answers}
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: e}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return e
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v1."); ok { // docker names a version
		path = rest[strings.IndexByte(rest, '/'):]
	}
	if path == "/_ping" {
		return
	}
	line := r.Method + " " + path
	if query := r.URL.Query().Encode(); query != "" {
		line += "?" + query
	}
	e.mu.Lock()
	e.asked = append(e.asked, line)
	answer := e.answers[r.Method+" "+path]
	e.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.WriteHeader(http.StatusTeapot)
	io.WriteString(w, `{"message":"asked"}`)
}

// set changes an answer.
func (e *fakeEngine) set(request string, answer http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers[request] = answer
}

// took returns what was asked since the last call.
func (e *fakeEngine) took() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	asked := e.asked
	e.asked = nil
	return asked
}

// command is a berth command that speaks to the engine.
func (e *fakeEngine) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asBerth+"=1", "BERTH_HOST=unix://"+e.socket, "TZ=UTC")
	return cmd
}

// run runs a command to its end.
func (e *fakeEngine) run(stdin string, args ...string) (code int, stdout, stderr string) {
	e.t.Helper()
	cmd := e.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		e.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// says answers with a JSON text.
func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

// stream answers with a connection taken over.
func stream(media string, fn func(conn net.Conn, in io.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.%s-stream\r\nApi-Version: 1.50\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", media)
		fn(conn, rw)
	}
}

// frame is a piece of output as engines frame it: stream 1 or 2, length, text.
func frame(stream byte, text string) []byte {
	return append([]byte{stream, 0, 0, 0, 0, 0, byte(len(text) >> 8), byte(len(text))}, text...)
}
