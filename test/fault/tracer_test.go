//go:build amd64

package fault

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fault is what happens at one system call of a command, counted over all of its
// threads. The processes it makes are not followed.
type fault struct {
	at    int           // the number of the call, from 1; 0: none
	errno syscall.Errno // what it fails with; 0: the command is killed before it
}

// traced is how a command with a fault in it ended.
type traced struct {
	calls  int    // how many it made that may fail
	hit    string // the call at which it happened, "" when it was not reached
	hung   bool   // it had to be killed
	status syscall.WaitStatus
}

// patience is how long a command may take, which takes milliseconds.
const patience = time.Minute

// tracer follows the threads of one command.
type tracer struct {
	fault   fault
	leader  int
	inside  map[int]bool // threads between entry and exit of a call
	failing map[int]bool // threads whose call is to fail
	traced
}

const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL

// trace runs a command to its end.
func trace(argv []string, dir string, files []*os.File, f fault) (traced, error) {
	runtime.LockOSThread() // who started a process is who traces it
	defer runtime.UnlockOSThread()
	attr := &syscall.ProcAttr{Dir: dir, Env: os.Environ(), Sys: &syscall.SysProcAttr{Ptrace: true}}
	for _, file := range files {
		attr.Files = append(attr.Files, file.Fd())
	}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return traced{}, err
	}
	t := &tracer{fault: f, leader: pid, inside: map[int]bool{}, failing: map[int]bool{}}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return traced{}, err
	}
	if err := errors.Join(unix.PtraceSetOptions(pid, traceOptions), unix.PtraceSyscall(pid, 0)); err != nil {
		return traced{}, err
	}
	var hung atomic.Bool
	alarm := time.AfterFunc(patience, func() {
		hung.Store(true)
		_ = unix.Kill(pid, unix.SIGKILL)
	})
	defer alarm.Stop()
	for {
		// Children of this thread only: others may have some.
		tid, err := syscall.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return t.traced, fmt.Errorf("wait: %w", err)
		}
		if !ws.Stopped() {
			if tid == t.leader {
				t.status, t.hung = ws, hung.Load()
				return t.traced, nil
			}
			continue
		}
		// ESRCH: killed meanwhile.
		if err := t.stopped(tid, ws); err != nil && !errors.Is(err, unix.ESRCH) {
			return t.traced, err
		}
	}
}

// stopped handles one stop of a thread and lets it go on.
func (t *tracer) stopped(tid int, ws syscall.WaitStatus) error {
	signal := 0
	switch sig := ws.StopSignal(); {
	case sig == syscall.SIGTRAP|0x80:
		if err := t.syscall(tid); err != nil {
			return err
		}
	case sig == syscall.SIGTRAP || sig == syscall.SIGSTOP: // of tracing itself
	default:
		signal = int(sig)
	}
	return unix.PtraceSyscall(tid, signal)
}

func (t *tracer) syscall(tid int) error {
	t.inside[tid] = !t.inside[tid]
	if !t.inside[tid] {
		if t.failing[tid] {
			delete(t.failing, tid)
			return answer(tid, t.fault.errno)
		}
		return nil
	}
	nr, err := call(tid)
	if err != nil {
		return err
	}
	name, may := faulty[nr]
	if !may || never(tid, name) {
		return nil
	}
	t.calls++
	if t.calls != t.fault.at {
		return nil
	}
	t.hit = name + " " + object(tid)
	if t.fault.errno == 0 {
		return unix.Kill(t.leader, unix.SIGKILL)
	}
	t.failing[tid] = true
	if name == "close" { // it closes even when it fails
		return nil
	}
	return skip(tid)
}
