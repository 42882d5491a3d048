package cli

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/test/typist"
)

// shell is an engine with one container, a terminal: it greets, repeats what
// is typed in brackets and ends at "x", with exit code 3.
func shell(t *testing.T) *fakeEngine {
	ended := make(chan struct{})
	started := make(chan struct{})
	var once sync.Once
	return newFakeEngine(t, map[string]http.HandlerFunc{
		"POST /containers/create": says(201, `{"Id":"c1","Warnings":[]}`),
		"POST /containers/c1/attach": stream("raw", func(conn net.Conn, in io.Reader) {
			<-started
			io.WriteString(conn, "hello\r\n")
			var key [1]byte
			for {
				if _, err := in.Read(key[:]); err != nil {
					return
				}
				if key[0] == 'x' {
					once.Do(func() { close(ended) })
					return
				}
				io.WriteString(conn, "["+strconv.Quote(string(key[:]))+"]")
			}
		}),
		"POST /containers/c1/wait": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			select {
			case <-ended:
				io.WriteString(w, `{"StatusCode":3}`)
			case <-r.Context().Done():
			}
		},
		"POST /containers/c1/start":  func(w http.ResponseWriter, r *http.Request) { close(started); w.WriteHeader(204) },
		"POST /containers/c1/resize": says(200, ""),
		"POST /containers/c1/kill": func(w http.ResponseWriter, r *http.Request) {
			once.Do(func() { close(ended) })
			w.WriteHeader(204)
		},
	})
}

func TestTerminalSession(t *testing.T) {
	e := shell(t)
	sized := make(chan string, 16)
	e.set("POST /containers/c1/resize", func(w http.ResponseWriter, r *http.Request) { sized <- r.URL.Query().Encode() })
	p := typist.Sit(t, e.command("run", "-it", "busybox"))
	before := p.Before()
	p.Sees("hello")
	if m := p.Mode(); m.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("the terminal is not in raw mode: lflag %x", m.Lflag)
	}
	p.Types("a\x03\x10") // interrupt, and half of the detach keys
	p.Types("b")
	p.Sees(`["a"]["\x03"]["\x10"]["b"]`)
	if got := <-sized; got != "h=30&w=90" { // it goes its own way: the command may end first
		t.Errorf("size %s", got)
	}
	p.Types("x")
	if code := p.Exits(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	if after := p.Mode(); after != before {
		t.Errorf("the terminal's mode was not restored: %+v, was %+v", after, before)
	}
	asked := e.took()
	want := []string{
		"POST /containers/create", "POST /containers/c1/attach?stderr=1&stdin=1&stdout=1&stream=1",
		"POST /containers/c1/wait?condition=next-exit", "POST /containers/c1/start",
	}
	if !contains(asked, want...) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// contains tells whether all of want were asked.
func contains(asked []string, want ...string) bool {
	for _, w := range want {
		if !slices.Contains(asked, w) {
			return false
		}
	}
	return true
}

func TestTerminalDetach(t *testing.T) {
	for _, tc := range []struct{ keys, configured, typed string }{
		{"", "", "\x10\x11"}, {"ctrl-a,d", "", "\x01d"}, {"", "ctrl-b,q", "\x02q"}, {"ctrl-a,d", "ctrl-b,q", "\x01d"},
	} {
		e, typed := shell(t), tc.typed
		args := []string{"run", "-it", "busybox"}
		if tc.keys != "" {
			args = []string{"run", "-it", "--detach-keys", tc.keys, "busybox"}
		}
		cmd := e.command(args...)
		dir := t.TempDir()
		cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir)
		if tc.configured != "" {
			text := `{"detachKeys": "` + tc.configured + `"}`
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := typist.Sit(t, cmd)
		before := p.Before()
		p.Sees("hello")
		p.Types("a")
		p.Sees(`["a"]`)
		p.Types(typed)
		p.Sees("read escape sequence")
		if code := p.Exits(); code != 0 {
			t.Errorf("exit code %d after a detach", code)
		}
		if after := p.Mode(); after != before {
			t.Errorf("the terminal's mode was not restored")
		}
	}
}

func TestTerminalResize(t *testing.T) {
	e := shell(t)
	sized := make(chan string, 16)
	e.set("POST /containers/c1/resize", func(w http.ResponseWriter, r *http.Request) {
		sized <- r.URL.Query().Encode()
	})
	p := typist.Sit(t, e.command("run", "-it", "busybox"))
	p.Sees("hello")
	if got := <-sized; got != "h=30&w=90" {
		t.Errorf("first size %s", got)
	}
	p.Resize(40, 100)
	if got := <-sized; got != "h=40&w=100" {
		t.Errorf("second size %s", got)
	}
	p.Types("x")
	p.Exits()
}

func TestTerminalRestoredBySignal(t *testing.T) {
	for _, c := range []struct {
		proxy string
		// code is the exit code: the container's, or -1 for berth's own death.
		code int
	}{{"true", 3}, {"false", -1}} {
		e := shell(t)
		killed := make(chan struct{}, 1)
		e.set("POST /containers/c1/kill", func(w http.ResponseWriter, _ *http.Request) {
			killed <- struct{}{}
			w.WriteHeader(http.StatusNoContent)
		})
		p := typist.Sit(t, e.command("run", "-it", "--sig-proxy="+c.proxy, "busybox"))
		before := p.Before()
		p.Sees("hello")
		p.Signal(syscall.SIGTERM)
		if c.code >= 0 {
			<-killed
			// The engine's wait has ended; the output ends with the container.
			p.Types("x")
		}
		if code := p.Exits(); code != c.code {
			t.Errorf("sig-proxy=%s: exit code %d, want %d", c.proxy, code, c.code)
		}
		if after := p.Mode(); after != before {
			t.Errorf("sig-proxy=%s: the terminal's mode was not restored", c.proxy)
		}
		if forwarded := contains(e.took(), "POST /containers/c1/kill?signal=SIGTERM"); forwarded != (c.proxy == "true") {
			t.Errorf("sig-proxy=%s: signal forwarded: %v", c.proxy, forwarded)
		}
	}
}

func TestTerminalRestoredByFailedStart(t *testing.T) {
	e := shell(t)
	e.set("POST /containers/c1/start", says(400, `{"message":"exec: \"nosuch\": executable file not found in $PATH"}`))
	p := typist.Sit(t, e.command("run", "-it", "--rm", "busybox", "nosuch"))
	before := p.Before()
	p.Sees("executable file not found")
	if code := p.Exits(); code != 127 {
		t.Errorf("exit code %d, want 127", code)
	}
	if after := p.Mode(); after != before {
		t.Error("the terminal's mode was not restored")
	}
	if !contains(e.took(), "DELETE /containers/c1?force=1&v=1") {
		t.Error("the container that did not start was not removed")
	}
}
