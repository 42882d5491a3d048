package keeper

import (
	"errors"
	"syscall"

	"github.com/berth-containers/berth/errdefs"
)

// failure is an error on the wire.
type failure struct {
	Text  string `json:"text"`
	Class string `json:"class,omitempty"`
	Hint  string `json:"hint,omitempty"`
	// Step is the program step that failed, "" outside of a start or exec.
	Step string `json:"step,omitempty"`
	// Errno is the system's error number, 0 when there is none.
	Errno int `json:"errno,omitempty"`
	// Command is 127 when the command was not found, 126 when it cannot be
	// executed, else 0.
	Command int `json:"command,omitempty"`
}

// class is a row of the table of error classes; the names are on the wire.
type class struct {
	name string
	err  error
}

func classes() []class {
	return []class{
		{"not found", errdefs.ErrNotFound},
		{"conflict", errdefs.ErrConflict},
		{"invalid", errdefs.ErrInvalid},
		{"unsupported", errdefs.ErrUnsupported},
		{"unavailable", errdefs.ErrUnavailable},
		{"permission", errdefs.ErrPermission},
		{"not modified", errdefs.ErrNotModified},
	}
}

func newFailure(err error) *failure {
	f := &failure{Text: err.Error(), Hint: errdefs.Hint(err), Step: stepOf(err), Command: commandExitCode(err)}
	for _, c := range classes() {
		if errors.Is(err, c.err) {
			f.Class = c.name
			break
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	}
	return f
}

// Error is an error that the keeper answered with. Its text is the keeper's
// own; [errors.Is] finds the class of package errdefs, the errno and, for a
// command that cannot be executed, the sentinel of package oci.
type Error struct {
	text string
	// Step names the step of the container's program that failed, "" when it
	// was something else.
	Step   string
	causes []error
}

func (e *Error) Error() string { return e.text }

// Unwrap returns the class, the errno and the sentinel, those that there are.
func (e *Error) Unwrap() []error { return e.causes }

// err turns a received failure back into an error.
func (f *failure) err() error {
	e := &Error{text: f.Text, Step: f.Step}
	for _, c := range classes() {
		if c.name == f.Class {
			e.causes = append(e.causes, c.err)
		}
	}
	if f.Errno != 0 {
		e.causes = append(e.causes, syscall.Errno(f.Errno))
	}
	if cause := commandError(f.Command); cause != nil {
		e.causes = append(e.causes, cause)
	}
	if f.Hint != "" {
		return errdefs.WithHint(e, f.Hint)
	}
	return e
}
