// Package errdefs holds the error classes every part of Berth uses. A part
// wraps one of the class sentinels with %w and adds the object; each door maps
// the class once, to an HTTP status, a gRPC code or an exit code.
package errdefs

import "errors"

// The classes. Test with [errors.Is].
var (
	// ErrNotFound: the named object does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the object's state or another object forbids the act
	// (name taken, container running).
	ErrConflict = errors.New("conflict")
	// ErrInvalid: the request itself is wrong.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnsupported: this host or this version cannot do it.
	ErrUnsupported = errors.New("not supported")
	// ErrUnavailable: something needed does not answer (daemon, keeper, registry).
	ErrUnavailable = errors.New("unavailable")
	// ErrPermission: the caller may not do it.
	ErrPermission = errors.New("permission denied")
	// ErrNotModified: the object already is in the wished state.
	ErrNotModified = errors.New("not modified")
)

// classed gives an error a class without showing the class in its text.
type classed struct {
	class error
	err   error
}

func (e *classed) Error() string   { return e.err.Error() }
func (e *classed) Unwrap() []error { return []error{e.err, e.class} }

// As gives err the class, one of the sentinels above, without changing its
// text. A nil err stays nil.
func As(class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{class: class, err: err}
}

// hinted carries what a person can do about the error.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// WithHint attaches a remedy, one sentence, to err. It does not change the
// error's text: the outermost layer (a command line) prints it on a line of its
// own. A nil err stays nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err: err, hint: hint}
}

// Hint returns the outermost remedy attached to err, "" when there is none.
func Hint(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}
