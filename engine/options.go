package engine

import (
	"io"
	"time"

	"github.com/berth-containers/berth/image"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Filters are Docker's list filters: name → set of values. A missing or empty
// entry does not filter.
type Filters map[string]map[string]bool

// StopOptions says how a container is stopped.
type StopOptions struct {
	// Signal is the first signal by name or number. Zero: the container's own
	// stop signal.
	Signal string
	// Timeout is the seconds between the signal and SIGKILL; 0 kills at once,
	// negative waits without end. Nil: the container's own, then the engine's.
	Timeout *int
}

// RemoveOptions says how a container is removed.
type RemoveOptions struct {
	// Force kills a running container first.
	Force bool
	// Volumes removes the container's anonymous volumes as well.
	Volumes bool
}

// ListOptions selects containers.
type ListOptions struct {
	// All includes those that do not run.
	All bool
	// Limit, when positive, is the number of newest containers shown, whatever
	// their state.
	Limit int
	// Size fills SizeRw and SizeRootFs.
	Size bool
	// Filters: ancestor, before, exited, expose, id, is-task, label, name,
	// network, publish, since, status, volume.
	Filters Filters
}

// LogsOptions selects what of a container's log is read.
type LogsOptions struct {
	Stdout, Stderr bool
	// Follow goes on until the container has ended and all is read.
	Follow bool
	// Timestamps puts an RFC 3339 nanosecond time and a space before each line.
	Timestamps bool
	// Details puts the attributes the log's options ask for before each line.
	Details bool
	// Since and Until bound the entries' times; zero does not bound.
	Since, Until time.Time
	// Tail is the number of last lines; negative means all.
	Tail int
}

// LogStream names the stream a log line came from.
type LogStream byte

// The streams, numbered as in the stdcopy framing.
const (
	Stdout LogStream = 1
	Stderr LogStream = 2
)

// LogWriter takes the lines of [Engine.ContainerLogs].
type LogWriter interface {
	// Begin is called once, when the request is known to be good and before
	// the first line. tty says that the container has a terminal: its lines
	// are raw and all of Stdout.
	Begin(tty bool) error
	// WriteLog takes one entry, as the container wrote it (usually with the
	// line's \n). p is only valid during the call.
	WriteLog(stream LogStream, p []byte) error
	// Flush is called when there is nothing more to read for now.
	Flush() error
}

// AttachOptions says what of a container's stdio is attached.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	// Logs replays the log so far before the stream.
	Logs bool
	// Stream attaches to the running (or about to run) process.
	Stream bool
	// DetachKeys is the sequence that ends the attachment without ending the
	// container, such as ctrl-p,ctrl-q. Zero: ctrl-p,ctrl-q.
	DetachKeys string
}

// ExecStartOptions says how a prepared exec is started.
type ExecStartOptions struct {
	Detach bool
	// Tty must equal the exec's own Tty when not detached.
	Tty bool
	// ConsoleSize is height and width; nil: the exec's own.
	ConsoleSize *[2]uint
}

// CommitOptions says what image a container becomes.
type CommitOptions struct {
	// Container is the name or id of the container.
	Container string
	// Ref is the image's name[:tag]; empty leaves it untagged.
	Ref             string
	Author, Comment string
	// Changes are Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE,
	// LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL, ...) applied to the config.
	Changes []string
	// Config, when not nil, overrides the container's config.
	Config *container.Config
	// Pause freezes the container while its filesystem is read.
	Pause bool
}

// ProgressEvent is one line of a pull's or load's progress.
type ProgressEvent = image.ProgressEvent

// Pushed is where a pushed name points at its registry.
type Pushed = image.Pushed

// ImagePullOptions says how an image is pulled.
type ImagePullOptions struct {
	// AllTags pulls every tag of the repository.
	AllTags bool
	// Platform selects from an index. Nil: the host's.
	Platform *ocispec.Platform
	// Auth is the registry's credentials. Nil: anonymous.
	Auth *registry.AuthConfig
	// Progress, when not nil, is called from one goroutine at a time.
	Progress func(ProgressEvent)
}

// ImageLoadOptions says what is taken from an archive of images.
type ImageLoadOptions struct {
	// Platform must be every image's. Nil: the host's, or the only one.
	Platform *ocispec.Platform
	// Progress, when not nil, is called from one goroutine at a time.
	Progress func(ProgressEvent)
}

// ImageSaveOptions says which images are written to an archive, and how.
type ImageSaveOptions struct {
	// Names are names or ids.
	Names []string
	// Format is docker-archive or oci-archive. Zero: docker-archive, which is an
	// OCI layout, too.
	Format string
	// Platform must be every image's. Nil: any.
	Platform *ocispec.Platform
}

// ImageImportOptions says what image a root file system tar becomes.
type ImageImportOptions struct {
	// Source is a URL of a web server to read instead of the stream.
	Source       string
	Ref, Message string
	Changes      []string
	Platform     *ocispec.Platform
}

// ImageListOptions selects images.
type ImageListOptions struct {
	// All includes untagged ones that others depend on.
	All bool
	// ContainerCount fills Summary.Containers.
	ContainerCount bool
	// SharedSize fills Summary.SharedSize.
	SharedSize bool
	// Manifests fills Summary.Manifests.
	Manifests bool
	// Filters: before, dangling, label, reference, since, until.
	Filters Filters
}

// ImageRemoveOptions says how an image is removed.
type ImageRemoveOptions struct {
	// Force removes all its names and ignores stopped containers.
	Force bool
	// NoPrune keeps the untagged images it was committed from.
	NoPrune bool
}

// Stream is an attached terminal or pair of pipes. Read yields what the
// process writes: raw bytes with a terminal, else stdcopy frames. Write is its
// stdin. Close detaches; the process runs on.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite ends the process' stdin.
	CloseWrite() error
	// TTY says that the process has a terminal.
	TTY() bool
}
