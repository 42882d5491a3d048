package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	p "github.com/berth-containers/berth/kernel/program"
	"github.com/berth-containers/berth/kernel/seccomp"
)

// RunnerOptions say where a Runner keeps what outlives a single start. The zero
// value keeps nothing on disk.
type RunnerOptions struct {
	// FilterCache is a directory for compiled seccomp filters, made when it is
	// first needed; "" = they are only kept in memory.
	FilterCache string
}

// Runner starts containers and execs. It holds what all of them share: the
// sealed interpreter and the compiled seccomp filters. It is safe for
// concurrent use.
type Runner struct {
	interpreter *p.Interpreter
	options     RunnerOptions

	mu     sync.Mutex
	last   *seccomp.Filter // the filter of the profile with lastID
	lastID string
}

// NewRunner makes a Runner. Close it when no more containers are to be started;
// running ones are not affected.
func NewRunner(o RunnerOptions) (*Runner, error) {
	ip, err := p.NewInterpreter()
	if err != nil {
		return nil, err
	}
	return &Runner{interpreter: ip, options: o}, nil
}

// Close releases the interpreter.
func (r *Runner) Close() error { return r.interpreter.Close() }

func (r *Runner) host(oom bool) (hostLimits, error) {
	h, err := thisHost(oom)
	h.filter = r.filter
	return h, err
}

// filter compiles a profile. Nearly all containers of a host have the same: the
// last one is remembered.
func (r *Runner) filter(profile *specs.LinuxSeccomp) (*seccomp.Filter, error) {
	id := seccomp.Digest(profile)
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == r.lastID {
		return r.last, nil
	}
	f, err := r.compileFilter(profile)
	if err == nil {
		r.last, r.lastID = f, id
	}
	return f, err
}

func (r *Runner) compileFilter(profile *specs.LinuxSeccomp) (*seccomp.Filter, error) {
	if r.options.FilterCache == "" {
		return seccomp.Compile(profile)
	}
	if err := os.MkdirAll(filepath.Dir(r.options.FilterCache), 0o700); err != nil {
		return nil, fmt.Errorf("make filter cache: %w", err)
	}
	cache, err := seccomp.OpenCache(r.options.FilterCache)
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	return cache.Filter(profile)
}
