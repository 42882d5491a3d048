// Package autostart starts the engine when root's command line finds none
// running.
package autostart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wait bounds how long an engine may take until it listens: it reads its
// records and reconciles them with what runs before it does.
const wait = 60 * time.Second

// logName is the file in the run root that an engine started here logs to.
const logName = "berthd.log"

// Engine says how an engine is started.
type Engine struct {
	// RunRoot is the directory of its socket.
	RunRoot string
	// Socket is the path it will listen at.
	Socket string
	// Binary is berthd's path; empty looks beside this executable, then in PATH.
	Binary string
	// Args are further arguments of berthd.
	Args []string
}

// Start starts the engine in a session of its own and returns when it
// listens. When two callers do so at once one of them starts it and both wait.
func (e Engine) Start(ctx context.Context) error {
	binary, err := e.find()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.RunRoot, 0o755); err != nil {
		return fmt.Errorf("start the Berth engine: %w", err)
	}
	lock, err := e.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if e.listens() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return e.run(ctx, binary)
}

func (e Engine) find() (string, error) {
	if e.Binary != "" {
		return e.Binary, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "berthd")
		if unix.Access(beside, unix.X_OK) == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("berthd")
	if err != nil {
		return "", errors.New("start the Berth engine: no berthd beside berth or in PATH")
	}
	return path, nil
}

// lock keeps others from starting an engine meanwhile. It is held as long as
// the file is open.
func (e Engine) lock() (*os.File, error) {
	path := filepath.Join(e.RunRoot, "autostart.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start the Berth engine: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("start the Berth engine: lock %s: %w", path, err)
		}
	}
}

func (e Engine) listens() bool {
	c, err := net.Dial("unix", e.Socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func (e Engine) run(ctx context.Context, binary string) error {
	log, err := os.OpenFile(filepath.Join(e.RunRoot, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return fmt.Errorf("start the Berth engine: %w", err)
	}
	defer log.Close()
	begin, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("start the Berth engine: %w", err)
	}
	watch, err := newWatch(filepath.Dir(e.Socket))
	if err != nil {
		return err
	}
	defer watch.Close()
	pidfd := -1
	cmd := exec.Command(binary, append([]string{"--auto"}, e.Args...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	// What a script has open in us (a lock, a pipe somebody reads to its end) is
	// not the engine's to hold.
	if err := unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("start the Berth engine: %w", os.NewSyscallError("close_range", err))
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the Berth engine: %w", err)
	}
	defer cmd.Process.Release()
	defer unix.Close(pidfd)
	for !e.listens() {
		ended, err := watch.next(ctx, pidfd)
		if ended && e.listens() {
			return nil // another engine listens: this one had no place
		}
		if ended {
			state, _ := cmd.Process.Wait()
			return &Error{What: fmt.Sprintf("the Berth engine ended while it started (%v)", state), Log: log.Name(), begin: begin}
		}
		if err != nil {
			return &Error{What: fmt.Sprintf("the Berth engine does not listen at %s yet: %v", e.Socket, err), Log: log.Name(), begin: begin}
		}
	}
	return nil
}

// Error says that an engine was started and did not come to listen.
type Error struct {
	What string
	// Log is the engine's log.
	Log   string
	begin int64
}

func (e *Error) Error() string { return e.What }

// LastLines returns the last lines, n at most, that the engine has logged
// since it was started.
func (e *Error) LastLines(n int) []string {
	text, err := os.ReadFile(e.Log)
	if err != nil || int64(len(text)) <= e.begin {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(text[e.begin:])), "\n")
	return lines[max(0, len(lines)-n):]
}

// watch tells of changes in a directory.
type watch struct{ fd int }

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start the Berth engine: watch %s: %w", dir, err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("start the Berth engine: watch %s: %w", dir, err)
	}
	return &watch{fd: fd}, nil
}

func (w *watch) Close() error { return unix.Close(w.fd) }

// bindToListen is how often a socket that exists is tried: listen(2) makes no
// file system event.
const bindToListen = 5 * time.Millisecond

// next waits until the directory has changed, the process has ended or
// bindToListen is over.
func (w *watch) next(ctx context.Context, pidfd int) (ended bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	_, err = unix.Poll(fds, int(bindToListen/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("poll: %w", err)
	}
	if fds[0].Revents != 0 {
		var buf [4096]byte
		_, _ = unix.Read(w.fd, buf[:]) // what has changed does not matter
	}
	return fds[1].Revents != 0, nil
}
