package cli_test

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-containers/berth/test/typist"
	"golang.org/x/sys/unix"
)

// TestLiveTop is a user in front of berth top. The screen is read through a
// terminal emulator.
func TestLiveTop(t *testing.T) {
	e := newEngine(t)
	e.importBusybox(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"table", testLiveTable}, {"log", testLiveLog}, {"sizes", testLiveSizes}, {"endings", testLiveEndings},
		{"engine killed", testLiveEngineKilled}, {"no terminal", testLiveNoTerminal},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(func() { e.removeContainers(t) })
			test.run(t, e)
		})
	}
}

// names are the first words of the table's lines, in order.
func names(p *typist.Typist) string {
	var list []string
	screen := p.Screen()
	for _, line := range screen[2 : len(screen)-1] {
		if f := strings.Fields(strings.TrimLeft(line, "> ")); len(f) > 1 {
			list = append(list, f[0])
		}
	}
	return strings.Join(list, " ")
}

// becomesOrder waits until the table's names are in an order.
func becomesOrder(t *testing.T, p *typist.Typist, want string) {
	t.Helper()
	words := strings.Fields(want)
	for i := range words {
		words[i] = regexp.QuoteMeta(words[i]) + ` `
	}
	p.Shows(`(?s)NAME.*?` + strings.Join(words, `.*?\n[> ]`))
	if got := names(p); got != want {
		t.Errorf("names %q, want %q", got, want)
	}
}

// testLiveTable: containers come, are sorted, filtered, chosen, and explained.
func testLiveTable(t *testing.T, e *engine) {
	e.ok(t, nil, "run", "-d", "--name", "idle", "-m", "64m", "busybox", "sleep", "1000")
	e.ok(t, nil, "run", "-d", "--name", "busy", "--cpus", "0.2", "-m", "32m", "busybox", "sh", "-c", "while :; do :; done")
	e.ok(t, nil, "run", "-d", "--name", "gone", "busybox", "sh", "-c", "exit 3")
	e.ok(t, nil, "wait", "gone")
	p := typist.Sit(t, e.command("top"))
	before := p.Before()
	p.Shows(`2 running, 1 not`)
	p.Shows(`^>?\s?busy +up \S+ +[1-9]\d*\.\d +\d.*32\.0M`) // CPU%, once there are rates
	becomesOrder(t, p, "busy idle")
	p.Types("n")
	p.Shows(`by name `)
	p.Types("n")
	becomesOrder(t, p, "idle busy")
	p.Types("a")
	p.Shows(`gone +exit 3`)
	p.Types("/idl")
	p.Shows(`filter: idl_`)
	p.Hides(`busy`)
	p.Types("\r")
	p.Shows(`filter "idl"`)
	p.Types("\x1b")
	p.Shows(`busy`)
	p.Types("\x1b[F")
	p.Shows(`^>gone`)
	p.Types("e")
	p.Shows(`^ explain gone`)
	p.Shows(`ended by itself with exit code 3`)
	p.Types("q")
	p.Shows(`NAME`)
	p.Types("h")
	p.Shows(`^ berth top: help`)
	p.Types("q")
	p.Shows(`NAME`)
	e.ok(t, nil, "run", "-d", "--name", "later", "busybox", "sleep", "1000")
	p.Shows(`later +up`)
	e.ok(t, nil, "rm", "-f", "later")
	p.Hides(`later`)
	p.Types("q")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if p.Mode() != before {
		t.Error("the terminal's mode was not restored")
	}
}

// testLiveLog: a log is one key away, goes on, scrolls, and cannot do anything
// to the terminal.
func testLiveLog(t *testing.T, e *engine) {
	e.ok(t, nil, "run", "-d", "--name", "writer", "-i", "busybox", "sh", "-c",
		`printf 'bad\033[2J\033]0;title\007 line\n'; for i in $(seq 1 100); do echo number $i; done; read x; echo woken; sleep 1000`)
	p := typist.Sit(t, e.command("top"))
	p.Shows(`^>writer`)
	p.Types("\r")
	p.Shows(`^ log of writer`)
	p.Shows(`^number 100$`)
	p.Shows(`following`)
	p.Types("g")
	p.Shows(`^bad line$`)
	p.Types("G")
	p.Shows(`^number 100$`)
	typed := e.command("attach", "writer")
	typed.Stdin = strings.NewReader("x\n")
	if err := typed.Start(); err != nil {
		t.Fatal(err)
	}
	p.Shows(`^woken$`)
	if err := typed.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = typed.Wait() // killed
	p.Types("q")
	p.Shows(`NAME`)
	p.Types("\x03")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// testLiveSizes: it fits 80×24, grows with the terminal, and needs no colours.
func testLiveSizes(t *testing.T, e *engine) {
	for i := range 30 {
		e.ok(t, nil, "create", "--name", fmt.Sprintf("container-with-a-long-name-%d", i), "busybox")
	}
	cmd := e.command("top")
	cmd.Env = append(cmd.Env, "NO_COLOR=1", "TERM=vt100")
	p := typist.Sit(t, cmd)
	p.Resize(24, 80)
	p.Types("a")
	p.Shows(`^ NAME +STATE +CPU% +MEM +MEM% +LIMIT +DISK/s +NET/s +PIDS +WAIT%`)
	p.Shows(`q quit`)
	for _, line := range p.Screen() {
		if len([]rune(line)) > 80 {
			t.Errorf("line of %d characters: %q", len(line), line)
		}
	}
	p.Resize(40, 140)
	p.Shows(`HEALTH +IMAGE`)
	p.Shows(`(?s)-0 .*-29 .*-9 `) // all thirty, by name
	p.Resize(10, 40)
	p.Shows(`^ NAME +STATE +CPU% +MEM$`)
	p.Types("q")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// testLiveEndings: whatever ends it, the terminal is as before.
func testLiveEndings(t *testing.T, e *engine) {
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT} {
		p := typist.Sit(t, e.command("top"))
		before := p.Before()
		p.Shows(`NAME`)
		p.Signal(sig)
		p.Sees("\x1b[?1049l")
		if code := p.Exits(); code != 128+int(sig) {
			t.Errorf("%v: exit code %d", sig, code)
		}
		if p.Mode() != before {
			t.Errorf("%v: the terminal's mode was not restored", sig)
		}
	}
}

// testLiveEngineKilled: it waits for an engine that is gone, and goes on.
func testLiveEngineKilled(t *testing.T, e *engine) {
	e.ok(t, nil, "run", "-d", "--name", "stays", "busybox", "sleep", "1000")
	p := typist.Sit(t, e.command("top"))
	p.Shows(`^>stays +up`)
	if err := e.end(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Shows(`trying again`)
	e.ok(t, nil, "ps") // starts one
	p.Shows(`1 running`)
	p.Types("q")
	if code := p.Exits(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// testLiveNoTerminal: into a pipe there is an error that says what to do instead.
func testLiveNoTerminal(t *testing.T, e *engine) {
	out, err := e.command("top").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs a terminal\nhint: name a container, or use: berth stats --no-stream") {
		t.Errorf("%v, %q", err, out)
	}
}
