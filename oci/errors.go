package oci

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// StepError says which step of a container's set-up the kernel refused.
type StepError struct {
	// Step is what was being done: "mount proc on /proc".
	Step string
	// Errno is the kernel's answer.
	Errno syscall.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }

// Unwrap makes errors.Is(err, unix.EPERM) work.
func (e *StepError) Unwrap() error { return e.Errno }

// The two ways a container's command can be wrong; shells and Docker report
// them as exit codes 127 and 126.
var (
	ErrCommandNotFound      = errdefs.As(errdefs.ErrInvalid, errors.New("command not found"))
	ErrCommandNotExecutable = errdefs.As(errdefs.ErrInvalid, errors.New("command cannot be executed"))
)

// commandError is a failed execve: the command, the errno and its class.
type commandError struct {
	StepError
	class error
}

func (e *commandError) Unwrap() []error { return []error{&e.StepError, e.class} }

// stepError turns a program's failure into an error: a command that cannot be
// run gets its class, known causes get a hint.
func stepError(step string, errno syscall.Errno) error {
	e := StepError{Step: step, Errno: errno}
	if !strings.HasPrefix(step, execStep) {
		return errdefs.WithHint(&e, hintFor(step, errno))
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return errdefs.WithHint(&commandError{e, ErrCommandNotFound},
			"the image has no such program; a script whose interpreter is missing says the same")
	case unix.EACCES, unix.EPERM, unix.EISDIR:
		return errdefs.WithHint(&commandError{e, ErrCommandNotExecutable},
			"the file must be a program with its execute permission set for the container's user")
	case unix.ENOEXEC:
		return errdefs.WithHint(&commandError{e, ErrCommandNotExecutable},
			"the file is no program for this machine: another architecture, or a script without a #! line")
	}
	return &commandError{e, ErrCommandNotExecutable}
}

// hintFor names the likely cause of a refused step, "" when none is known.
func hintFor(step string, errno syscall.Errno) string {
	switch {
	case errno == unix.ENOSPC && strings.HasPrefix(step, "mount"):
		return "the limit of mounts is reached: sysctl fs.mount-max"
	case errno == unix.ELOOP:
		return "the root filesystem has a symbolic link where a real directory is needed"
	case errno == unix.ENOENT && strings.HasPrefix(step, "bind"):
		return "the source of the bind mount does not exist on the host"
	case errno == unix.EXDEV && strings.HasPrefix(step, "set "):
		return "something is mounted over that file of the host's /proc"
	case errno == unix.ENOENT && strings.HasPrefix(step, profileStep):
		return "no profile of that name is loaded: apparmor_parser loads it"
	case errno == unix.EINVAL && strings.HasPrefix(step, labelStep):
		return "the loaded policy knows no such label"
	case errno == unix.EPERM && strings.HasPrefix(step, "set scheduler"):
		return "real-time policies need CAP_SYS_NICE on the host, processor time for them in the cgroup (cpu.rt_runtime_us), and a deadline every processor of the host"
	case errno == unix.EBUSY && strings.HasPrefix(step, "set scheduler"):
		return "the processors have no time left for another deadline"
	case errno == unix.EINVAL && (strings.HasPrefix(step, "set scheduler") || strings.HasPrefix(step, "set memory policy") || strings.HasPrefix(step, processorsStep)):
		return "this kernel, or the cpuset of the container, has no such policy, processor or node"
	case errno == unix.EPERM:
		return "the caller lacks the capability for this, or a user namespace forbids it"
	case errno == unix.ENODEV && strings.HasPrefix(step, "mount"):
		return "the kernel has no such filesystem type"
	case errno == unix.ESRCH && strings.HasPrefix(step, "join"):
		return "the container has ended meanwhile"
	}
	return ""
}

// unsupported is the error for a part of the specification that is not done.
func unsupported(field string) error {
	return fmt.Errorf("config.json: %s: %w", field, errdefs.ErrUnsupported)
}

// without is the error for a part of the specification that this host lacks the
// means for.
func without(field, needs string) error {
	return fmt.Errorf("config.json: %s: %w: needs %s", field, errdefs.ErrUnsupported, needs)
}

// invalid is the error for a specification that contradicts itself or the
// standard.
func invalid(format string, args ...any) error {
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("config.json: "+format, args...))
}
