package cli_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestScripts runs testdata/*.txt, one after the other, each on an engine with
// the image busybox and no containers.
func TestScripts(t *testing.T) {
	e := newEngine(t)
	e.importBusybox(t)
	testscript.RunT(sequential{t}, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for _, v := range e.env() {
				name, value, _ := strings.Cut(v, "=")
				env.Setenv(name, value)
			}
			port, err := freePort()
			if err != nil {
				return err
			}
			env.Setenv("BOX_PORT", port)
			script := env.T().(sequential).T
			env.Defer(func() { e.renew(script) })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "becomes": e.becomes, "stop-engine": e.stopEngine, "kill-engine": e.killEngine,
		},
	})
}

// freePort is a port of 127.0.0.1 that nobody listens on.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// sequential runs scripts one by one: they share an engine.
type sequential struct{ *testing.T }

func (s sequential) Run(name string, fn func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { fn(sequential{t}) })
}

func (s sequential) Parallel()     {}
func (s sequential) Verbose() bool { return testing.Verbose() }

// renew makes the engine as the next script is to find it. What a script that failed
// has left is not known.
func (e *engine) renew(script *testing.T) {
	if !script.Failed() {
		e.removeContainers(script)
		return
	}
	e.purge(script)
	e.importBusybox(script)
}

func (e *engine) removeContainers(t *testing.T) {
	if ids := strings.Fields(e.ok(t, nil, "ps", "-aq")); len(ids) > 0 {
		e.ok(t, nil, append([]string{"rm", "-f"}, ids...)...)
	}
}

// exits CODE COMMAND... runs a command that must end with the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", code, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// becomes TEXT COMMAND... repeats a command until its output is the text. It
// is for what a container does in its own time; each try asks anew.
func (e *engine) becomes(ts *testscript.TestScript, neg bool, args []string) {
	const tries = 1000
	last := ""
	for range tries {
		cmd := exec.Command(filepath.Join(e.bin, args[1]), args[2:]...)
		cmd.Env = e.env()
		out, err := cmd.CombinedOutput()
		if last = strings.TrimSpace(string(out)); last == args[0] {
			return
		}
		if err != nil {
			ts.Fatalf("%v: %s", err, last)
		}
	}
	ts.Fatalf("output is %q after %d tries, want %q", last, tries, args[0])
}

// pid of the engine that runs; 0 for none.
func (e *engine) pid() int {
	text, err := os.ReadFile(filepath.Join(e.runRoot(), "berthd.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(bytes.TrimSpace(text)))
	return pid
}

// end sends the engine a signal and waits for its end.
func (e *engine) end(sig unix.Signal) error {
	pid := e.pid()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err != nil || exe != filepath.Join(e.bin, "berthd") {
		return nil // it has ended and somebody else has its pid
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (e *engine) stop(t *testing.T) {
	t.Helper()
	if err := e.end(unix.SIGTERM); err != nil {
		t.Errorf("stop the engine: %v", err)
	}
}

func (e *engine) stopEngine(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(e.end(unix.SIGTERM))
}

func (e *engine) killEngine(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(e.end(unix.SIGKILL))
}
