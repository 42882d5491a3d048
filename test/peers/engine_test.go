//go:build peers

package peers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience bounds what a test waits for; it is never waited out when all is well.
const patience = 5 * time.Minute

// engine is somebody else's client, with the options that make it use berth-oci
// and places of its own.
type engine struct {
	argv []string
	env  []string
	// runOptions are for each of its run commands.
	runOptions []string
	// remove kills and removes a container.
	remove []string
	// rootless: it is run by an ordinary user, who may not use cgroups.
	rootless bool
}

// need fails the test when a program is missing: "make test" installs them.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%v: make test installs the package", err)
		}
	}
}

// result is what became of a command.
type result struct {
	out, err string // without white space around
	code     int
}

func (e *engine) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := append(e.argv[:len(e.argv):len(e.argv)], args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), e.env...)
	cmd.Dir = thePlace().work // conmon leaves files where it is
	return cmd
}

// try runs a command of the engine.
func (e *engine) try(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := e.command(ctx, args...)
	var out, msg bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &msg
	// What the engine leaves running may hold the pipes.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%q did not end:\n%s%s", args, &out, &msg)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\n%s", args, err, &msg)
	}
	return result{strings.TrimSpace(out.String()), strings.TrimSpace(msg.String()), cmd.ProcessState.ExitCode()}
}

// must runs a command that is to succeed and returns what it printed.
func (e *engine) must(t *testing.T, args ...string) string {
	t.Helper()
	r := e.try(t, "", args...)
	if r.code != 0 {
		t.Fatalf("%q: exit code %d\n%s\n%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// until asks again and again until it holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

// run is the command line that runs args in a new container.
func (e *engine) run(options []string, args ...string) []string {
	argv := append([]string{"run"}, e.runOptions...)
	return append(append(append(argv, options...), image), args...)
}

// detached starts a container with a name that is removed when the test ends.
func (e *engine) detached(t *testing.T, name string, options []string, script string) {
	t.Helper()
	t.Cleanup(func() { e.must(t, append(e.remove, name)...) })
	e.must(t, e.run(append([]string{"-d", "--name", name}, options...), "sh", "-c", script)...)
}

// awaits reads what a command prints until a line is there, and ends it.
func (e *engine) awaits(t *testing.T, line string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := e.command(ctx, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if seen = append(seen, s.Text()); s.Text() == line {
			cancel()
			_ = cmd.Wait() // killed
			return
		}
	}
	t.Fatalf("%q never printed %q: %v\n%s", args, line, cmd.Wait(), strings.Join(seen, "\n"))
}
