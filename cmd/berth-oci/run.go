package main

import (
	"errors"
	"flag"
	"os"
	"syscall"

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
	caught, err := catchSignals(*detach)
	if err != nil {
		return 1, err
	}
	spec, raw, err := l.bundled()
	if errors.Is(err, errNeedsSocket) && !*detach {
		err = nil
	}
	if err != nil {
		return 1, err
	}
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
		return 0, errors.Join(l.notify.waitReady(pr.Pidfd, pr.Pid), l.writeTrace())
	}
	code, err = foreground(pr, caught, l.notify)
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

// foreground waits for the process, passes signals on and joins its terminal
// to ours. The code is the process's, 128+N for signal N.
func foreground(pr *oci.Process, caught *signals, n *notification) (int, error) {
	restore, err := attachTerminal(pr)
	if err != nil {
		return 1, err
	}
	ws, err := caught.wait(pr, n)
	restore()
	if err != nil {
		return 1, err
	}
	return waitCode(ws), nil
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
