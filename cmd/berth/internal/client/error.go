package client

import (
	"errors"
	"fmt"
	"syscall"
)

// Error is an engine's refusal.
type Error struct {
	// Status is the HTTP status, 300 or above.
	Status int
	// Message is the engine's own text.
	Message string
	// Hint is what the engine suggests to do about it; may be empty.
	Hint string
}

func (e *Error) Error() string { return e.Message }

// NotFound tells whether err is the engine's answer that something does not exist.
func NotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == 404
}

// UnreachableError says that no connection to the engine could be made.
type UnreachableError struct {
	Host Host
	Err  error
}

func (e *UnreachableError) Error() string {
	reason := e.Err
	var errno syscall.Errno
	if errors.As(e.Err, &errno) {
		reason = errno
	}
	return fmt.Sprintf("cannot reach the Berth engine at %s: %v", e.Host, reason)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// Absent tells whether nobody listens on the engine's socket, as opposed to
// somebody who may not be spoken to.
func (e *UnreachableError) Absent() bool {
	return errors.Is(e.Err, syscall.ENOENT) || errors.Is(e.Err, syscall.ECONNREFUSED)
}

// LostError says that the engine went away in the middle of an answer.
type LostError struct{ Err error }

func (e *LostError) Error() string {
	return fmt.Sprintf("lost the connection to the Berth engine: %v", e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }
