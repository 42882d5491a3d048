package explain

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/capability"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// ended is the ending of a run that lasted ten seconds until a minute ago.
func ended(change func(*Ending)) *Container {
	c := &Container{Ending: Ending{
		Status: "exited", CreatedAt: noon.Add(-time.Hour), StartedAt: noon.Add(-70 * time.Second), FinishedAt: noon.Add(-time.Minute),
		Command: []string{"server", "-v"}, Restart: "no",
	}}
	change(&c.Ending)
	c.Explain(noon)
	return c
}

// TestEndingsThatAreHardToMake holds what is said of ends that no test brings about.
func TestEndingsThatAreHardToMake(t *testing.T) {
	for _, test := range []struct {
		change func(*Ending)
		cause  Cause
		says   string
	}{
		{func(e *Ending) { e.Signal, e.ExitCode, e.OOMKills, e.SignalName = 9, 137, 1, "SIGKILL" }, HostNoMemory, "the kernel chose this container"},
		{func(e *Ending) { e.Lost, e.ExitCode, e.Error = true, 255, "keeper was killed" }, KeeperLost, "255 stands for an unknown one"},
		{func(e *Ending) { e.Signal, e.ExitCode, e.SignalName = 31, 159, "SIGSYS" }, SeccompDenied, "its seccomp profile answers with death"},
		{func(e *Ending) { e.Signal, e.ExitCode, e.SignalName = 11, 139, "SIGSEGV" }, Signalled, "touched memory that it does not have"},
		{func(e *Ending) { e.Signal, e.ExitCode, e.SignalName = 25, 153, "SIGXFSZ" }, Signalled, "limit that --ulimit has set"},
		{func(e *Ending) { e.Status, e.ExitCode, e.Restart, e.Restarts = "restarting", 1, "always", 3 }, Exited,
			"It will be started again: its restart policy is always. It has been restarted 3 times."},
		{func(e *Ending) { e.ExitCode, e.Restart, e.MaxRetries, e.Restarts = 1, "on-failure", 2, 2 }, Exited, "on-failure:2, has given up"},
		{func(e *Ending) { e.Restart = "on-failure" }, Exited, "starts only what failed"},
		{func(e *Ending) {
			e.Restart, e.StoppedByUser, e.Sent = "unless-stopped", true, []Sent{{Signal: "SIGTERM", Number: 15, By: "stop", At: noon.Add(-61 * time.Second)}}
		}, Stopped, "does not start what somebody has stopped"},
		{func(e *Ending) {
			e.FailedStart, e.ExitCode, e.Error = true, 128, "mount proc on /proc: operation not permitted"
		}, StartFailed,
			"Its start failed: mount proc on /proc: operation not permitted."},
	} {
		c := ended(test.change)
		if text := strings.Join(c.Text[0].Answers, " "); c.Ending.Cause != test.cause || !strings.Contains(text, test.says) {
			t.Errorf("cause %s, want %s with %q: %q", c.Ending.Cause, test.cause, test.says, text)
		}
	}
}

// TestCapabilitiesAreAllThere: every capability of the kernel has its words.
func TestCapabilitiesAreAllThere(t *testing.T) {
	known := map[string]bool{}
	for _, k := range capabilities {
		known[k.name] = true
	}
	for _, c := range capability.ListKnown() {
		if name := strings.ToUpper(c.String()); !known[name] {
			t.Errorf("%s has no words", name)
		}
	}
	if n := len(capability.ListKnown()); len(capabilities) != n {
		t.Errorf("%d capabilities, want %d", len(capabilities), n)
	}
}

func TestLength(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0 s", 340 * time.Millisecond: "340 ms", 4100 * time.Millisecond: "4.1 s", 184 * time.Second: "3 min 4 s",
		125 * time.Minute: "2 h 5 min", 75 * time.Hour: "3 days",
	} {
		if got := length(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestDisagreement: the kernel has the last word on what confines a process.
func TestDisagreement(t *testing.T) {
	asked := Confinement{Capabilities: []string{"CAP_CHOWN", "CAP_KILL"}, NoNewPrivileges: true, Seccomp: Seccomp{Profile: "default"}}
	for _, test := range []struct {
		seen Seen
		says string
	}{
		{Seen{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, NoNewPrivs: true, Seccomp: 2}, "The kernel confirms"},
		{Seen{Bounding: []string{"CAP_KILL"}, NoNewPrivs: true, Seccomp: 2}, "The kernel confirms"},
		{Seen{Bounding: []string{"CAP_KILL", "CAP_SYS_ADMIN"}, NoNewPrivs: true, Seccomp: 2}, "it can have CAP_SYS_ADMIN"},
		{Seen{NoNewPrivs: true}, "its seccomp mode is 0"},
		{Seen{Seccomp: 2}, "it can gain privileges"},
	} {
		asked.Seen = &test.seen
		if text := asked.disagreement(); !strings.Contains(text, test.says) {
			t.Errorf("%+v: %q, want %q", test.seen, text, test.says)
		}
	}
}
