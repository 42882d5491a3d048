package keeper

import (
	"encoding/json"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/oci"
)

// LogConfig says where a container's output is kept.
type LogConfig struct {
	// Driver is "json-file" (Docker's format) or "none"; "" means none.
	Driver string `json:"driver,omitempty"`
	// Path of the log file, absolute, in an existing directory. An existing
	// file is continued.
	Path string `json:"path,omitempty"`
	// MaxSize, in bytes: once the file has reached it, it is rotated before the
	// next entry. 0 means it grows without limit.
	MaxSize int64 `json:"maxSize,omitempty"`
	// MaxFiles is how many files are kept, the current one included: Path,
	// Path.1 (younger) and so on. 0 means 1, as with Docker.
	MaxFiles int `json:"maxFiles,omitempty"`
	// Attrs, a JSON object, is put into every entry as "attrs"; "" is none.
	Attrs string `json:"attrs,omitempty"`
	// MaxBuffer, in bytes, makes writing not wait for a slow disk: so much is
	// kept in memory, and what is more is dropped and counted. 0 means that a
	// container waits for the disk.
	MaxBuffer int64 `json:"maxBuffer,omitempty"`
	// Compressed says that rotated files may be replaced by others, with .gz
	// behind their names, by who holds the lock on [LogLock] of Path.
	Compressed bool `json:"compressed,omitempty"`
}

// LogLock is the file whose flock admits one to the names of a log's rotated
// files. The keeper does not wait for it: it rotates later.
func LogLock(path string) string { return path + ".lock" }

// StartRequest is a container to be started.
type StartRequest struct {
	// ID of the container. Nothing with the same id may be known to the keeper:
	// an exited one has to be forgotten first.
	ID string `json:"id"`
	// Spec is the container's OCI configuration. An empty Linux.CgroupsPath is
	// replaced by /berth/ID.
	Spec *specs.Spec `json:"spec"`
	// Bundle is the directory that relative paths in Spec start from.
	Bundle string `json:"bundle,omitempty"`
	// Rootfs is a detached mount that becomes the container's root; nil means
	// Spec.Root.Path. The caller keeps its own copy and closes it.
	Rootfs *os.File `json:"-"`
	// Init gives the command an init: a small program that is the container's
	// first process, forwards signals, and reaps what ends.
	Init bool `json:"init,omitempty"`
	// OpenStdin gives the process a stdin that attached clients write to;
	// without it stdin is /dev/null. With a terminal it is always open.
	OpenStdin bool `json:"openStdin,omitempty"`
	// StdinOnce closes stdin when the first client attached to it has closed
	// its side. Without it stdin stays open for the next client. It has no
	// effect with a terminal.
	StdinOnce bool `json:"stdinOnce,omitempty"`
	// Log says where the output goes besides the attached clients.
	Log LogConfig `json:"log,omitzero"`
	// ConsoleSize is the terminal's first height and width, 0 means unset.
	ConsoleSize [2]uint16 `json:"consoleSize,omitzero"`

	// raw is Spec as it came, for the record; nil when it has changed.
	raw []byte
}

// UnmarshalJSON leaves the specification to the reader every start of a container
// goes through: encoding/json would take longer for it than all the rest of the
// request takes.
func (r *StartRequest) UnmarshalJSON(b []byte) error {
	type plain StartRequest
	wire := struct {
		*plain
		Spec json.RawMessage `json:"spec"` // in place of plain's
	}{plain: (*plain)(r)}
	err := json.Unmarshal(b, &wire)
	if err != nil || len(wire.Spec) == 0 {
		return err
	}
	r.raw = wire.Spec
	r.Spec, err = oci.ParseSpec(wire.Spec)
	return err
}

// ExecRequest is a process to be executed in a running container. Its output
// goes to attached clients only, see [AttachOptions].BeforeStart.
type ExecRequest struct {
	// ContainerID is the running container, ExecID a name for the process,
	// unique within it.
	ContainerID string `json:"containerID"`
	ExecID      string `json:"execID"`
	// Process is what to execute.
	Process *specs.Process `json:"process"`
	// OpenStdin gives it a stdin, closed when the first client attached to it
	// closes its side.
	OpenStdin bool `json:"openStdin,omitempty"`
	// ConsoleSize as in StartRequest.
	ConsoleSize [2]uint16 `json:"consoleSize,omitzero"`
	// Capture, more than 0, is for a command that is asked for its answer, see
	// [Client.ExecCaptured]: so many bytes of what it prints, on stdout and stderr
	// alike, come with its exit, which is told to nobody else and not written down.
	Capture int `json:"capture,omitempty"`

	// rawProcess is Process as it came, when its output is captured.
	rawProcess []byte
}

// UnmarshalJSON keeps the process as it came: so it is known again.
func (r *ExecRequest) UnmarshalJSON(b []byte) error {
	type plain ExecRequest
	wire := struct {
		*plain
		Process json.RawMessage `json:"process"` // in place of plain's
	}{plain: (*plain)(r)}
	err := json.Unmarshal(b, &wire)
	if err != nil || len(wire.Process) == 0 {
		return err
	}
	if r.Capture > 0 {
		r.rawProcess = wire.Process
	}
	return json.Unmarshal(wire.Process, &r.Process)
}

// AttachOptions says which streams of a process a client wants.
type AttachOptions struct {
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
	// BeforeStart allows a process that does not run yet: the stream then
	// begins with the very first byte that it prints. Without it such an attach
	// is a conflict or not found.
	BeforeStart bool `json:"beforeStart,omitempty"`
}

// The operations, as named on the wire.
const (
	opHello = "hello"
	opStart = "start"
	opExec  = "exec"
	// opAbort, on the connection of a start or exec, calls it off.
	opAbort  = "abort"
	opSignal = "signal"
	opResize = "resize"
	opAttach = "attach"
	opStatus = "status"
	opWait   = "wait"
	opList   = "list"
	opForget = "forget"
	opEvents = "events"
	// opUpgrade makes another program the keeper; Body is an upgradeRequest.
	opUpgrade = "upgrade"
)

// request is what a client sends, once per connection.
type request struct {
	Op     string `json:"op"`
	ID     string `json:"id,omitempty"`
	ExecID string `json:"execID,omitempty"`
	Signal int    `json:"signal,omitempty"`
	Height uint16 `json:"height,omitempty"`
	Width  uint16 `json:"width,omitempty"`
	// Body is the StartRequest, ExecRequest or AttachOptions.
	Body json.RawMessage `json:"body,omitempty"`
}

func (r *request) key() key { return key{r.ID, r.ExecID} }

// response is what the keeper answers.
type response struct {
	Failure *failure `json:"failure,omitempty"`
	Status  *Status  `json:"status,omitempty"`
	List    []Status `json:"list,omitempty"`
	// Keeper answers a hello.
	Keeper *Info `json:"keeper,omitempty"`
}

// Info describes a running keeper.
type Info struct {
	// Pid of the keeper.
	Pid int `json:"pid"`
	// Protocol is the major and minor version that it speaks.
	Protocol [2]int `json:"protocol"`
	// Version is that of its program, Begun when that program became the keeper.
	// A keeper without them cannot be upgraded.
	Version string    `json:"version,omitempty"`
	Begun   time.Time `json:"begun,omitzero"`
	// Program identifies the file it runs from; see [ProgramID].
	Program string `json:"program,omitempty"`
}
