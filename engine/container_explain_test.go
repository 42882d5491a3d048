package engine

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/engine/explain"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// graceTold is how long a container had not ended that was told to: at least a second,
// longer on a busy machine.
var graceTold = regexp.MustCompile(`had not ended [1-9][0-9]*\.[0-9] s later`)

// TestExplainEndings brings containers to their ends in all ways there are and
// compares what is said of them with what was done.
func TestExplainEndings(t *testing.T) {
	te := newTestEngine(t)
	const deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
	for _, test := range []struct {
		name, script string
		end          func(id string)
		cause        explain.Cause
		says         string
	}{
		{"by itself", "exit 0", nil, explain.Exited, "ended by itself with exit code 0"},
		{"command not found", "nosuch", nil, explain.Exited, "did not find a command"},
		{"not executable", "/etc", nil, explain.Exited, "could not execute"},
		{"number of a signal", "exit 137", nil, explain.Exited, "No signal ended it"},
		{"stop in order", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done",
			func(id string) { te.must(te.stopIn(id, 60)) }, explain.Stopped, "told to stop by SIGTERM and ended in order"},
		{"stop with SIGKILL", deaf, func(id string) { te.must(te.stopIn(id, 0)) }, explain.Stopped, "sent SIGKILL"},
		{"stop too slow", deaf, func(id string) { te.must(te.stopIn(id, 1)) }, explain.StopTimeout, "was told to stop by SIGTERM, had not ended "},
		{"kill", deaf, func(id string) { te.must(te.ContainerKill(t.Context(), id, "KILL")) }, explain.Killed, "on request"},
		{"kill from outside", deaf, func(id string) { te.must(unix.Kill(te.inspect(id).State.Pid, unix.SIGKILL)) },
			explain.Signalled, "SIGKILL ended it (exit code 137)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := te.run("", request("sh", "-c", test.script))
			if test.end != nil {
				te.awaitLog(id, "ready")
				test.end(id)
			}
			te.wait(id, container.WaitConditionNotRunning)
			got := te.explain(id)
			if got.Ending.Cause != test.cause || !strings.Contains(got.Text[0].Answers[0], test.says) {
				t.Errorf("cause %s, want %s with %q: %q", got.Ending.Cause, test.cause, test.says, got.Text[0])
			}
			if told := graceTold.MatchString(got.Text[0].Answers[0]); told != (test.cause == explain.StopTimeout) {
				t.Errorf("how long it had not ended is told: %v: %q", told, got.Text[0])
			}
			if !got.Use.Known || got.Use.CPU == 0 {
				t.Errorf("use %+v", got.Use)
			}
		})
	}
}

func (te *testEngine) explain(ref string) *explain.Container {
	te.t.Helper()
	got, err := te.ContainerExplain(te.t.Context(), ref)
	if err != nil {
		te.t.Fatal(err)
	}
	return got
}

func (te *testEngine) must(err error) {
	te.t.Helper()
	if err != nil {
		te.t.Fatal(err)
	}
}

// TestExplainMemory: the limit's kill is told from one in which the init lives on.
func TestExplainMemory(t *testing.T) {
	te := newTestEngine(t)
	hog := "a=x; while :; do a=$a$a; done"
	req := request("sh", "-c", hog)
	req.HostConfig.Memory, req.HostConfig.MemorySwap = 16<<20, 16<<20
	id := te.run("", req)
	te.wait(id, container.WaitConditionNotRunning)
	got := te.explain(id)
	if got.Ending.Cause != explain.OutOfMemory || !strings.Contains(got.Text[0].Answers[0], "its limit of 16MiB") || got.Use.OOMKills != 1 {
		t.Errorf("%+v %q", got.Use, got.Text[0])
	}
	req = request("sh", "-c", "sh -c '"+hog+"'; exit 5")
	req.HostConfig.Memory, req.HostConfig.MemorySwap = 16<<20, 16<<20
	id = te.run("", req)
	te.wait(id, container.WaitConditionNotRunning)
	got = te.explain(id)
	if text := strings.Join(got.Text[0].Answers, " "); got.Ending.Cause != explain.Exited || !strings.Contains(text, "first process was not among them") {
		t.Errorf("%s %q", got.Ending.Cause, text)
	}
}

// TestExplainStates: what runs, what has never run, what cannot be started.
func TestExplainStates(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "echo ready; while :; do :; done")
	pids := int64(30)
	req.HostConfig.NanoCPUs, req.HostConfig.Memory, req.HostConfig.PidsLimit = 1e8, 64<<20, &pids
	id := te.run("busy", req)
	te.awaitLog(id, "ready")
	got := te.explain("busy")
	for deadline := time.Now().Add(time.Minute); got.Use.ThrottledPeriods < 2 && time.Now().Before(deadline); {
		got = te.explain("busy") // each look is an act of its own
	}
	text := strings.Join(got.Text[1].Answers, " ")
	for _, want := range []string{"Its limit of 0.1 processors throttled it in", "of a limit of 64MiB", "1 process or thread now, of at most 30"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	seen, con := got.Confinement.Seen, got.Confinement
	if got.Ending.Cause != explain.Running || seen == nil || seen.Seccomp != 2 || con.Seccomp.Profile != "default" || con.Seccomp.Allowed < 200 ||
		!slices.Contains(con.Capabilities, "CAP_CHOWN") || len(con.MaskedPaths) == 0 {
		t.Errorf("%+v %+v", con, seen)
	}
	if !strings.Contains(got.Program.Listing, "pivot_root") || got.Program.Rebuilt || got.Program.Calls < 50 {
		t.Errorf("program of %d calls, rebuilt %t", got.Program.Calls, got.Program.Rebuilt)
	}

	te.create("fresh", request("true"))
	if got = te.explain("fresh"); got.Ending.Cause != explain.NeverStarted || !got.Program.Rebuilt || got.Program.Problem != "" {
		t.Errorf("%+v %q", got.Ending, got.Program.Problem)
	}
	id = te.create("", request("nosuch"))
	if err := te.ContainerStart(t.Context(), id); err == nil {
		t.Fatal("it was started")
	}
	if got = te.explain(id); got.Ending.Cause != explain.StartFailed || !strings.Contains(got.Text[0].Answers[0], "Exit code 127 says") {
		t.Errorf("%+v %q", got.Ending, got.Text[0])
	}
	te.must(te.ContainerKill(t.Context(), "busy", "KILL"))
}

// TestExplainConfinement: what is asked for is told, also of what does not run.
func TestExplainConfinement(t *testing.T) {
	te := newTestEngine(t)
	req := request("true")
	req.User = "1000"
	req.HostConfig.CapDrop, req.HostConfig.CapAdd = []string{"ALL"}, []string{"NET_ADMIN"}
	req.HostConfig.SecurityOpt = []string{"no-new-privileges", "seccomp=unconfined"}
	req.HostConfig.ReadonlyRootfs, req.HostConfig.PidMode, req.HostConfig.NetworkMode = true, "host", "host"
	te.create("odd", req)
	got := te.explain("odd")
	text := strings.Join(got.Text[2].Answers, "\n")
	for _, want := range []string{
		"it shares with the host: processes, network,", "runs as user 1000; no program it executes can gain privileges",
		"it may, with 1 of the kernel's 41, configure networks (NET_ADMIN). As it does not run as root, it has none of them",
		"there is no seccomp filter", "its root file system cannot be written", "Limits: none",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	req = request("true")
	req.HostConfig.Privileged = true
	te.create("mighty", req)
	if text := te.explain("mighty").Text[2].Answers[0]; !strings.Contains(text, "it can take the host over") {
		t.Errorf("%q", text)
	}
}
