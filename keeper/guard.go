package keeper

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// guard calls f and turns a panic in it into an error and a log entry, so that
// a fault in the handling of one stream or request does not end the keeper, and
// with it everybody's stdio.
func guard(log *slog.Logger, what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			log.Error("panic", "in", what, "value", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error of the keeper in %s: %v", what, r)
		}
	}()
	return f()
}
