package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// start starts a container. It goes to its end whatever becomes of the client,
// unless it is called off.
func (s *server) start(r *StartRequest, a *abort) (Status, error) {
	if r.Spec == nil || r.Spec.Process == nil || r.Spec.Linux == nil {
		return Status{}, fmt.Errorf("spec has no process or no linux section: %w", errdefs.ErrInvalid)
	}
	if r.Spec.Linux.CgroupsPath == "" {
		r.Spec.Linux.CgroupsPath = "/berth/" + r.ID
		r.raw = nil // the record has the path
	}
	if err := checkCgroup(r.Spec.Linux.CgroupsPath); err != nil {
		return Status{}, err
	}
	p, err := s.reserve(key{container: r.ID}, a)
	if err != nil {
		return Status{}, err
	}
	setConsoleSize(r.Spec.Process, r.ConsoleSize)
	p.cgroup = r.Spec.Linux.CgroupsPath
	// Before the act: a keeper that comes after this one must know of it.
	p.poststop = hasPoststop(r.Spec)
	if err := s.records.create(r); err != nil {
		s.failed(p)
		return Status{}, err
	}
	config := stdioConfig{
		tty: r.Spec.Process.Terminal, openStdin: r.OpenStdin, stdinOnce: r.StdinOnce, log: r.Log,
	}
	launch := &Launch{ID: r.ID, Spec: r.Spec, Bundle: r.Bundle, Rootfs: r.Rootfs, Init: r.Init}
	status, err := s.launch(p, config, launch, s.runtime.Start)
	if err != nil {
		if cleanup := s.records.remove(p.key); cleanup != nil {
			err = errors.Join(err, cleanup)
		}
		s.failed(p)
		return Status{}, err
	}
	return status, nil
}

// exec starts another process in a running container.
func (s *server) exec(r *ExecRequest, a *abort) (Status, error) {
	if r.Process == nil || r.ExecID == "" {
		return Status{}, fmt.Errorf("exec has no process or no id: %w", errdefs.ErrInvalid)
	}
	if err := checkCapture(r); err != nil {
		return Status{}, err
	}
	container, err := s.find(key{container: r.ContainerID})
	if err != nil {
		return Status{}, err
	}
	p, err := s.reserve(key{r.ContainerID, r.ExecID}, a)
	if err != nil {
		return Status{}, err
	}
	p.captured = r.Capture > 0
	status, err := s.execIn(container, p, r)
	if err != nil {
		s.failed(p)
	}
	return status, err
}

func (s *server) execIn(container, p *process, r *ExecRequest) (Status, error) {
	container.entering.RLock()
	defer container.entering.RUnlock()
	setConsoleSize(r.Process, r.ConsoleSize)
	config := stdioConfig{tty: r.Process.Terminal, openStdin: r.OpenStdin, stdinOnce: true, lingers: true, capture: r.Capture}
	again := r.again()
	exec := s.prepared.take(container, again)
	defer func() {
		if exec != nil {
			exec.Close()
		}
	}()
	status, err := s.launch(p, config, &Launch{ID: r.ContainerID, Process: r.Process}, func(l *Launch) (*Launched, error) {
		if exec != nil {
			launched, err := exec.Start(l)
			if err == nil {
				return launched, nil
			}
			// Something that it was compiled for may have changed.
			exec.Close()
			exec = nil
		}
		var err error
		if exec, err = s.prepareExec(container, l); err != nil {
			return nil, err
		}
		return exec.Start(l)
	})
	if err == nil && again != "" {
		s.prepared.keep(container, again, exec)
		exec = nil
	}
	return status, err
}

// handle is the pid of a running process with a descriptor of its own.
func (p *process) handle() (int, *os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil {
		return 0, nil, notRunning(p.key)
	}
	dup, err := pollable(p.pidfd)
	return p.status.Pid, dup, err
}

func setConsoleSize(p *specs.Process, size [2]uint16) {
	if p.Terminal && size != [2]uint16{} {
		p.ConsoleSize = &specs.Box{Height: uint(size[0]), Width: uint(size[1])}
	}
}

// launch makes the streams, then the process, then serves both. After an error
// the caller calls failed.
func (s *server) launch(p *process, c stdioConfig, l *Launch, run func(*Launch) (*Launched, error)) (Status, error) {
	status, err := s.launchProcess(p, c, l, run)
	if errors.Is(err, unix.EMFILE) {
		err = errdefs.WithHint(err, "the keeper has as many files open as it may, four for each container; raise LimitNOFILE= of berthd.service, or ulimit -Hn, and start engine and keeper again")
	}
	return status, err
}

func (s *server) launchProcess(p *process, c stdioConfig, l *Launch, run func(*Launch) (*Launched, error)) (Status, error) {
	child, err := p.io.open(c)
	if err != nil {
		return Status{}, err
	}
	defer child.close()
	l.Stdio, l.Abort = child, p.abort.file
	launched, err := s.makeProcess(l, run)
	if err != nil {
		return Status{}, err
	}
	pidfd, err := pollable(launched.Pidfd)
	launched.Pidfd.Close()
	if err != nil {
		return Status{}, s.disown(p, launched, err)
	}
	if err := p.io.start(launched.Console); err != nil {
		pidfd.Close()
		return Status{}, s.disown(p, launched, err)
	}
	status := p.begin(launched.Pid, pidfd)
	fault.Here(fault.KeeperServed)
	go s.awaitExit(p, pidfd)
	s.memory.trimSoon()
	if s.isClosing() { // after begin: stopAll may have come too early to see it
		return status, p.signal(syscall.SIGKILL)
	}
	return status, nil
}

// slotPatience is how long a process being made keeps its slot. One that takes
// longer is stuck for reasons of its own container (a frozen cgroup, no memory
// left in it, a slow hook), and is not to hold up the others.
const slotPatience = 2 * time.Second

// makeProcess calls the runtime.
func (s *server) makeProcess(l *Launch, run func(*Launch) (*Launched, error)) (launched *Launched, err error) {
	// A slot bounds the threads that wait for a kernel making namespaces.
	s.slots <- struct{}{}
	var once sync.Once
	release := func() { once.Do(func() { <-s.slots }) }
	timer := time.AfterFunc(slotPatience, release)
	defer release()
	defer timer.Stop()
	err = guard(s.log, "start of a process of container "+l.ID, func() error {
		launched, err = run(l)
		return err
	})
	return launched, err
}

// failed undoes what a process that could not be started has left here.
func (s *server) failed(p *process) {
	p.io.abort()
	s.drop(p)
	close(p.settled)
	close(p.done)
	s.unfinished.Done()
}
