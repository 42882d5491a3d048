// Package cli is the berth command: its nouns and verbs, flags, output and
// exit codes, which are the docker command's.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/berth-containers/berth/cmd/berth/internal/autostart"
	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/progress"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// app is one run of the command.
type app struct {
	in, out, err *os.File
	// host is the value of -H; empty for BERTH_HOST or the default.
	host string

	engine *client.Client
	// raw is the terminal while it is in raw mode; nil otherwise.
	raw *terminal.Raw
}

// Main runs the command and returns its exit code.
func Main(args []string, in, out, errOut *os.File) int {
	a := &app{in: in, out: out, err: errOut}
	defer a.restore()
	root := newRoot(a, args)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(context.Background())
	a.restore()
	if a.engine != nil {
		a.engine.Close()
	}
	return a.report(err)
}

// restore puts the terminal back; a panic passes here as well.
func (a *app) restore() { a.raw.Restore() }

// runRoot is the directory of the engine's socket.
func runRoot() string {
	if dir := os.Getenv("BERTH_RUN_ROOT"); dir != "" {
		return dir
	}
	return "/run/berth"
}

// engineArgs are the flags of an engine that is started: its roots and its
// configuration file, where the environment names them.
func engineArgs() []string {
	var args []string
	for _, path := range [][2]string{
		{"BERTH_RUN_ROOT", "--run-root"}, {"BERTH_STATE_ROOT", "--state-root"}, {"BERTH_CONFIG", "--config"},
	} {
		if value := os.Getenv(path[0]); value != "" {
			args = append(args, path[1], value)
		}
	}
	return args
}

// client returns the engine's client. Nothing is connected yet.
func (a *app) client() (*client.Client, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	own := client.Host{Network: "unix", Address: filepath.Join(runRoot(), "berth.sock")}
	host := own
	address := a.host
	if address == "" {
		address = os.Getenv("BERTH_HOST")
	}
	if address != "" {
		var err error
		if host, err = client.ParseHost(address); err != nil {
			return nil, err
		}
	}
	a.engine = &client.Client{Host: host}
	if host == own && os.Geteuid() == 0 {
		a.engine.Start = autostart.Engine{RunRoot: runRoot(), Socket: own.Address, Args: engineArgs()}.Start
	}
	return a.engine, nil
}

// display is where progress goes: bars when f is a terminal.
func (a *app) display(f *os.File) progress.Display {
	d := progress.Display{Out: f}
	if terminal.Is(f) {
		d.Size = func() (uint, uint) { return terminal.Size(f) }
	}
	return d
}

// statusError ends the command with an exit code.
type statusError struct {
	code int
	// err is printed; nil when all has been said.
	err error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// exitStatus is the error of a command that ends with another's exit code.
func exitStatus(code int) error {
	if code == 0 {
		return nil
	}
	return &statusError{code: code}
}

// withStatus gives an error an exit code; nil stays nil.
func withStatus(code int, err error) error {
	if err == nil {
		return nil
	}
	return &statusError{code: code, err: err}
}

// usageError is a mistake in the command line.
type usageError struct {
	message string
	// command is whose help tells more.
	command string
}

func (e *usageError) Error() string { return e.message }

// hinted is an error with a suggestion made here rather than by the engine.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// report prints an error, a line each where there are several, and returns
// the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	var status *statusError
	if errors.As(err, &status) {
		code = status.code
		if status.err == nil {
			return code
		}
	}
	for _, e := range parts(err) {
		fmt.Fprintf(a.err, "berth: %s\n", strings.TrimRight(e.Error(), "\n"))
		var failed *autostart.Error
		if errors.As(e, &failed) {
			for _, line := range failed.LastLines(5) {
				fmt.Fprintf(a.err, "berthd: %s\n", line)
			}
		}
		if hint := hintOf(e); hint != "" {
			fmt.Fprintf(a.err, "hint: %s\n", hint)
		}
	}
	return code
}

// parts takes joined errors apart.
func parts(err error) []error {
	var status *statusError
	if errors.As(err, &status) && status.err != nil {
		err = status.err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

func hintOf(err error) string {
	var (
		own         *hinted
		usage       *usageError
		refused     *client.Error
		midway      *progress.Error
		unreachable *client.UnreachableError
		failed      *autostart.Error
	)
	switch {
	case errors.As(err, &own):
		return own.hint
	case errors.As(err, &usage):
		return fmt.Sprintf("see '%s --help'", usage.command)
	case strings.HasPrefix(err.Error(), "template parsing error"):
		return "a template looks like '{{.Names}}: {{.Status}}'; --format json shows the fields there are"
	case errors.As(err, &refused):
		return refused.Hint
	case errors.As(err, &midway):
		return midway.Hint
	case errors.As(err, &failed):
		return "the engine's log is " + failed.Log
	case errors.As(err, &unreachable):
		return unreachableHint(unreachable)
	}
	return ""
}

func unreachableHint(e *client.UnreachableError) string {
	switch {
	case errors.Is(e, syscall.EACCES) || errors.Is(e, syscall.EPERM):
		return "run berth as root, for example with sudo, or join the group that owns the socket"
	case e.Host.Network == "unix" && e.Absent() && os.Geteuid() != 0:
		return "no engine is running; start it with: sudo systemctl start berthd, or: sudo berth info"
	case e.Absent():
		return "no engine is listening there; is berthd running?"
	}
	return ""
}
