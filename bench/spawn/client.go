package spawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Options say where and how a spawner's commands live.
type Options struct {
	// Binary is the built program of bench/spawner.
	Binary string
	// Join are files of cgroups that a process enters by writing "0" to them.
	Join []string
	// Unmount is a mount point that the commands do not see; "" for none.
	Unmount string
	// Env is the commands' environment.
	Env []string
	// Dir is the commands' working directory.
	Dir string
}

// args are the spawner's arguments for entering the options' surroundings.
func (o *Options) args() []string {
	var args []string
	for _, file := range o.Join {
		args = append(args, "join="+file)
	}
	if o.Unmount != "" {
		args = append(args, "unmount="+o.Unmount)
	}
	return append(args, "exec")
}

// Command is a command that enters the options' surroundings and is then
// replaced by argv: for what stays, such as a daemon. The caller starts it.
func (o *Options) Command(argv ...string) *exec.Cmd {
	cmd := exec.Command(o.Binary, append(o.args(), argv...)...)
	cmd.Env, cmd.Dir = o.Env, o.Dir
	return cmd
}

// Spawner is a running spawner. Its methods may be called at the same time.
type Spawner struct {
	cmd      *exec.Cmd
	requests io.WriteCloser

	mu      sync.Mutex // guards what follows, and writes to requests
	last    int
	waiting map[int]chan<- *Result
	broken  error

	done chan struct{} // closed when no result will come any more
}

// Start starts a spawner. The caller closes it.
func Start(o Options) (*Spawner, error) {
	cmd := o.Command(o.Binary)
	cmd.Stderr = os.Stderr
	requests, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	results, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start spawner: %w", err)
	}
	s := &Spawner{cmd: cmd, requests: requests, waiting: map[int]chan<- *Result{}, done: make(chan struct{})}
	go s.receive(results)
	return s, nil
}

// Pid is the spawner's process id.
func (s *Spawner) Pid() int { return s.cmd.Process.Pid }

// receive hands the results out until the spawner ends; it is waited for by Close.
func (s *Spawner) receive(results io.Reader) {
	defer close(s.done)
	for {
		number, res, err := ReadResult(results)
		s.mu.Lock()
		if err != nil {
			s.broken = fmt.Errorf("spawner: %w", err)
			s.mu.Unlock()
			return
		}
		ch := s.waiting[number]
		delete(s.waiting, number)
		s.mu.Unlock()
		if ch != nil {
			ch <- res
		}
	}
}

func (s *Spawner) send(argv []string) (<-chan *Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	s.last++
	ch := make(chan *Result, 1)
	s.waiting[s.last] = ch
	return ch, WriteRequest(s.requests, s.last, argv)
}

// Run runs a command to its end. argv[0] is its path. A command that exits with
// another status than 0 is an error that has what it said. When ctx ends
// first, the command goes on without us.
func (s *Spawner) Run(ctx context.Context, argv ...string) (*Result, error) {
	ch, err := s.send(argv)
	if err != nil {
		return nil, err
	}
	var res *Result
	select {
	case res = <-ch:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), context.Cause(ctx))
	case <-s.done:
		return nil, s.broken
	}
	if res.Status != 0 {
		return res, fmt.Errorf("%s: exit status %d: %s", strings.Join(argv, " "), res.Status, strings.TrimSpace(res.Output))
	}
	return res, nil
}

// Close ends the spawner when its commands have ended.
func (s *Spawner) Close() error {
	err := s.requests.Close()
	<-s.done
	return errors.Join(err, s.cmd.Wait())
}
