// Package terminal handles the user's terminal: raw mode, size and the keys
// that detach from a container.
package terminal

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Is tells whether f is a terminal.
func Is(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Size returns a terminal's size in characters; 0, 0 when f is none.
func Size(f *os.File) (height, width uint) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return uint(ws.Row), uint(ws.Col)
}

// Raw is a terminal in raw mode.
type Raw struct {
	f    *os.File
	old  unix.Termios
	once sync.Once
	err  error
}

// MakeRaw puts a terminal into raw mode (cfmakeraw of termios(3)): every key
// goes to the reader, nothing is echoed or translated.
func MakeRaw(f *os.File) (*Raw, error) {
	old, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read terminal mode: %w", err)
	}
	t := *old
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &t); err != nil {
		return nil, fmt.Errorf("set terminal to raw mode: %w", err)
	}
	return &Raw{f: f, old: *old}, nil
}

// Restore puts the terminal back into the mode it was in; further calls do
// nothing. It may be called on nil and from any goroutine.
func (r *Raw) Restore() error {
	if r == nil {
		return nil
	}
	r.once.Do(func() { r.err = unix.IoctlSetTermios(int(r.f.Fd()), unix.TCSETS, &r.old) })
	return r.err
}
