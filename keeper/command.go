package keeper

import (
	"errors"

	"github.com/berth-containers/berth/oci"
)

// commandExitCode is the exit code by which shells report a command that
// cannot be executed: 127 not found, 126 not executable, 0 anything else.
func commandExitCode(err error) int {
	switch {
	case errors.Is(err, oci.ErrCommandNotFound):
		return 127
	case errors.Is(err, oci.ErrCommandNotExecutable):
		return 126
	}
	return 0
}

// commandError is the reverse.
func commandError(code int) error {
	switch code {
	case 127:
		return oci.ErrCommandNotFound
	case 126:
		return oci.ErrCommandNotExecutable
	}
	return nil
}

// stepOf is the step of a container's program that failed.
func stepOf(err error) string {
	var step *oci.StepError
	if errors.As(err, &step) {
		return step.Step
	}
	return ""
}
