package main

import (
	"errors"
	"flag"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/oci"
)

func runRun(a *app, fs *flag.FlagSet, args []string) (int, error) {
	var l launchFlags
	l.define(fs)
	detach := boolFlag(fs, "detach", "d", false, "do not wait for the container")
	keep := fs.Bool("keep", false, "do not delete the container when it has ended")
	trace := fs.Bool("trace", false, "print to standard error where the time of the start went")
	fs.Bool("no-subreaper", false, "accepted and without effect: only the container's own process is waited for")
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	if *trace {
		l.trace = oci.NewTrace()
	}
	caught := notify(*detach)
	spec, raw, err := l.bundled()
	if errors.Is(err, errNeedsSocket) && !*detach {
		err = nil
	}
	if err != nil {
		return 1, err
	}
	signals := <-caught
	l.trace.Mark("read the bundle, catch signals")
	c, pr, err := a.launch(id, &l, *detach, spec, raw, false)
	if err != nil {
		return exitCode(err), err
	}
	defer pr.Close()
	if *detach || *keep {
		c.Close()
	} else if err := c.Unlock(); err != nil {
		return 1, err
	}
	if *detach {
		return 0, l.writeTrace()
	}
	code, err = foreground(pr, signals)
	l.trace.Mark("wait until the command has ended")
	if err == nil && !*keep {
		err = c.DeleteEnded()
		l.trace.Mark("delete the container")
	}
	return code, errors.Join(err, l.writeTrace())
}

// writeTrace prints the trace, if there is one.
func (l *launchFlags) writeTrace() error {
	if l.trace == nil {
		return nil
	}
	return l.trace.Write(os.Stderr)
}

// notify catches the signals people and service managers send, which are for
// the container, unless that is detached. (Each costs two thread switches in
// the Go runtime: 0.2 ms, beside the reading of the bundle; all 65 would be
// 2 ms.) The channel of signals is received once they are caught.
func notify(detached bool) <-chan chan os.Signal {
	caught := make(chan chan os.Signal, 1)
	if detached {
		caught <- nil
		return caught
	}
	go func() {
		ch := make(chan os.Signal, 64)
		signal.Notify(ch, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
		caught <- ch
	}()
	return caught
}

// foreground waits for the process, passes signals on and joins its terminal
// to ours. The code is the process's, 128+N for signal N.
func foreground(pr *oci.Process, signals chan os.Signal) (int, error) {
	restore, err := attachTerminal(pr)
	if err != nil {
		return 1, err
	}
	go func() { // until we exit
		for s := range signals {
			forward(pr, s)
		}
	}()
	ws, err := pr.Wait()
	restore()
	if err != nil {
		return 1, err
	}
	return waitCode(ws), nil
}

func forward(pr *oci.Process, s os.Signal) {
	sig := s.(syscall.Signal)
	switch sig {
	case unix.SIGWINCH:
		resizeTerminal(pr)
	default:
		_ = pr.Signal(sig) // it may just have ended
	}
}

func waitCode(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// exitCode is berth-oci's status for an error: shells' 127 and 126 when it is
// the command's fault, else 1.
func exitCode(err error) int {
	switch {
	case errors.Is(err, oci.ErrCommandNotFound):
		return 127
	case errors.Is(err, oci.ErrCommandNotExecutable):
		return 126
	}
	return 1
}
