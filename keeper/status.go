package keeper

import (
	"fmt"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// ExitCodeLost is the exit code of a process whose end nobody saw, because the
// keeper was killed while it ran. Docker uses the same number.
const ExitCodeLost = 255

// Status is what the keeper knows about one process.
type Status struct {
	// ContainerID names the container.
	ContainerID string `json:"containerID"`
	// ExecID names a process executed in the container; "" is its init.
	ExecID string `json:"execID,omitempty"`
	// Pid is the process's id in the keeper's pid namespace; 0 when lost.
	// It means nothing once Exited is set.
	Pid int `json:"pid,omitempty"`
	// StartedAt is when the program was running, ExitedAt when it was reaped.
	StartedAt time.Time `json:"startedAt"`
	ExitedAt  time.Time `json:"exitedAt,omitzero"`
	// Exited is set once the process has been reaped, its output is in the log,
	// and, for an init, its cgroup is gone.
	Exited bool `json:"exited,omitempty"`
	// ExitCode is the process's own, or 128 plus the number of the signal that
	// ended it, or ExitCodeLost.
	ExitCode int `json:"exitCode"`
	// Signal is the one that ended it, 0 when it ended by itself: its exit code
	// alone does not tell a program that returns 137 from one that was killed.
	Signal int `json:"signal,omitempty"`
	// OOMKilled is set on an init when the kernel killed a process of its
	// cgroup for want of memory.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// Error says what else went wrong with this process, "" when nothing did.
	Error string `json:"error,omitempty"`
	// Output is set on an exited process whose output was captured, see
	// [ExecRequest].Capture: its beginning, without what is not UTF-8.
	Output string `json:"output,omitempty"`
	// Used is set on an exited init: what its cgroup had used.
	Used Used `json:"used,omitzero"`
}

// Used is a container's balance, taken before its cgroup was removed. What the
// kernel does not count is 0.
type Used struct {
	// CPU is the processor time of all its processes.
	CPU time.Duration `json:"cpu,omitempty"`
	// Periods of the CPU quota that have passed, those in which the container was
	// stopped for the rest of one, and how long it was stopped in all.
	Periods          uint64        `json:"periods,omitempty"`
	ThrottledPeriods uint64        `json:"throttledPeriods,omitempty"`
	ThrottledTime    time.Duration `json:"throttledTime,omitempty"`
	// MemoryPeak is the most memory it had at once, in bytes.
	MemoryPeak uint64 `json:"memoryPeak,omitempty"`
	// MemoryFailures counts how often the memory limit was hit, OOMKills the
	// processes that the kernel has killed for want of memory.
	MemoryFailures uint64 `json:"memoryFailures,omitempty"`
	OOMKills       uint64 `json:"oomKills,omitempty"`
	// ForksRefused counts the processes and threads above the limit.
	ForksRefused uint64 `json:"forksRefused,omitempty"`
}

// key names one process: a container's init has an empty exec.
type key struct{ container, exec string }

func (k key) String() string {
	if k.exec == "" {
		return "container " + k.container
	}
	return "exec " + k.exec + " of container " + k.container
}

// maxID bounds an id so that it fits a file's name with what is put behind it.
const maxID = 128

// validID tells whether an id is what runc, crun and Docker agree on, which
// keeps it usable as the name of a file.
func validID(id string) bool { return len(id) <= maxID && oci.CheckID(id) == nil }

func (k key) validate() error {
	if !validID(k.container) {
		return fmt.Errorf("container id %q: %w", k.container, errdefs.ErrInvalid)
	}
	if k.exec != "" && !validID(k.exec) {
		return fmt.Errorf("exec id %q: %w", k.exec, errdefs.ErrInvalid)
	}
	return nil
}
