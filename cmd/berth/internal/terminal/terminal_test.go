package terminal

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// openPty opens a pseudo-terminal: what its user sees and its other side.
func openPty(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return user, tty
}

func TestRawRestores(t *testing.T) {
	user, tty := openPty(t)
	if !Is(tty) {
		t.Fatal("a pseudo-terminal is not taken for a terminal")
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := MakeRaw(tty)
	if err != nil {
		t.Fatal(err)
	}
	// Without a line end and with an interrupt character: only raw mode passes these.
	if _, err := user.Write([]byte("x\x03\r")); err != nil {
		t.Fatal(err)
	}
	var got [8]byte
	n, err := tty.Read(got[:])
	if err != nil || string(got[:n]) != "x\x03\r" {
		t.Errorf("read %q, %v in raw mode", got[:n], err)
	}
	for range 2 {
		if err := raw.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("mode after Restore is %+v, %v, want %+v", after, err, before)
	}
	if err := (*Raw)(nil).Restore(); err != nil {
		t.Error(err)
	}
}

func TestSize(t *testing.T) {
	user, tty := openPty(t)
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 101}); err != nil {
		t.Fatal(err)
	}
	if h, w := Size(tty); h != 33 || w != 101 {
		t.Errorf("size %d×%d, want 33×101", h, w)
	}
}

func TestNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if Is(r) {
		t.Error("a pipe is taken for a terminal")
	}
	if h, w := Size(r); h != 0 || w != 0 {
		t.Errorf("a pipe has size %d×%d", h, w)
	}
	if _, err := MakeRaw(r); err == nil {
		t.Error("a pipe was put into raw mode")
	}
}
