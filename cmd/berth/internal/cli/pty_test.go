package cli

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// typist is a command on a pseudo-terminal and the user in front of it.
type typist struct {
	t    *testing.T
	user *os.File
	tty  *os.File
	cmd  *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer
	more *sync.Cond
	end  bool
}

// sit starts a command on a new terminal of 30×90.
func sit(t *testing.T, cmd *exec.Cmd) *typist {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &typist{t: t, user: user, tty: tty, cmd: cmd}
	p.more = sync.NewCond(&p.mu)
	p.resize(30, 90)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); p.watch() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		tty.Close()
		user.Close()
		<-done
	})
	return p
}

func (p *typist) watch() {
	var buf [4096]byte
	for {
		n, err := p.user.Read(buf[:])
		p.mu.Lock()
		p.seen.Write(buf[:n])
		p.end = err != nil
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *typist) resize(rows, cols uint16) {
	if err := unix.IoctlSetWinsize(int(p.user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *typist) types(text string) {
	if _, err := p.user.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// sees waits until the screen has shown a text.
func (p *typist) sees(text string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !strings.Contains(p.seen.String(), text) {
		if p.end {
			p.t.Fatalf("the screen never showed %q:\n%s", text, p.seen.String())
		}
		p.more.Wait()
	}
}

func (p *typist) mode() unix.Termios {
	p.t.Helper()
	m, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *m
}

// exits waits for the command's end and returns its exit code, -1 for a signal.
func (p *typist) exits() int {
	p.t.Helper()
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

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
	p := sit(t, e.command("run", "-it", "busybox"))
	before := p.mode()
	p.sees("hello")
	if m := p.mode(); m.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("the terminal is not in raw mode: lflag %x", m.Lflag)
	}
	p.types("a\x03\x10") // interrupt, and half of the detach keys
	p.types("b")
	p.sees(`["a"]["\x03"]["\x10"]["b"]`)
	p.types("x")
	if code := p.exits(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	if after := p.mode(); after != before {
		t.Errorf("the terminal's mode was not restored: %+v, was %+v", after, before)
	}
	asked := e.took()
	want := []string{
		"POST /containers/create", "POST /containers/c1/attach?stderr=1&stdin=1&stdout=1&stream=1",
		"POST /containers/c1/wait?condition=next-exit", "POST /containers/c1/start",
	}
	if !contains(asked, want...) || !contains(asked, "POST /containers/c1/resize?h=30&w=90") {
		t.Errorf("asked %q, want %q and the size", asked, want)
	}
}

// contains tells whether all of want were asked, in any order but the last at last.
func contains(asked []string, want ...string) bool {
	for _, w := range want {
		found := false
		for _, a := range asked {
			found = found || a == w
		}
		if !found {
			return false
		}
	}
	return true
}

func TestTerminalDetach(t *testing.T) {
	for keys, typed := range map[string]string{"": "\x10\x11", "ctrl-a,d": "\x01d"} {
		e := shell(t)
		args := []string{"run", "-it", "busybox"}
		if keys != "" {
			args = []string{"run", "-it", "--detach-keys", keys, "busybox"}
		}
		p := sit(t, e.command(args...))
		before := p.mode()
		p.sees("hello")
		p.types("a")
		p.sees(`["a"]`)
		p.types(typed)
		p.sees("read escape sequence")
		if code := p.exits(); code != 0 {
			t.Errorf("exit code %d after a detach", code)
		}
		if after := p.mode(); after != before {
			t.Errorf("the terminal's mode was not restored")
		}
	}
}

func TestTerminalResize(t *testing.T) {
	e := shell(t)
	sized := make(chan string, 16)
	e.answers["POST /containers/c1/resize"] = func(w http.ResponseWriter, r *http.Request) {
		sized <- r.URL.Query().Encode()
	}
	p := sit(t, e.command("run", "-it", "busybox"))
	p.sees("hello")
	if got := <-sized; got != "h=30&w=90" {
		t.Errorf("first size %s", got)
	}
	p.resize(40, 100)
	if got := <-sized; got != "h=40&w=100" {
		t.Errorf("second size %s", got)
	}
	p.types("x")
	p.exits()
}

func TestTerminalRestoredBySignal(t *testing.T) {
	for _, c := range []struct {
		proxy string
		// code is the exit code: the container's, or -1 for berth's own death.
		code int
	}{{"true", 3}, {"false", -1}} {
		e := shell(t)
		p := sit(t, e.command("run", "-it", "--sig-proxy="+c.proxy, "busybox"))
		before := p.mode()
		p.sees("hello")
		p.cmd.Process.Signal(syscall.SIGTERM)
		if c.code >= 0 {
			// The engine's wait has ended; the output ends with the container.
			p.types("x")
		}
		if code := p.exits(); code != c.code {
			t.Errorf("sig-proxy=%s: exit code %d, want %d", c.proxy, code, c.code)
		}
		if after := p.mode(); after != before {
			t.Errorf("sig-proxy=%s: the terminal's mode was not restored", c.proxy)
		}
		if forwarded := contains(e.took(), "POST /containers/c1/kill?signal=SIGTERM"); forwarded != (c.proxy == "true") {
			t.Errorf("sig-proxy=%s: signal forwarded: %v", c.proxy, forwarded)
		}
	}
}

func TestTerminalRestoredByFailedStart(t *testing.T) {
	e := shell(t)
	e.answers["POST /containers/c1/start"] = says(400, `{"message":"exec: \"nosuch\": executable file not found in $PATH"}`)
	p := sit(t, e.command("run", "-it", "--rm", "busybox", "nosuch"))
	before := p.mode()
	p.sees("executable file not found")
	if code := p.exits(); code != 127 {
		t.Errorf("exit code %d, want 127", code)
	}
	if after := p.mode(); after != before {
		t.Error("the terminal's mode was not restored")
	}
	if !contains(e.took(), "DELETE /containers/c1?force=1&v=1") {
		t.Error("the container that did not start was not removed")
	}
}
