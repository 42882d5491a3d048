package errdefs

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestClassKeepsTextAndCause(t *testing.T) {
	err := fmt.Errorf("remove image busybox: %w", As(ErrNotFound, fs.ErrNotExist))
	if got, want := err.Error(), "remove image busybox: file does not exist"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	for _, target := range []error{ErrNotFound, fs.ErrNotExist} {
		if !errors.Is(err, target) {
			t.Errorf("error is not %v", target)
		}
	}
	if errors.Is(err, ErrConflict) {
		t.Error("error has a class it was not given")
	}
	if As(ErrNotFound, nil) != nil {
		t.Error("As made an error of nil")
	}
}

func TestHintIsOutermostAndSilent(t *testing.T) {
	err := WithHint(fmt.Errorf("outer: %w", WithHint(ErrUnavailable, "inner hint")), "outer hint")
	if err.Error() != "outer: unavailable" {
		t.Errorf("text %q shows the hint", err)
	}
	if Hint(err) != "outer hint" || Hint(ErrInvalid) != "" || WithHint(nil, "x") != nil {
		t.Errorf("hint %q", Hint(err))
	}
}
