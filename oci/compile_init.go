package oci

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// initStep begins the names of the steps about the container's init.
const initStep = "start init"

// allSignals is a signal set of every signal there is.
func (c *compiler) allSignals() p.Arg {
	return c.Data([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "all")
}

// prepareInit makes the counter by which the init learns the command's process
// id. It comes before the seccomp filter, which may not know the call.
func (c *compiler) prepareInit() {
	if c.in.init == nil {
		return
	}
	c.counter = c.Slot("counter")
	c.Call(initStep, p.Eventfd2, p.Int(0), p.Flag(unix.EFD_CLOEXEC, "EFD_CLOEXEC")).Store(c.counter)
}

// executeUnderInit starts the command as a child, in a process group of its own
// that has the terminal, and becomes the init.
//
// The clone shares the report with this process, which waits for it to execute
// (CLONE_VFORK). When it cannot, it says so in a slot and ends, and this process
// tries the same, only for its error to be reported. An init takes signals while
// they are blocked; those that come early wait for it.
func (c *compiler) executeUnderInit(pr *specs.Process) {
	run := c.newCommand(pr)
	child, failed, broken := c.NewLabel(), c.NewLabel(), c.NewLabel()
	outcome, pid, own := c.Slot("outcome"), c.Slot("command"), c.Slot("pid")
	setMask := p.Flag(unix.SIG_SETMASK, "SIG_SETMASK")
	none := c.Data(make([]byte, 8), "none")
	c.Call(initStep, p.RtSigprocmask, setMask, c.allSignals(), p.Null, p.Int(8))
	c.Call(initStep, p.Clone, p.Flag(unix.CLONE_VFORK|uint64(unix.SIGCHLD), "CLONE_VFORK|SIGCHLD"), p.Null, p.Null, p.Null, p.Null).
		Store(pid).ThenIfZero(child)

	// The outcome is 0, which is open, or a number that no descriptor has.
	c.Call(initStep, p.Fcntl, outcome, p.Flag(unix.F_GETFD, "F_GETFD"), p.Int(0)).OnErrno(unix.EBADF, broken)
	c.Call(initStep, p.Write, c.counter, c.AddressOf(pid), p.Int(8))
	c.Call(initStep, p.Dup3, c.counter, p.Int(p.InitFile), p.Int(0))
	c.Call(initStep, p.Prctl, p.Flag(unix.PR_SET_CHILD_SUBREAPER, "PR_SET_CHILD_SUBREAPER"), p.Int(1), p.Int(0), p.Int(0), p.Int(0))
	args := c.Strings(append([]string{p.InitName, "--"}, pr.Args...), "args")
	c.Call(initStep, p.Execveat, c.initFile, c.Str(""), args, c.Strings(nil, "env"), p.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"))

	c.Mark(child)
	const command = "start command"
	c.Call(command, p.Setpgid, p.Int(0), p.Int(0)).TolerateAll()
	if pr.Terminal {
		c.Call(command, p.Getpid).Store(own)
		c.Call(command, p.Ioctl, p.Int(0), p.Flag(unix.TIOCSPGRP, "TIOCSPGRP"), c.AddressOf(own)).TolerateAll()
	}
	c.Call(command, p.RtSigprocmask, setMask, none, p.Null, p.Int(8))
	c.run(run, failed)

	c.Mark(failed)
	c.Call(command, p.Umask, p.Int(0o777)).TolerateAll()
	c.Call(command, p.Umask, p.Int(0)).Store(outcome)
	c.Call(command, p.ExitGroup, p.Int(exitStartFailed))

	c.Mark(broken)
	c.run(run, 0)
}

// exitStartFailed is never seen: the parent takes the process for failed.
const exitStartFailed = 127

// openInit makes the file of the init, once per Runner.
func (r *Runner) openInit() (*os.File, error) {
	r.initOnce.Do(func() { r.init, r.initErr = p.NewInit() })
	return r.init, r.initErr
}
