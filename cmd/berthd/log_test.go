package main

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/berth-containers/berth/engine"
)

// TestReloadEnds: who waits for signals ends with a daemon that ends without one,
// because its engine cannot be opened.
func TestReloadEnds(t *testing.T) {
	reloadOnHangup(t.Context(), nil, slog.New(slog.DiscardHandler), new(slog.LevelVar), new(atomic.Pointer[engine.Engine]))()
}
