package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"

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

// reloadOnHangup reads the configuration again at SIGHUP and takes the log's
// level from it, which is all that can be changed while the daemon runs. A
// configuration with a mistake changes nothing. It ends with ctx, or when stop is
// called, which waits for that.
func reloadOnHangup(ctx context.Context, args []string, logger *slog.Logger, level *slog.LevelVar) (stop func()) {
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
			_ = level.UnmarshalText([]byte(cfg.LogLevel)) // readConfig has checked it
			logger.Warn("configuration is read again; all but the log's level takes a restart", "log-level", level.Level())
		}
	}()
	return func() {
		cancel() // a daemon that could not start ends without a signal
		<-done
	}
}
