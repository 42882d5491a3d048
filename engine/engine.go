// Package engine is what users speak of: containers, execs, images, networks
// and events. It joins the parts below (image, network, keeper, kernel/cgroup)
// and owns every state change. The doors (the Docker API and, later, others)
// translate to and from it and hold no state of their own.
//
// Every method may be called from any goroutine. Errors carry a class of
// package errdefs and, where there is a remedy, a hint.
package engine

import (
	"context"
	"log/slog"

	"github.com/berth-containers/berth/errdefs"
)

// Config says where the engine lives and what its defaults are. The zero value
// of each field is usable unless the comment says otherwise.
type Config struct {
	// StateRoot holds what survives a reboot: images, container records,
	// volumes. Zero: /var/lib/berth.
	StateRoot string
	// RunRoot holds sockets and runtime state, best on a tmpfs. Zero: /run/berth.
	RunRoot string
	// BerthOCI is the path of the berth-oci binary, started as the keeper when
	// none answers. Zero: berth-oci beside the running binary, then $PATH.
	BerthOCI string
	// BridgeName is the link of the default bridge network. Zero: berth0.
	BridgeName string
	// BridgeSubnet is the default bridge's IPv4 subnet in CIDR notation.
	// Zero: the network part's default.
	BridgeSubnet string
	// CgroupParent is the cgroup below which containers live. Zero: /berth.
	CgroupParent string
	// InsecureRegistries are the host[:port] spoken to without TLS. Loopback
	// addresses always are.
	InsecureRegistries []string
	// LogDriver is the log driver of containers that name none: json-file or
	// none. Zero: json-file.
	LogDriver string
	// LogOptions are the options of LogDriver for containers that name none
	// (max-size, max-file).
	LogOptions map[string]string
	// DefaultShmSize is the size of /dev/shm in bytes. Zero: 64 MiB.
	DefaultShmSize int64
	// StopTimeout is how many seconds a container gets between its stop signal
	// and SIGKILL. Zero: 10.
	StopTimeout int
	// Labels are reported by Info.
	Labels []string
	// Version, Commit and BuildTime describe the build; reported by Version.
	Version, Commit, BuildTime string
	// Logger takes the engine's own log. Zero: discard.
	Logger *slog.Logger
}

// Engine joins the parts. Make one with [Open].
type Engine struct {
	cfg Config
}

// Open opens the parts, connects to the keeper (and starts one when none
// answers), loads the container records and reconciles them with what the
// keeper and the kernel say.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	return nil, errdefs.ErrUnavailable
}

// Close stops the engine's goroutines and closes what Open opened. Containers
// run on; the next Open finds them.
func (e *Engine) Close() error { return errdefs.ErrUnavailable }
