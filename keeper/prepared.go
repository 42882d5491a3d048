package keeper

import (
	"strings"
	"sync"
)

// maxPrepared bounds how many compiled execs are kept: some 50 KiB and two
// descriptors each.
const maxPrepared = 32

// preparedExecs are execs that were compiled and may be asked for again, at most one
// of each container: a health check's command is the same each time, and compiling
// it takes as long as starting it. One that is at work is not among them.
type preparedExecs struct {
	mu   sync.Mutex
	kept map[*process]keptExec // by the container's init
}

type keptExec struct {
	key  string
	exec PreparedExec
}

// again identifies what the request executes, when that is expected to be executed
// again; else it is "". Without HOME the container's /etc/passwd is part of it, which
// may change.
func (r *ExecRequest) again() string {
	if r.Capture == 0 {
		return ""
	}
	for _, e := range r.Process.Env {
		if home, ok := strings.CutPrefix(e, "HOME="); ok && home != "" {
			return string(r.rawProcess)
		}
	}
	return ""
}

// take gives away what is kept for the container when it is the one of that key, and
// closes it when it is another.
func (p *preparedExecs) take(container *process, key string) PreparedExec {
	if key == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.kept[container]
	if !ok {
		return nil
	}
	delete(p.kept, container)
	if k.key != key {
		k.exec.Close()
		return nil
	}
	return k.exec
}

// keep keeps an exec for the next time, in the place of any other when there are
// many. Whoever calls it holds the container's entering.
func (p *preparedExecs) keep(container *process, key string, exec PreparedExec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = map[*process]keptExec{}
	}
	if old, ok := p.kept[container]; ok {
		old.exec.Close()
	} else if len(p.kept) >= maxPrepared {
		for other, k := range p.kept {
			k.exec.Close()
			delete(p.kept, other)
			break
		}
	}
	p.kept[container] = keptExec{key, exec}
}

// drop forgets what is kept for a container that has ended.
func (p *preparedExecs) drop(container *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k, ok := p.kept[container]; ok {
		k.exec.Close()
		delete(p.kept, container)
	}
}

// prepareExec compiles an exec.
func (s *server) prepareExec(container *process, l *Launch) (PreparedExec, error) {
	pid, pidfd, err := container.handle()
	if err != nil {
		return nil, err
	}
	l.InitPid, l.InitPidfd = pid, pidfd
	var exec PreparedExec
	if l.Spec, err = s.records.loadSpec(l.ID); err == nil {
		exec, err = s.runtime.PrepareExec(l)
	}
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	return exec, nil
}
