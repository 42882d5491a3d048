package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/berth-containers/berth/engine"
	"golang.org/x/sys/unix"
)

// newLogger makes the daemon's log as configured. Its level may be changed
// while it runs.
func newLogger(cfg *config, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // config.check has parsed it before
	opt := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt)), level
	}
	return slog.New(slog.NewTextHandler(w, opt)), level
}

// reloadOnHangup reads the configuration again at SIGHUP and takes from it what
// can be changed while the daemon runs: the log's level and, once there is an
// engine, what that can change. A configuration with a mistake changes nothing. It
// ends with ctx, or when stop is called, which waits for that.
func reloadOnHangup(ctx context.Context, args []string, logger *slog.Logger, level *slog.LevelVar, eng *atomic.Pointer[engine.Engine]) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer signal.Stop(hangup)
		for {
			select {
			case <-hangup:
			case <-ctx.Done():
				return
			}
			cfg, _, err := readConfig(args, io.Discard)
			if err != nil {
				logger.Error("reload configuration", "err", err)
				continue
			}
			if e := eng.Load(); e != nil {
				e.Reload(cfg.engine("", "", "", logger))
			}
			_ = level.UnmarshalText([]byte(cfg.LogLevel)) // readConfig has checked it
			logger.Warn("configuration is read again; all but the log's level, labels and insecure registries takes a restart", "log-level", level.Level())
		}
	}()
	return func() {
		cancel() // a daemon that could not start ends without a signal
		<-done
	}
}
