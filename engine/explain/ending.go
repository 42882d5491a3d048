package explain

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cause is why a container is in the state it is in.
type Cause string

// The causes.
const (
	NeverStarted  Cause = "never-started"
	StartFailed   Cause = "start-failed"
	Running       Cause = "running"
	Exited        Cause = "exited"             // by itself
	Stopped       Cause = "stopped"            // asked to end, and did
	StopTimeout   Cause = "stop-timeout"       // asked to end, did not, and was killed
	Killed        Cause = "killed"             // by a signal that was asked of the engine
	Signalled     Cause = "signalled"          // by a signal that was not the engine's
	OutOfMemory   Cause = "out-of-memory"      // its own limit's
	HostNoMemory  Cause = "host-out-of-memory" // somebody else's need
	SeccompDenied Cause = "seccomp-denied"
	KeeperLost    Cause = "keeper-lost"
)

// Ending is how the last run ended, or that it goes on.
type Ending struct {
	Cause Cause
	// Status is Docker's word for the state.
	Status string
	// StartedAt and FinishedAt are zero when there was no run, or no end.
	StartedAt  time.Time `json:",omitzero"`
	FinishedAt time.Time `json:",omitzero"`
	CreatedAt  time.Time
	Pid        int `json:",omitempty"`
	ExitCode   int
	// Signal ended the init, 0 when it ended by itself.
	Signal int `json:",omitempty"`
	// SignalName is its name.
	SignalName string `json:",omitempty"`
	// Sent are the signals that the engine sent to this run, oldest first.
	Sent []Sent `json:",omitempty"`
	// OOMKills are the processes killed for want of memory, of which the init may
	// be one; ByLimit tells that the container's own limit was the reason.
	OOMKills uint64 `json:",omitempty"`
	ByLimit  bool   `json:",omitempty"`
	// MemoryLimit is the limit then, 0 for none.
	MemoryLimit uint64 `json:",omitempty"`
	// Error is why a start failed, or what else went wrong.
	Error string `json:",omitempty"`
	// FailedStart tells that Error is of a start.
	FailedStart bool `json:",omitempty"`
	// Lost tells that nobody saw the end.
	Lost bool `json:",omitempty"`

	// Restart is the policy: no, always, unless-stopped, on-failure; MaxRetries
	// is of the last one, 0 for any number. Restarts counts those so far.
	Restart    string
	MaxRetries int `json:",omitempty"`
	Restarts   int `json:",omitempty"`
	// StoppedByUser keeps the policy from starting it.
	StoppedByUser bool `json:",omitempty"`
	// AutoRemove: it is removed when it ends.
	AutoRemove bool `json:",omitempty"`
	// Health is the health check's last word; empty without a check.
	Health string `json:",omitempty"`
	// Command is what it runs.
	Command []string
}

// Sent is a signal the engine sent: by "stop", by "kill", or because the
// "grace" of a stop was over.
type Sent struct {
	Signal string
	Number int
	By     string
	At     time.Time
}

// sentLast is the last one sent with that number; number 0 is any.
func (e *Ending) sentLast(number int, by string) *Sent {
	for i := len(e.Sent) - 1; i >= 0; i-- {
		if s := &e.Sent[i]; (number == 0 || s.Number == number) && (by == "" || s.By == by) {
			return s
		}
	}
	return nil
}

func (e *Ending) cause() Cause {
	switch e.Status {
	case "running", "paused":
		return Running
	}
	switch {
	case e.FailedStart:
		return StartFailed
	case e.StartedAt.IsZero():
		return NeverStarted
	case e.Lost:
		return KeeperLost
	case e.OOMKills > 0 && e.Signal == int(syscall.SIGKILL) && e.sentLast(e.Signal, "") == nil:
		if e.ByLimit {
			return OutOfMemory
		}
		return HostNoMemory
	case e.Signal != 0:
		return e.signalCause()
	case e.sentLast(0, "stop") != nil:
		return Stopped
	}
	return Exited
}

func (e *Ending) signalCause() Cause {
	switch {
	case e.sentLast(e.Signal, "grace") != nil:
		return StopTimeout
	case e.sentLast(e.Signal, "stop") != nil:
		return Stopped
	case e.sentLast(e.Signal, "kill") != nil:
		return Killed
	case e.Signal == int(syscall.SIGSYS):
		return SeccompDenied
	}
	return Signalled
}

func (e *Ending) question() string {
	switch e.Cause {
	case Running:
		return "Is it well?"
	case NeverStarted, StartFailed:
		return "Why does it not run?"
	}
	return "Why did it end?"
}

func (e *Ending) answers(now time.Time) []string {
	var out []string
	if e.Cause == Running {
		out = append(out, e.running(now)...)
	} else {
		out = append(out, e.why(now))
	}
	if e.OOMKills > 0 && e.Cause != OutOfMemory && e.Cause != HostNoMemory {
		out = append(out, fmt.Sprintf("The kernel has killed %s of it for want of memory; the container's first process was not among them.",
			count(int(e.OOMKills), "process", "processes")))
	}
	if e.Error != "" && !e.FailedStart && !e.Lost {
		out = append(out, "Besides: "+e.Error+".")
	}
	if e.Cause != NeverStarted && e.Cause != StartFailed {
		out = append(out, e.restart())
	}
	return out
}

func (e *Ending) running(now time.Time) []string {
	state := "runs"
	if e.Status == "paused" {
		state = "is paused, which stops it without its noticing; it was started"
	}
	out := []string{fmt.Sprintf("It %s %s ago: process %d, %s.", strings.Replace(state, "runs", "runs, started", 1),
		length(now.Sub(e.StartedAt)), e.Pid, command(e.Command))}
	if e.Health != "" {
		out = append(out, fmt.Sprintf("Its health check says: %s.", e.Health))
	}
	for _, s := range e.Sent {
		out = append(out, fmt.Sprintf("%s was sent to it %s ago and has not ended it.", s.Signal, length(now.Sub(s.At))))
	}
	return out
}

func (e *Ending) why(now time.Time) string {
	ran := fmt.Sprintf("%s after its start, %s ago", length(e.FinishedAt.Sub(e.StartedAt)), length(now.Sub(e.FinishedAt)))
	switch e.Cause {
	case NeverStarted:
		return fmt.Sprintf("It was created %s ago and has never been started; berth start does that.", length(now.Sub(e.CreatedAt)))
	case StartFailed:
		return fmt.Sprintf("Its start failed: %s. %s", e.Error, startCode(e.ExitCode))
	case KeeperLost:
		return fmt.Sprintf("Nobody saw its end: the keeper, parent of all containers, was itself killed. What was left of it was ended %s ago; "+
			"exit code %d stands for an unknown one.", length(now.Sub(e.FinishedAt)), e.ExitCode)
	case OutOfMemory:
		return fmt.Sprintf("It ran out of memory: the kernel killed it (SIGKILL, exit code %d) when it wanted more than its limit of %s, %s. "+
			"Give it more with --memory, or see why it wants so much.", e.ExitCode, size(e.MemoryLimit), ran)
	case HostNoMemory:
		return fmt.Sprintf("The host ran out of memory and the kernel chose this container to kill (SIGKILL, exit code %d), %s; it had not "+
			"reached a limit of its own. Limits on its neighbours, or a lower --oom-score-adj, protect it.", e.ExitCode, ran)
	case StopTimeout:
		return e.tooSlow(ran)
	case Stopped:
		return e.stopped(ran)
	case Killed:
		return fmt.Sprintf("It was killed on request: berth kill (or its API) sent %s, which ended it with exit code %d, %s.", e.SignalName, e.ExitCode, ran)
	case SeccompDenied:
		return fmt.Sprintf("It made a system call that its seccomp profile answers with death (SIGSYS, exit code %d), %s.", e.ExitCode, ran)
	case Signalled:
		return fmt.Sprintf("%s ended it (exit code %d), %s. %s", e.SignalName, e.ExitCode, ran, e.foreignSignal())
	}
	return fmt.Sprintf("Its program, %s, ended by itself with exit code %d, %s. %s", command(e.Command), e.ExitCode, ran, exitCode(e.ExitCode))
}

func (e *Ending) tooSlow(ran string) string {
	kill := e.sentLast(int(syscall.SIGKILL), "grace")
	asked := e.sentLast(0, "stop")
	if asked == nil {
		return fmt.Sprintf("It had not ended in time when it was told to stop and was killed by SIGKILL (exit code %d), %s.", e.ExitCode, ran)
	}
	return fmt.Sprintf("It was told to stop by %s, had not ended %s later, and was killed by SIGKILL (exit code %d), %s. "+
		"A first process that handles no %s ignores it: run it under --init, give it another --stop-signal, or a longer --stop-timeout.",
		asked.Signal, length(kill.At.Sub(asked.At)), e.ExitCode, ran, asked.Signal)
}

func (e *Ending) stopped(ran string) string {
	asked := e.sentLast(0, "stop")
	after := length(e.FinishedAt.Sub(asked.At))
	if e.Signal != 0 {
		return fmt.Sprintf("It was told to stop: berth stop (or restart, or the API) sent %s, which ended it %s later with exit code %d, %s.",
			asked.Signal, after, e.ExitCode, ran)
	}
	return fmt.Sprintf("It was told to stop by %s and ended in order %s later with exit code %d, %s.", asked.Signal, after, e.ExitCode, ran)
}

// foreignSignal says whose a signal may have been that was not the engine's.
func (e *Ending) foreignSignal() string {
	switch syscall.Signal(e.Signal) {
	case syscall.SIGSEGV, syscall.SIGBUS:
		return "Its program touched memory that it does not have: an error of the program."
	case syscall.SIGABRT:
		return "Its program gave up by itself, as after a failed assertion; its log may say why."
	case syscall.SIGILL, syscall.SIGFPE, syscall.SIGTRAP:
		return "Its program did what the processor refuses: an error of the program, or a build for another processor."
	case syscall.SIGXCPU, syscall.SIGXFSZ:
		return "It went over a limit that --ulimit has set."
	}
	return "It was not Berth that sent it, nor want of memory: somebody on the host with the right to did, such as root with kill."
}

// startCode explains the exit codes of a failed start.
func startCode(code int) string {
	switch code {
	case 127:
		return "Exit code 127 says that there is no such program in the image, or no interpreter for a script."
	case 126:
		return "Exit code 126 says that it is there but cannot be executed: it lacks the x permission, is a directory, or is for another processor."
	}
	return fmt.Sprintf("Exit code %d says that the container could not be made; nothing of it was left running.", code)
}

// exitCode explains what programs mean by some codes.
func exitCode(code int) string {
	switch {
	case code == 0:
		return "0 says that it has done what it was to do."
	case code == 126:
		return "A shell ends so when it found a command that it could not execute."
	case code == 127:
		return "A shell ends so when it did not find a command."
	case code == 137:
		return "No signal ended it: it returned that number itself, as a shell does when SIGKILL has ended its last command."
	case code > 128 && code <= 128+64:
		return fmt.Sprintf("A shell ends so when %s has ended its last command.", SignalName(code-128))
	}
	return "What the code means only the program knows; its log may say more (berth logs)."
}

func (e *Ending) restart() string {
	times := ""
	if e.Restarts > 0 {
		times = fmt.Sprintf(" It has been restarted %s.", count(e.Restarts, "time", "times"))
	}
	switch {
	case e.Status == "restarting":
		return fmt.Sprintf("It will be started again: its restart policy is %s.%s", e.policy(), times)
	case e.Cause == Running && (e.Restart == "" || e.Restart == "no"):
		return "When it ends it stays ended: it has no restart policy." + times
	case e.Cause == Running:
		return fmt.Sprintf("When it ends its restart policy, %s, starts it again.%s", e.policy(), times)
	case e.Restart == "" || e.Restart == "no":
		return "It stays ended: it has no restart policy (--restart)." + times
	case e.StoppedByUser:
		return fmt.Sprintf("It stays ended: its restart policy, %s, does not start what somebody has stopped.%s", e.policy(), times)
	case e.Restart == "on-failure" && e.ExitCode == 0:
		return fmt.Sprintf("It stays ended: its restart policy, %s, starts only what failed.%s", e.policy(), times)
	case e.Restart == "on-failure" && e.MaxRetries > 0 && e.Restarts >= e.MaxRetries:
		return fmt.Sprintf("It stays ended: its restart policy, %s, has given up.%s", e.policy(), times)
	}
	return fmt.Sprintf("Its restart policy is %s.%s", e.policy(), times)
}

func (e *Ending) policy() string {
	if e.Restart == "on-failure" && e.MaxRetries > 0 {
		return fmt.Sprintf("on-failure:%d", e.MaxRetries)
	}
	return e.Restart
}

// SignalName is a signal's name, or its number where it has none.
func SignalName(number int) string {
	if name := unix.SignalName(syscall.Signal(number)); name != "" {
		return name
	}
	if number > 34 && number <= 64 {
		return fmt.Sprintf("SIGRTMIN+%d", number-34)
	}
	return fmt.Sprintf("signal %d", number)
}

// command writes a command line, cut where it is long.
func command(words []string) string {
	const most = 60
	text := []rune(strings.Join(words, " "))
	if len(text) > most {
		text = append(text[:most-1], '…')
	}
	return "“" + string(text) + "”"
}
