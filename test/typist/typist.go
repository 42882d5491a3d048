// Package typist puts a command on a pseudo-terminal, for tests: it types and
// sees what a user would.
package typist

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds what a test waits for; it is never waited out when all is well.
const patience = 2 * time.Minute

// Typist is a command on a pseudo-terminal and the user in front of it.
type Typist struct {
	t    testing.TB
	user *os.File
	tty  *os.File
	cmd  *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer
	more *sync.Cond
	end  bool
	// screen is what seen has drawn.
	screen *screen
	before unix.Termios
}

// Sit starts a command on a new terminal of 30×90.
func Sit(t testing.TB, cmd *exec.Cmd) *Typist {
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
	p := &Typist{t: t, user: user, tty: tty, cmd: cmd, screen: newScreen(30, 90)}
	p.more = sync.NewCond(&p.mu)
	p.Resize(30, 90)
	p.before = p.Mode()
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

func (p *Typist) watch() {
	var buf [4096]byte
	for {
		n, err := p.user.Read(buf[:])
		p.mu.Lock()
		p.seen.Write(buf[:n])
		p.screen.write(buf[:n])
		p.end = err != nil
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Resize gives the terminal another size.
func (p *Typist) Resize(rows, cols uint16) {
	if err := unix.IoctlSetWinsize(int(p.user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.screen.vt.Resize(int(cols), int(rows))
}

// Types types a text.
func (p *Typist) Types(text string) {
	if _, err := p.user.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// Sees waits until the screen has shown a text.
func (p *Typist) Sees(text string) {
	p.t.Helper()
	var seen string
	if !p.until(func() bool {
		seen = p.seen.String()
		return strings.Contains(seen, text)
	}) {
		p.t.Fatalf("the screen never showed %q:\n%s", text, seen)
	}
}

// until waits for what is asked under the lock whenever more has come. It is false
// when the program has ended before, or patience has.
func (p *Typist) until(holds func() bool) bool {
	late := false
	timer := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		late = true
		p.more.Broadcast()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !holds() {
		if p.end || late {
			return false
		}
		p.more.Wait()
	}
	return true
}

// Mode is the terminal's mode.
func (p *Typist) Mode() unix.Termios {
	p.t.Helper()
	m, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *m
}

// Before is the terminal's mode from before the command began.
func (p *Typist) Before() unix.Termios { return p.before }

// Signal sends the command a signal.
func (p *Typist) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Exits waits for the command's end and returns its exit code, -1 for a signal.
func (p *Typist) Exits() int {
	p.t.Helper()
	timer := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}
