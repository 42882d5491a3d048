package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// The log drivers there are.
const (
	logJSONFile = "json-file"
	logNone     = "none"
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
	if rec.HostConfig.LogConfig.Type != logJSONFile {
		return errUnsupported(fmt.Sprintf("reading the logs of log driver %q", rec.HostConfig.LogConfig.Type))
	}
	files, err := c.logFiles(rec)
	if err != nil {
		return err
	}
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
	_, files, err := logLimits(rec.HostConfig.LogConfig)
	return &logFiles{path: c.logPath(), max: files}, err
}

// logLimits reads max-size and max-file. Size 0 is unlimited.
func logLimits(lc container.LogConfig) (size int64, files int, err error) {
	files = 1
	if s := lc.Config["max-size"]; s != "" && s != "-1" {
		if size, err = units.RAMInBytes(s); err != nil || size < 0 {
			return 0, 0, invalidf("invalid log option max-size=%s", s)
		}
	}
	if s := lc.Config["max-file"]; s != "" {
		if files, err = strconv.Atoi(s); err != nil || files < 1 {
			return 0, 0, invalidf("invalid log option max-file=%s: must be at least 1", s)
		}
		if files > 1 && size == 0 {
			return 0, 0, invalidf("log option max-file=%d needs max-size", files)
		}
	}
	return size, files, nil
}

// checkLogConfig refuses drivers and options there are not.
func checkLogConfig(lc container.LogConfig) error {
	switch lc.Type {
	case logNone:
		return nil
	case logJSONFile:
	default:
		return errUnsupported(fmt.Sprintf("log driver %q", lc.Type))
	}
	for name := range lc.Config {
		switch name {
		case "max-size", "max-file":
		case "mode", "max-buffer-size", "labels", "labels-regex", "env", "env-regex", "tag", "compress":
			return errUnsupported("log option " + name)
		default:
			return invalidf("unknown log option %q for driver %s", name, lc.Type)
		}
	}
	_, _, err := logLimits(lc)
	return err
}
