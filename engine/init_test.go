package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/berth-containers/berth/oci"
	"github.com/moby/moby/api/types/container"
)

// withInit is a container whose command has an init.
func withInit(cmd ...string) *container.CreateRequest {
	req := request(cmd...)
	yes := true
	req.HostConfig.Init = &yes
	return req
}

func TestInit(t *testing.T) {
	te := newTestEngine(t)
	for _, tc := range []struct {
		name, script, out string
		code              int
	}{
		{"the command is its child", "echo $$ $PPID", "2 1\n", 0},
		{"the exit code", "exit 42", "", 42},
		{"killed by a signal", "kill -9 $$", "", 137},
		{"a process group of its own", `read pid comm state ppid pgrp rest </proc/self/stat; test $pgrp = $$ && echo own`, "own\n", 0},
		// The grandchild is reparented to the init, which must have reaped it: kill
		// finds a zombie, but not a process that is gone.
		{"zombies are reaped", `pid=$(sh -c 'sleep 0 >/dev/null & echo $!'); while kill -0 $pid 2>/dev/null; do :; done; echo reaped`, "reaped\n", 0},
		// PID 1 would not take a signal that it has no handler for.
		{"a signal without a handler", "kill -TERM $$; sleep 1000", "", 143},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := withInit("sh", "-c", tc.script)
			req.HostConfig.ReadonlyRootfs = true
			if out, code := te.output(req); out != tc.out || code != tc.code {
				t.Errorf("%q, exit code %d; want %q, %d", out, code, tc.out, tc.code)
			}
		})
	}
}

// TestInitMask gives the command the signal mask and the handlers it would have
// without an init.
func TestInitMask(t *testing.T) {
	te := newTestEngine(t)
	cmd := []string{"grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"}
	without, _ := te.output(request(cmd...))
	if with, _ := te.output(withInit(cmd...)); with != without || !strings.Contains(with, "SigBlk:\t0000000000000000\n") {
		t.Errorf("with an init\n%swithout\n%s", with, without)
	}
}

// TestInitSignals stops a command that handles no signals, and forwards others.
func TestInitSignals(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.run("", withInit("sleep", "1000"))
	// The command was executed; the init is, and does the rest, when it gets to run.
	te.exec(id, "sh", "-c", `until test "$(cat /proc/1/comm) $(ls /proc/1/fd | tr '\n' ' ')" = "berth-init 0 1 2 " -a -n "$(tr '\0' ' ' </proc/1/cmdline)"; do :; done`)
	if out, _ := te.exec(id, "cat", "/proc/1/cmdline"); out != "berth-init\x00--\x00sleep\x001000\x00" {
		t.Errorf("the first process is %q", out)
	}
	hour := 3600
	if err := te.ContainerStop(ctx, id, StopOptions{Timeout: &hour}); err != nil {
		t.Fatal(err)
	}
	if got, err := te.ContainerInspect(ctx, id, false); err != nil || got.State.ExitCode != 143 {
		t.Errorf("exit code %d, %v", got.State.ExitCode, err)
	}
	id = te.run("", withInit("sh", "-c", `for s in HUP USR1 WINCH TERM; do trap "echo $s" $s; done; trap 'exit 7' INT; echo up; while :; do sleep 0.01; done`))
	follow := te.follow(id)
	follow("up\n")
	for _, sig := range []string{"HUP", "USR1", "WINCH", "TERM"} {
		if err := te.ContainerKill(ctx, id, "SIG"+sig); err != nil {
			t.Fatal(err)
		}
		follow(sig + "\n")
	}
	if err := te.ContainerKill(ctx, id, "SIGINT"); err != nil {
		t.Fatal(err)
	}
	if code := te.wait(id, container.WaitConditionNotRunning); code != 7 {
		t.Errorf("exit code %d", code)
	}
}

// follow returns a function that waits for a container's next output.
func (te *testEngine) follow(id string) func(want string) {
	lines := make(lineWriter, 100)
	go te.ContainerLogs(te.t.Context(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, lines)
	return func(want string) {
		te.t.Helper()
		if got := <-lines; got != want {
			te.t.Errorf("next output %q, want %q", got, want)
		}
	}
}

// lineWriter is a LogWriter that passes entries on.
type lineWriter chan string

func (w lineWriter) Begin(bool) error                     { return nil }
func (w lineWriter) Flush() error                         { return nil }
func (w lineWriter) WriteLog(_ LogStream, p []byte) error { w <- string(p); return nil }

func TestInitTerminal(t *testing.T) {
	te := newTestEngine(t)
	// The eighth field of stat is the terminal's foreground process group.
	req := withInit("sh", "-c", `read pid comm state ppid pgrp session tty tpgid rest </proc/$$/stat; test $pgrp = $$ -a $tpgid = $$ && echo foreground`)
	req.Config.Tty = true
	if out, code := te.output(req); out != "foreground\r\n" || code != 0 {
		t.Errorf("%q, exit code %d", out, code)
	}
	// ctrl-C goes to the command.
	req = withInit("sleep", "1000")
	req.Config.Tty, req.Config.OpenStdin = true, true
	id := te.run("", req)
	s, err := te.ContainerAttach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if code := te.wait(id, container.WaitConditionNotRunning); code != 130 {
		t.Errorf("exit code %d", code)
	}
}

// TestInitCommand reports a command that cannot be executed as without an init.
func TestInitCommand(t *testing.T) {
	te := newTestEngine(t)
	for _, tc := range []struct {
		cmd  string
		err  error
		code int
	}{
		{"nosuch", oci.ErrCommandNotFound, exitNotFound},
		{"/nosuch", oci.ErrCommandNotFound, exitNotFound},
		{"/etc/notexec", oci.ErrCommandNotExecutable, exitNotExecutable},
		{"/etc", oci.ErrCommandNotExecutable, exitNotExecutable},
	} {
		var texts [2]string
		for i, req := range []*container.CreateRequest{request(tc.cmd), withInit(tc.cmd)} {
			id := te.create("ship", req)
			err := te.ContainerStart(t.Context(), id)
			if !errors.Is(err, tc.err) {
				t.Errorf("%s: %v", tc.cmd, err)
				continue
			}
			texts[i] = err.Error()
			got, err := te.ContainerInspect(t.Context(), id, false)
			if err != nil || got.State.ExitCode != tc.code {
				t.Errorf("%s: exit code %d, %v", tc.cmd, got.State.ExitCode, err)
			}
			if err := te.ContainerRemove(t.Context(), id, RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if texts[0] != texts[1] {
			t.Errorf("%s: without an init %q, with one %q", tc.cmd, texts[0], texts[1])
		}
	}
}

func TestInitDefault(t *testing.T) {
	e := &Engine{cfg: Config{Init: true}, host: &hostFacts{}}
	if hc := e.defaultHostConfig(nil); hc.Init == nil || !*hc.Init {
		t.Error("the engine's default is not taken")
	}
	no := false
	if hc := e.defaultHostConfig(&container.HostConfig{Init: &no}); *hc.Init {
		t.Error("--init=false is not heard")
	}
	e.cfg.Init = false
	if hc := e.defaultHostConfig(nil); hc.Init != nil {
		t.Error("an init without being asked")
	}
}
