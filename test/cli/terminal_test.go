package cli_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/berth-containers/berth/test/typist"
)

// TestTerminal is a user at a terminal.
func TestTerminal(t *testing.T) {
	e := newEngine(t)
	e.importBusybox(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"shell", testShell}, {"detach and attach", testDetach}, {"exec", testExecTerminal},
		{"interrupt", testInterrupt}, {"attached start", testAttachedStart}, {"progress", testProgress}, {"stats", testStats},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(func() { e.removeContainers(t) })
			test.run(t, e)
		})
	}
}

// testShell: a shell in a container has a terminal of the user's size, which
// follows, with job control; its exit code is berth's.
func testShell(t *testing.T, e *engine) {
	p := typist.Sit(t, e.command("run", "-it", "--rm", "busybox"))
	before := p.Before()
	p.Sees("/ #")
	p.Types("tty; stty size\r")
	p.Sees("/dev/pts/0")
	p.Sees("30 90")
	p.Resize(41, 101)
	p.Types("until stty size | grep '41 101'; do sleep 0.01; done; echo followed\r")
	p.Sees("\r\nfollowed")
	p.Types("sh -c 'echo asleep; sleep 1000'\r")
	p.Sees("\r\nasleep\r\n")
	p.Types("\x03")
	p.Types("echo interrupted $?\r")
	p.Sees("interrupted 130")
	p.Types("exit 6\r")
	if code := p.Exits(); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
	if p.Mode() != before {
		t.Error("the terminal's mode was not restored")
	}
	if left := e.ok(t, nil, "ps", "-aq"); left != "" {
		t.Errorf("containers left: %s", left)
	}
}

func testDetach(t *testing.T, e *engine) {
	p := typist.Sit(t, e.command("run", "-it", "--name", "shell", "busybox"))
	before := p.Before()
	p.Sees("/ #")
	p.Types("x=kept\r")
	p.Sees("x=kept\r\n")
	p.Types("\x10\x11")
	p.Sees("read escape sequence")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d after a detach", code)
	}
	if p.Mode() != before {
		t.Error("the terminal's mode was not restored")
	}
	if state := e.ok(t, nil, "inspect", "-f", "{{.State.Status}}", "shell"); state != "running" {
		t.Fatalf("the container is %s after a detach", state)
	}
	p = typist.Sit(t, e.command("attach", "--detach-keys", "ctrl-x,x", "shell"))
	p.Types("echo $x again\r")
	p.Sees("kept again")
	p.Types("\x18x")
	p.Sees("read escape sequence")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d after a detach", code)
	}
	p = typist.Sit(t, e.command("attach", "shell"))
	p.Types("exit 3\r")
	if code := p.Exits(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

func testExecTerminal(t *testing.T, e *engine) {
	e.ok(t, nil, "run", "-d", "--name", "back", "busybox", "sleep", "1000")
	p := typist.Sit(t, e.command("exec", "-it", "back", "sh"))
	before := p.Before()
	p.Sees("/ #")
	p.Types("stty size\r")
	p.Sees("30 90")
	p.Types("exit 4\r")
	if code := p.Exits(); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
	if p.Mode() != before {
		t.Error("the terminal's mode was not restored")
	}
}

// testInterrupt: without a terminal in the container the user's interrupt
// becomes the container's.
func testInterrupt(t *testing.T, e *engine) {
	p := typist.Sit(t, e.command("run", "--name", "traps", "busybox", "sh", "-c",
		"trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.01; done"))
	p.Sees("ready")
	p.Types("\x03")
	p.Sees("interrupted")
	if code := p.Exits(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	p = typist.Sit(t, e.command("start", "-a", "traps"))
	p.Sees("ready")
	p.Signal(syscall.SIGTERM) // not trapped, and ignored by an init that does not
	p.Signal(syscall.SIGINT)
	p.Sees("interrupted")
	if code := p.Exits(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
}

func testAttachedStart(t *testing.T, e *engine) {
	e.ok(t, nil, "create", "-it", "--name", "later", "busybox")
	p := typist.Sit(t, e.command("start", "-ai", "later"))
	p.Sees("/ #")
	p.Types("exit 2\r")
	if code := p.Exits(); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
}

// testProgress: a load shows bars on a terminal.
func testProgress(t *testing.T, e *engine) {
	archive := e.dir + "/box.tar"
	e.ok(t, nil, "tag", "busybox", "copy")
	e.ok(t, nil, "save", "-o", archive, "copy")
	e.ok(t, nil, "rmi", "-f", "copy", "busybox")
	p := typist.Sit(t, e.command("load", "-i", archive))
	p.Sees("Loaded image: ")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if name := e.ok(t, nil, "images", "--format", "{{.Repository}}"); !strings.Contains(name, "copy") {
		t.Errorf("images %q", name)
	}
	e.ok(t, nil, "tag", "copy", "busybox")
}

// testStats: the table follows containers that come and go, until interrupted.
func testStats(t *testing.T, e *engine) {
	e.ok(t, nil, "run", "-d", "--name", "first", "busybox", "sleep", "1000")
	p := typist.Sit(t, e.command("stats"))
	p.Sees("CONTAINER ID")
	p.Sees("first")
	e.ok(t, nil, "run", "-d", "--name", "second", "busybox", "sleep", "1000")
	p.Sees("second")
	e.ok(t, nil, "rm", "-f", "first", "second")
	p.Sees("PIDS\x1b[K\r\n\x1b[J")
	p.Types("\x03")
	if code := p.Exits(); code != -1 {
		t.Errorf("exit code %d, want the signal's", code)
	}
}
