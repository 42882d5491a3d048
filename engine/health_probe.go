package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/keeper"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// healthOutput is how many bytes of a probe's output are kept, as with Docker.
const healthOutput = 4096

// probeFailed is the exit code of a probe that could not be run, or not to its
// end, as with Docker.
const probeFailed = -1

// probePrefix begins the ids of probes. They are processes at the keeper like
// other execs, but have no record: nobody can start or inspect one, and one
// that an engine left behind is ended by the next.
const probePrefix = "health-"

// probe runs a container's health check once. The end of ctx, or the check's
// timeout, ends the probe with all that it has started.
func (e *Engine) probe(ctx context.Context, c *ctr, rec *record) *container.HealthcheckResult {
	timeout := orElse(rec.Config.Healthcheck.Timeout, healthTimeout)
	result := &container.HealthcheckResult{Start: time.Now()}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	code, output, err := e.runProbe(limited, c, rec)
	result.End, result.ExitCode, result.Output = time.Now(), code, output
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		result.ExitCode, result.Output = probeFailed, fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
		if output != "" {
			result.Output += ": " + output
		}
	case err != nil:
		result.ExitCode, result.Output = probeFailed, err.Error()
	}
	return result
}

// runProbe runs the health check's command to its end. The error is ctx's when
// that ended it.
func (e *Engine) runProbe(ctx context.Context, c *ctr, rec *record) (code int, output string, err error) {
	req := &container.ExecCreateRequest{Cmd: healthCommand(rec.Config)}
	process, err := execProcess(rec, req, e.host)
	if err != nil {
		return 0, "", err
	}
	id := probePrefix + newID()[:32]
	s, err := e.keeper.attach(ctx, c.id, id, keeper.AttachOptions{Stdout: true, Stderr: true, BeforeStart: true})
	if err != nil {
		return 0, "", err
	}
	defer s.Close()
	about := map[string]string{"execID": id}
	e.emitContainer(rec, execAction(events.ActionExecCreate, req.Cmd), about)
	e.emitContainer(rec, execAction(events.ActionExecStart, req.Cmd), about)
	ended := c.awaitProbe(id)
	defer c.dropProbe(id)
	st, err := e.keeper.exec(ctx, &keeper.ExecRequest{ContainerID: c.id, ExecID: id, Process: process})
	if err != nil {
		return 0, "", err
	}
	read := make(chan string, 1)
	e.wg.Go(func() { read <- readProbe(s) })
	select {
	case st := <-ended:
		output = <-read
		e.emitContainer(rec, events.ActionExecDie, map[string]string{"execID": id, "exitCode": strconv.Itoa(st.ExitCode)})
		return st.ExitCode, output, nil
	case <-ctx.Done():
	}
	err = ctx.Err()
	if kill := e.killTree(rec, st.Pid); kill != nil {
		err = errors.Join(err, kill)
	}
	s.Close()
	return 0, <-read, err
}

// readProbe reads a probe's output to its end, and keeps the beginning.
func readProbe(s io.Reader) string {
	w := &probeOutput{}
	// However it ends: what came until then is the output.
	_, _ = stdcopy.StdCopy(w, w, s)
	return w.String()
}

// probeOutput keeps the first healthOutput bytes written to it.
type probeOutput struct {
	kept []byte
	cut  bool
}

func (w *probeOutput) Write(p []byte) (int, error) {
	room := healthOutput - len(w.kept)
	w.cut = w.cut || len(p) > room
	w.kept = append(w.kept, p[:min(room, len(p))]...)
	return len(p), nil
}

func (w *probeOutput) String() string {
	if w.cut {
		return string(w.kept) + "..."
	}
	return string(w.kept)
}

// awaitProbe returns a channel that gets the end of a probe about to be started.
func (c *ctr) awaitProbe(id string) <-chan keeper.Status {
	ended := make(chan keeper.Status, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probes == nil {
		c.probes = map[string]chan<- keeper.Status{}
	}
	c.probes[id] = ended
	return ended
}

func (c *ctr) dropProbe(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.probes, id)
}

// probeEnded handles the exit of a probe, whether somebody still waits for it
// or not.
func (e *Engine) probeEnded(c *ctr, st keeper.Status) error {
	c.mu.Lock()
	if to := c.probes[st.ExecID]; to != nil {
		delete(c.probes, st.ExecID)
		to <- st
	}
	c.mu.Unlock()
	return e.keeper.forget(e.ctx, st.ContainerID, st.ExecID)
}

// endStrayProbes ends the probes that an engine now dead has left at the
// keeper. Their exits arrive by watchExits and are forgotten there.
func (e *Engine) endStrayProbes(c *ctr, known map[string]keeper.Status) error {
	var errs []error
	for id, st := range known {
		if st.ContainerID == c.id && isProbe(id) && !st.Exited {
			errs = append(errs, e.killTree(c.rec, st.Pid))
		}
	}
	return errors.Join(errs...)
}

func isProbe(execID string) bool { return strings.HasPrefix(execID, probePrefix) }
