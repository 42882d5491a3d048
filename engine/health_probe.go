package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
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
	about := map[string]string{"execID": id}
	e.emitContainer(rec, execAction(events.ActionExecCreate, req.Cmd), about)
	e.emitContainer(rec, execAction(events.ActionExecStart, req.Cmd), about)
	ended := c.awaitProbe(id)
	defer c.dropProbe(id)
	run, err := e.keeper.execCaptured(ctx, &keeper.ExecRequest{
		ContainerID: c.id, ExecID: id, Process: process, Capture: healthOutput + 1,
	})
	if err != nil {
		return 0, "", err
	}
	defer run.Close()
	st, err := awaitProbeEnd(ctx, run, ended)
	if err == nil {
		e.emitContainer(rec, events.ActionExecDie, map[string]string{"execID": id, "exitCode": strconv.Itoa(st.ExitCode)})
		return st.ExitCode, probeOutput(st.Output), nil
	}
	if kill := e.killTree(rec, run.Status.Pid); kill != nil {
		err = errors.Join(err, kill)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		limited, cancel := context.WithTimeout(e.ctx, killedProbe)
		defer cancel()
		if st, kerr := run.Wait(limited); kerr == nil {
			output = probeOutput(st.Output)
		}
	}
	return 0, output, err
}

// killedProbe bounds the wait for the output of a probe that was killed.
const killedProbe = time.Second

// awaitProbeEnd waits for a probe's end, which is among those of all processes, sent
// to ended, where its keeper has become another program meanwhile.
func awaitProbeEnd(ctx context.Context, run *keeper.Captured, ended <-chan keeper.Status) (keeper.Status, error) {
	st, err := run.Wait(ctx)
	if ctx.Err() != nil || !errors.Is(err, errdefs.ErrUnavailable) {
		return st, err
	}
	select {
	case st := <-ended:
		return st, nil
	case <-ctx.Done():
		return st, ctx.Err()
	}
}

// probeOutput is what is shown of a probe's output.
func probeOutput(s string) string {
	if len(s) > healthOutput {
		return s[:healthOutput] + "..."
	}
	return s
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
