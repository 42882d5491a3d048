package docker_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a docker command on a pseudoterminal.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	seen   strings.Builder
	cancel context.CancelFunc
}

// onTerminal starts a docker command on a terminal of the given size.
func (d *daemon) onTerminal(t *testing.T, rows, columns uint16, args ...string) *terminal {
	t.Helper()
	master, slave := openPty(t)
	defer slave.Close()
	term := &terminal{t: t, master: master}
	term.resize(rows, columns)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	term.cancel = cancel
	term.cmd = d.command(ctx, args...)
	term.cmd.Env = append(term.cmd.Env, "TERM=dumb")
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return term
}

// openPty opens a new pseudoterminal (pts(4)).
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// resize changes the terminal's size and, as a terminal emulator's kernel
// does, tells the processes on it.
func (term *terminal) resize(rows, columns uint16) {
	term.t.Helper()
	if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		term.t.Fatal(err)
	}
}

// types sends keys.
func (term *terminal) types(keys string) {
	term.t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// shows reads until the screen has shown text since the last call.
func (term *terminal) shows(text string) {
	term.t.Helper()
	buffer := make([]byte, 4096)
	for {
		if before, after, ok := strings.Cut(term.seen.String(), text); ok {
			_ = before
			term.seen.Reset()
			term.seen.WriteString(after)
			return
		}
		n, err := term.master.Read(buffer)
		if err != nil {
			term.t.Fatalf("the terminal never showed %q: %v; it showed %q", text, err, term.seen.String())
		}
		term.seen.Write(buffer[:n])
	}
}

// end reads the rest and returns the exit code.
func (term *terminal) end() int {
	term.t.Helper()
	buffer := make([]byte, 4096)
	for {
		if _, err := term.master.Read(buffer); err != nil {
			break // EIO: the last process on the terminal has closed it
		}
	}
	err := term.cmd.Wait()
	term.cancel()
	term.master.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		term.t.Fatal(err)
	}
	return term.cmd.ProcessState.ExitCode()
}
