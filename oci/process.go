package oci

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// Process is a started process of a container. Its parent is the caller.
type Process struct {
	// Pid is the process's id in the caller's pid namespace.
	Pid int
	// Pidfd refers to the process; it becomes readable when it exits. The
	// holder of the Process closes it.
	Pidfd *os.File
	// Console is the terminal's master, nil without a terminal. The holder of
	// the Process closes it.
	Console *os.File

	plan   *Plan
	image  *os.File
	cloned bool // becomeClone has happened
}

// Wait blocks until the process has ended and reaps it. Only the parent may,
// and only once.
func (pr *Process) Wait() (syscall.WaitStatus, error) {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pr.Pid, &ws, 0, nil)
		if err == nil {
			return ws, nil
		}
		if err != syscall.EINTR {
			return 0, fmt.Errorf("wait for process %d: %w", pr.Pid, err)
		}
	}
}

// Close releases the descriptors. It does not end the process.
func (pr *Process) Close() {
	for _, f := range []*os.File{pr.Pidfd, pr.Console} {
		if f != nil {
			f.Close()
		}
	}
}

// Signal sends sig to the process, never to another that got its number.
func (pr *Process) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(pr.Pidfd.Fd()), sig, nil, 0)
	if err != nil {
		return fmt.Errorf("signal process %d: %w", pr.Pid, err)
	}
	return nil
}

// Stdio are the standard streams of a command; nil means /dev/null. They are
// not used with a terminal.
type Stdio struct {
	In, Out, Err *os.File
}

// hostNull tells which of the streams are /dev/null.
func (s Stdio) hostNull() (null [3]bool) {
	for i, f := range []*os.File{s.In, s.Out, s.Err} {
		var st unix.Stat_t
		null[i] = f == nil || unix.Fstat(int(f.Fd()), &st) == nil &&
			st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
	}
	return null
}

// launchHooks are what a launch does at certain moments; nil means nothing.
type launchHooks struct {
	// prepare runs beside the program, which waits for its end before it enters
	// the cgroup.
	prepare func(*Process) error
	// made is called when the process exists, while it sets itself up.
	made func(*Process) error
	// midway is called when the program pauses for the parent (msgPause).
	midway func(*Process) error
}

// launch makes the plan's process and follows it until it runs the command,
// waits to be started, or has failed. image is where the encoded program goes;
// nil: a memory file.
func (r *Runner) launch(plan *Plan, stdio Stdio, image *os.File, hooks launchHooks) (*Process, error) {
	if plan.trace != nil {
		plan.Program.Trace()
	}
	code, err := plan.Program.Encode()
	if err != nil {
		return nil, err
	}
	if image == nil {
		if image, err = p.NewImage(code); err != nil {
			return nil, err
		}
		defer image.Close()
	} else if _, err := image.WriteAt(code, 0); err != nil {
		return nil, fmt.Errorf("write program: %w", err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	pr, err := r.spawn(plan, stdio, image, theirs)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	plan.trace.Mark("make the process")
	if hooks.prepare != nil {
		if err := answer(ours, hooks.prepare(pr)); err != nil {
			pr.abandon()
			pr.Close()
			return nil, err
		}
		plan.trace.Mark("make the cgroup")
	}
	if err := pr.setUp(ours, &hooks); err != nil {
		pr.Close()
		return nil, err
	}
	plan.trace.Mark("wait until the command runs")
	if err := plan.trace.child(plan.Program, image); err != nil {
		pr.abandon()
		pr.Close()
		return nil, err
	}
	return pr, nil
}

// setUp follows the process to the end of its set-up.
func (pr *Process) setUp(sync *os.File, hooks *launchHooks) error {
	made := hooks.made
	if made == nil {
		made = func(*Process) error { return nil }
	}
	var err error
	if !pr.plan.joinPID {
		err = made(pr)
	}
	ready, ferr := pr.follow(sync, func() error {
		if err := pr.becomeClone(); err != nil {
			return err
		}
		if err := errors.Join(made(pr), pr.moveDevices()); err != nil || hooks.midway == nil {
			return err
		}
		return hooks.midway(pr)
	})
	if ferr != nil {
		if errors.Is(ferr, ErrAborted) {
			ferr = pr.abortedIn(ferr)
		}
		cerr := pr.becomeClone()
		pr.abandon()
		if pr.plan.joinPID && !pr.cloned {
			cerr = errors.Join(cerr, pr.abandonClone())
		}
		return errors.Join(ferr, cerr)
	}
	if serr := pr.settle(ready); serr != nil {
		return serr
	}
	if pr.plan.joinPID { // only now it is known
		err = made(pr)
	}
	if err != nil {
		pr.abandon()
	}
	return err
}

// spawn opens what is to be inherited and starts the process.
func (r *Runner) spawn(plan *Plan, stdio Stdio, image, sync *os.File) (*Process, error) {
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	open := func(path string, flags int) (*os.File, error) {
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			opened = append(opened, f)
		}
		return f, err
	}
	l := p.Launch{Image: image, Sync: sync, Attr: &plan.attr, Name: "berth:init"}
	for _, in := range plan.files {
		f := in.file
		if in.make != nil {
			var err error
			if f, err = in.make(r); err != nil {
				return nil, err
			}
			opened = append(opened, f)
		}
		if in.path != "" {
			mode := unix.O_RDONLY
			if in.write {
				mode = unix.O_WRONLY
			}
			var err error
			if f, err = open(in.path, mode|unix.O_CLOEXEC); err != nil {
				return nil, fmt.Errorf("%s: %w", in.name, err)
			}
			if in.procfs {
				if err := checkProcfs(f); err != nil {
					return nil, err
				}
			}
		}
		l.Files = append(l.Files, f)
	}
	for i, f := range []*os.File{stdio.In, stdio.Out, stdio.Err} {
		if f == nil {
			var err error
			if f, err = open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC); err != nil {
				return nil, err
			}
		}
		l.Stdio[i] = f
	}
	pid, pidfd, err := r.startOn(plan.initialCPUs, &l)
	if err != nil {
		err = fmt.Errorf("make the container's process: %w", err)
		if errors.Is(err, unix.EPERM) && plan.attr.Cloneflags&unix.CLONE_NEWUSER == 0 && !IsHostRoot() {
			err = errdefs.WithHint(err, "without root a container needs a user namespace in its configuration")
		}
		return nil, err
	}
	return &Process{Pid: pid, Pidfd: pidfd, plan: plan, image: image}, nil
}

// checkProcfs makes sure that what was opened as /proc is one, whole.
func checkProcfs(f *os.File) error {
	const rootInode = 1 // PROC_ROOT_INO
	var fs unix.Statfs_t
	var st unix.Stat_t
	fd := int(f.Fd())
	if unix.Fstatfs(fd, &fs) != nil || unix.Fstat(fd, &st) != nil || fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != rootInode {
		return errdefs.WithHint(fmt.Errorf("%s: not the proc file system", f.Name()), "mount proc there")
	}
	return nil
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sync socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "sync"), os.NewFile(uintptr(fds[1]), "sync"), nil
}

// follow reads what the process says until it closes the socket: by running
// the command, by telling that it waits (ready), or by ending. When it pauses,
// midway is called, and it goes on when that succeeds.
func (pr *Process) follow(sync *os.File, midway func() error) (ready bool, err error) {
	buf := make([]byte, 8)
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		if pr.plan.abort != nil {
			if _, err := awaitEvent(sync, unix.POLLIN, pr.plan.abort, time.Time{}); err != nil {
				return false, err
			}
		}
		n, oobn, _, _, err := unix.Recvmsg(int(sync.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		// Reset: it ended before it read what was written to it.
		if n == 0 && err == nil || err == unix.ECONNRESET {
			return ready, nil
		}
		if err != nil {
			return false, fmt.Errorf("hear of the process's set-up: %w", err)
		}
		switch string(buf[:n]) {
		case msgPause:
			if err := answer(sync, midway()); err != nil {
				return false, err
			}
		case msgMapIDs:
			if err := answer(sync, pr.plan.mapIDs(pr.Pid)); err != nil {
				return false, err
			}
		case msgReady:
			ready = true
		case msgConsole:
			pr.takeMaster(oob[:oobn])
		case msgListener:
			if err := pr.handOverListener(sync, oob[:oobn]); err != nil {
				return false, err
			}
		}
	}
}

// answer lets the process go on, unless what it asked for failed.
func answer(sync *os.File, err error) error {
	if err != nil {
		return err
	}
	// A program that has failed meanwhile hears nothing; its report tells why.
	if _, err := sync.Write([]byte(msgGo)); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("continue program: %w", err)
	}
	return nil
}

// takeMaster keeps the terminal's master that came with a message.
func (pr *Process) takeMaster(oob []byte) {
	for _, fd := range descriptors(oob) {
		if pr.Console != nil {
			unix.Close(fd)
			continue
		}
		unix.SetNonblock(fd, true)
		pr.Console = os.NewFile(uintptr(fd), "/dev/ptmx")
	}
}

// descriptors are those that came with a message.
func descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil
	}
	return fds
}

// errNoTerminal: the container offered something else than a terminal.
var errNoTerminal = errors.New("open terminal: /dev/pts/ptmx of the container is no terminal")

// checkMaster makes sure that the descriptor is the master of a
// pseudoterminal: in a running container the name may lead anywhere.
func (pr *Process) checkMaster() error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if pr.Console == nil {
		return errNoTerminal
	}
	fd := int(pr.Console.Fd())
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fs) != nil ||
		st.Rdev != unix.Mkdev(5, 2) || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return errNoTerminal
	}
	unix.SetNonblock(fd, true) // Fd made it blocking
	return nil
}

// settle decides from the program's report how the set-up went, and on failure
// reaps what is left of it.
func (pr *Process) settle(ready bool) error {
	if err := pr.becomeClone(); err != nil {
		return err
	}
	report, err := p.ReadReport(pr.image)
	if err != nil {
		pr.abandon()
		return err
	}
	if report.Failed {
		pr.abandon()
		return stepError(pr.plan.Program.Step(report.Op), report.Errno)
	}
	if pr.plan.waits && !ready {
		return pr.diedIn(report)
	}
	if !ready && report.Op < pr.plan.firstExec() {
		return pr.diedIn(report)
	}
	if pr.plan.terminal {
		if err := pr.checkMaster(); err != nil {
			pr.abandon()
			return err
		}
	}
	return nil
}

// firstExec is the index of the first op that runs the command, or its init.
func (plan *Plan) firstExec() int {
	for i := range plan.Program.Len() {
		if sys := plan.Program.Op(i).Sys; sys == p.Execve || sys == p.Execveat {
			return i
		}
	}
	return plan.Program.Len()
}

// becomeClone follows a process that cloned itself into a joined pid
// namespace: reaps the first and takes the second.
func (pr *Process) becomeClone() error {
	if !pr.plan.joinPID || pr.cloned {
		return nil
	}
	slot, err := pr.plan.Program.ReadSlot(pr.image, pr.plan.pidSlot)
	if err != nil || slot == 0 {
		return err // it failed before
	}
	second, fd := int(slot), -1
	if _, err = pr.Wait(); err == nil {
		fd, err = unix.PidfdOpen(second, 0)
	}
	if err != nil {
		// Our own child that is not reaped: the number cannot have been reused.
		_ = unix.Kill(second, unix.SIGKILL)
		_, werr := (&Process{Pid: second}).Wait()
		return errors.Join(fmt.Errorf("take over process %d: %w", second, err), werr)
	}
	pr.Pidfd.Close()
	pr.Pidfd, pr.Pid, pr.cloned = os.NewFile(uintptr(fd), "pidfd"), second, true
	return nil
}

// abortedIn names the step that the program is at, unless the parent was at work.
func (pr *Process) abortedIn(err error) error {
	report, rerr := p.ReadReport(pr.image)
	if err != ErrAborted || rerr != nil {
		return err
	}
	return fmt.Errorf("%s: %w", pr.plan.Program.Step(report.Op), err)
}

// abandonClone ends what a process has cloned before it was ended itself.
func (pr *Process) abandonClone() error {
	slot, err := pr.plan.Program.ReadSlot(pr.image, pr.plan.pidSlot)
	if err != nil || slot == 0 {
		return err
	}
	// Our own child that is not reaped: the number cannot have been reused.
	_ = unix.Kill(int(slot), unix.SIGKILL)
	_, err = (&Process{Pid: int(slot)}).Wait()
	return err
}

// abandon ends and reaps the process.
func (pr *Process) abandon() syscall.WaitStatus {
	if err := pr.Signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		// Our own child that is not reaped: waiting must not last for ever.
		_ = unix.Kill(pr.Pid, unix.SIGKILL)
	}
	ws, _ := pr.Wait()
	return ws
}

// diedIn is the error for a process that was killed during its set-up.
func (pr *Process) diedIn(report p.Report) error {
	ws := pr.abandon()
	return fmt.Errorf("%s: the process was killed (%s) before the command ran: is the memory or pids limit too small?",
		pr.plan.Program.Step(report.Op), ws.Signal())
}

// Warnings say what this host could not give and was left as inherited.
func (pr *Process) Warnings() []string { return pr.plan.Warnings }
