package keeper

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// awaitExit sees a process to its end: reaped, its output in the log, its
// cgroup gone, its exit on disk, and only then announced.
func (s *server) awaitExit(p *process, pidfd *os.File) {
	defer s.unfinished.Done()
	defer s.checkIdle()
	final := p.currentStatus()
	final.Exited = true
	wait, err := s.reap(final.Pid, pidfd)
	defer s.gate.RUnlock()
	fault.Here(fault.KeeperReaped)
	final.ExitedAt = time.Now().UTC()
	final.ExitCode = exitCode(wait)
	if wait.Signaled() {
		final.Signal = int(wait.Signal())
	}
	if err != nil {
		final.ExitCode, final.Error = ExitCodeLost, err.Error()
	}
	p.lose(pidfd)
	if p.key.exec == "" {
		err = s.endContainer(p, &final)
		fault.Here(fault.KeeperEmptied)
	}
	p.io.drain()
	final.Output = string(p.io.capture.output())
	s.announce(p, final, err)
}

// reap waits for the end of a process and then for the gate, which the caller
// unlocks: a process whose end no keeper has dealt with is its successor's to reap.
func (s *server) reap(pid int, pidfd *os.File) (unix.WaitStatus, error) {
	err := awaitEnd(pid, pidfd)
	s.gate.RLock()
	if err != nil {
		return 0, err
	}
	return reapNow(pid)
}

// lose closes the pidfd of a reaped process.
func (p *process) lose(pidfd *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pidfd = nil
	pidfd.Close()
}

// endContainer kills what outlived the container's init. With a pid namespace
// of its own that is nothing.
func (s *server) endContainer(p *process, final *Status) error {
	// Whoever is being executed in the container is in its cgroup after this,
	// and nobody is any more: there is no pidfd to enter it by.
	s.awaitEntering(p)
	s.prepared.drop(p)
	for _, e := range s.execs(p.key.container) {
		// Not running is what it is meant to be.
		e.signal(syscall.SIGKILL)
	}
	return guard(s.log, "end of container "+p.key.container, func() error {
		used, err := s.runtime.End(p.cgroup)
		final.OOMKilled, final.Used = used.OOMKills > 0, used
		if err == nil && p.poststop {
			s.runPoststop(p.key.container)
		}
		return err
	})
}

// announce writes the exit down and tells everybody.
func (s *server) announce(p *process, final Status, problem error) {
	p.mu.Lock()
	if !p.forgotten && !p.captured {
		problem = errors.Join(problem, s.records.saveExit(&final))
	}
	fault.Here(fault.KeeperExit)
	if problem != nil {
		s.log.Error("process ended badly", "process", p.key.String(), "cause", problem)
		final.Error = joinText(final.Error, problem.Error())
	}
	p.status = final
	p.mu.Unlock()
	close(p.done)
	if !p.captured {
		s.publish(final)
	}
	s.memory.trimSoon()
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// disown ends a process that was started but cannot be served.
func (s *server) disown(p *process, l *Launched, cause error) error {
	err := unix.Kill(l.Pid, unix.SIGKILL) // our own child, not reaped: it cannot be another's
	if err == nil {
		_, err = reapNow(l.Pid)
	}
	if p.key.exec == "" {
		_, endErr := s.runtime.End(p.cgroup)
		err = errors.Join(err, endErr)
	}
	return errors.Join(cause, err)
}

// markForgotten makes a later exit go unrecorded; without force a running
// process is refused.
func (p *process) markForgotten(force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.status.Exited && !force {
		return fmt.Errorf("%s is running: %w", p.key, errdefs.ErrConflict)
	}
	p.forgotten = true
	return nil
}

// forget removes what is known of an exited process.
func (s *server) forget(k key) error {
	p, err := s.find(k)
	if err != nil {
		return err
	}
	if err := p.markForgotten(false); err != nil {
		return err
	}
	if k.exec == "" {
		// Whoever is being executed in the container is in its cgroup after this,
		// and nobody is any more: there is no pidfd to enter it by.
		s.awaitEntering(p)
		for _, e := range s.execs(k.container) {
			e.markForgotten(true)
			s.drop(e)
		}
	}
	if err := s.records.remove(k); err != nil {
		return err
	}
	fault.Here(fault.KeeperForgotten)
	s.drop(p)
	return nil
}
