package oci

import (
	"errors"
	"os"
	"sync"

	p "github.com/berth-containers/berth/kernel/program"
)

// Runner starts containers and execs. It holds what all of them share, the
// sealed interpreter. It is safe for concurrent use.
type Runner struct {
	// TimerSlack is the precision of containers' timers, in nanoseconds; 0 means
	// that of this process's main thread ([TimerSlack]), which is asked each time.
	TimerSlack int

	interpreter *p.Interpreter

	initOnce sync.Once
	init     *os.File // made when a container wants one
	initErr  error
}

// NewRunner makes a Runner. Close it when no more containers are to be started;
// running ones are not affected.
func NewRunner() (*Runner, error) {
	ip, err := p.NewInterpreter()
	if err != nil {
		return nil, err
	}
	return &Runner{interpreter: ip}, nil
}

// host asks the kernel about the calling process, as thisHost does.
func (r *Runner) host(oom bool) (hostLimits, error) {
	h, err := thisHost(oom)
	if h.timerSlack = r.TimerSlack; h.timerSlack == 0 {
		h.timerSlack = TimerSlack()
	}
	return h, err
}

// Close releases the interpreter.
func (r *Runner) Close() error {
	err := r.interpreter.Close()
	if r.init != nil {
		err = errors.Join(err, r.init.Close())
	}
	return err
}
