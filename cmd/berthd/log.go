package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxOldLog is the size at which a log from earlier runs is set aside.
const maxOldLog = 1 << 20

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

// redirectOutput sends standard output and error, and with them the last words
// of a crash, to RUN-ROOT/berthd.log.
func redirectOutput(runRoot string) error {
	path := filepath.Join(runRoot, "berthd.log")
	if info, err := os.Stat(path); err == nil && info.Size() > maxOldLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return fmt.Errorf("open log: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(file.Fd()), fd, 0); err != nil {
			return errors.Join(fmt.Errorf("open log: %w", err), file.Close())
		}
	}
	return file.Close()
}
