package engine

import (
	"context"
	"path/filepath"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
)

// ContainerLogs writes the selected log lines to out. It returns when they are
// written or, with Follow, when the container has ended and all is read, the
// container is removed, Until has passed, or ctx ends (with ctx's error).
func (e *Engine) ContainerLogs(ctx context.Context, ref string, opt LogsOptions, out LogWriter) error {
	c, err := e.containers.get(ref)
	if err != nil {
		return err
	}
	if !opt.Stdout && !opt.Stderr {
		return invalidf("logs: choose at least one of stdout and stderr")
	}
	rec := c.snapshot()
	if rec.HostConfig.LogConfig.Type == logNone {
		return errdefs.WithHint(errUnsupported(`reading the logs of log driver "none"`),
			"its output is kept nowhere; choose another driver with --log-driver")
	}
	bounds, err := logLimits(rec.HostConfig.LogConfig)
	if err != nil {
		return err
	}
	if bounds.unread {
		return errdefs.WithHint(errUnsupported("reading the logs of a container with the log option cache-disabled"),
			"read them where they are sent to, or make the container without the option")
	}
	files := &logFiles{path: c.logPath(), max: bounds.files}
	var wake *logWake
	if opt.Follow { // watch first: what is written after the read then rings
		w, stop, err := e.logWatch.follow(files.path)
		if err != nil {
			return err
		}
		defer stop()
		wake = w
	}
	r, err := newLogReader(files, opt, out)
	if err != nil {
		return err
	}
	defer r.close()
	if err := out.Begin(rec.Config.Tty); err != nil {
		return err
	}
	if wake == nil {
		return drain(ctx, r)
	}
	return c.follow(ctx, r, wake)
}

// drain writes out what is there.
func drain(ctx context.Context, r *logReader) error {
	if err := r.readAll(ctx); err != nil {
		return err
	}
	return r.out.Flush()
}

// follow writes out what is there and what comes, until the container's end.
func (c *ctr) follow(ctx context.Context, r *logReader, wake *logWake) error {
	until, stop := r.untilPassed()
	defer stop()
	for {
		// The keeper has an exited container's output in the log before it
		// tells of the exit, so an end seen before the read makes the read
		// the last one.
		changed, ended := c.lookEnded()
		if err := drain(ctx, r); err != nil {
			return err
		}
		if ended || r.past {
			return nil
		}
		select {
		case <-wake.C:
		case <-changed:
		case <-until:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookEnded says whether no process writes the log and none is about to.
func (c *ctr) lookEnded() (changed <-chan struct{}, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.rec.State
	return c.changed, c.removed || !st.active() && st.Status != stateRestarting
}

// logPath is where the keeper writes the container's log.
func (c *ctr) logPath() string { return filepath.Join(c.dir, c.id+"-json.log") }

func (c *ctr) logFiles(rec *record) (*logFiles, error) {
	bounds, err := logLimits(rec.HostConfig.LogConfig)
	return &logFiles{path: c.logPath(), max: bounds.files}, err
}

// keptLog is what the keeper is told of a container's log.
func (c *ctr) keptLog() (keeper.LogConfig, error) {
	lc := c.rec.HostConfig.LogConfig
	if lc.Type == logNone {
		return keeper.LogConfig{Driver: logNone}, nil
	}
	bounds, err := logLimits(lc)
	if err != nil {
		return keeper.LogConfig{}, err
	}
	attrs, err := logExtra(c.rec)
	return keeper.LogConfig{
		Driver: logJSONFile, Path: c.logPath(), MaxSize: bounds.size, MaxFiles: bounds.files,
		Attrs: attrs, MaxBuffer: bounds.buffer, Compressed: bounds.compress,
	}, err
}
