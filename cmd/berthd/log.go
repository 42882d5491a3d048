package main

import (
	"io"
	"log/slog"
)

// newLogger makes the daemon's log as configured.
func newLogger(cfg *config, w io.Writer) *slog.Logger {
	var level slog.LevelVar
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // config.check has parsed it before
	opt := &slog.HandlerOptions{Level: &level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}
