package engine

import (
	"context"
	"io"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ContainerCreate makes a container from an image. name may be empty (one is
// generated); platform may be nil (the host's).
func (e *Engine) ContainerCreate(ctx context.Context, name string, req *container.CreateRequest, platform *ocispec.Platform) (container.CreateResponse, error) {
	return container.CreateResponse{}, errdefs.ErrUnavailable
}

// ContainerStart starts a created or exited container. ErrNotModified when it runs.
func (e *Engine) ContainerStart(ctx context.Context, ref string) error { return errdefs.ErrUnavailable }

// ContainerStop stops a running container. ErrNotModified when it does not run.
func (e *Engine) ContainerStop(ctx context.Context, ref string, opt StopOptions) error {
	return errdefs.ErrUnavailable
}

// ContainerRestart stops (when running) and starts a container.
func (e *Engine) ContainerRestart(ctx context.Context, ref string, opt StopOptions) error {
	return errdefs.ErrUnavailable
}

// ContainerKill sends a signal (name or number; empty: SIGKILL) to the container's init.
func (e *Engine) ContainerKill(ctx context.Context, ref, signal string) error {
	return errdefs.ErrUnavailable
}

// ContainerPause freezes all processes of a running container.
func (e *Engine) ContainerPause(ctx context.Context, ref string) error { return errdefs.ErrUnavailable }

// ContainerUnpause thaws a paused container.
func (e *Engine) ContainerUnpause(ctx context.Context, ref string) error {
	return errdefs.ErrUnavailable
}

// ContainerWait returns a channel that yields one response when the condition
// holds and is then closed. Cancelling ctx closes it without one.
func (e *Engine) ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerRemove removes a container and what belongs to it.
func (e *Engine) ContainerRemove(ctx context.Context, ref string, opt RemoveOptions) error {
	return errdefs.ErrUnavailable
}

// ContainerRename gives a container another name.
func (e *Engine) ContainerRename(ctx context.Context, ref, name string) error {
	return errdefs.ErrUnavailable
}

// ContainerUpdate changes limits and the restart policy.
func (e *Engine) ContainerUpdate(ctx context.Context, ref string, upd *container.UpdateConfig) (container.UpdateResponse, error) {
	return container.UpdateResponse{}, errdefs.ErrUnavailable
}

// ContainerInspect describes one container; size fills the (expensive) sizes.
func (e *Engine) ContainerInspect(ctx context.Context, ref string, size bool) (*container.InspectResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerList lists containers, newest first.
func (e *Engine) ContainerList(ctx context.Context, opt ListOptions) ([]container.Summary, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerTop lists the processes of a running container. psArgs is ps'
// argument string; empty and -ef give the columns UID PID PPID C STIME TTY TIME CMD.
func (e *Engine) ContainerTop(ctx context.Context, ref, psArgs string) (*container.TopResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerLogs writes the selected log lines to out. It returns when they are
// written or, with Follow, when the container has ended and all is read.
func (e *Engine) ContainerLogs(ctx context.Context, ref string, opt LogsOptions, out LogWriter) error {
	return errdefs.ErrUnavailable
}

// ContainerAttach attaches to a container's stdio. Attached before the start
// it sees the first byte.
func (e *Engine) ContainerAttach(ctx context.Context, ref string, opt AttachOptions) (Stream, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerResize sets the size of a container's terminal.
func (e *Engine) ContainerResize(ctx context.Context, ref string, height, width uint) error {
	return errdefs.ErrUnavailable
}

// ContainerStats takes one sample. PreCPUStats is empty; see ContainerStatsFollow.
func (e *Engine) ContainerStats(ctx context.Context, ref string) (*container.StatsResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerStatsFollow calls fn once a second with a sample whose PreCPUStats
// is the one before (empty in the first), until fn returns an error, the
// container is removed or ctx ends. A stopped container yields empty samples,
// as Docker's does.
func (e *Engine) ContainerStatsFollow(ctx context.Context, ref string, fn func(*container.StatsResponse) error) error {
	return errdefs.ErrUnavailable
}

// ContainerCommit makes an image of a container and returns the image's id.
func (e *Engine) ContainerCommit(ctx context.Context, opt CommitOptions) (string, error) {
	return "", errdefs.ErrUnavailable
}

// ContainerPrune removes all containers that do not run. Filters: label, until.
func (e *Engine) ContainerPrune(ctx context.Context, f Filters) (*container.PruneReport, error) {
	return nil, errdefs.ErrUnavailable
}

// ContainerExport writes a container's root file system to w as a tar.
func (e *Engine) ContainerExport(ctx context.Context, ref string, w io.Writer) error {
	return errdefs.ErrUnavailable
}

// ExecCreate prepares a further process in a running container and returns its id.
func (e *Engine) ExecCreate(ctx context.Context, ref string, req *container.ExecCreateRequest) (string, error) {
	return "", errdefs.ErrUnavailable
}

// ExecStart starts a prepared exec. The stream is nil when detached.
func (e *Engine) ExecStart(ctx context.Context, id string, opt ExecStartOptions) (Stream, error) {
	return nil, errdefs.ErrUnavailable
}

// ExecInspect describes an exec.
func (e *Engine) ExecInspect(ctx context.Context, id string) (*container.ExecInspectResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ExecResize sets the size of an exec's terminal.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint) error {
	return errdefs.ErrUnavailable
}

// ImagePull pulls an image and returns its reference with the tag or digest pulled.
func (e *Engine) ImagePull(ctx context.Context, ref string, opt ImagePullOptions) (*image.InspectResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ImageLoad loads a docker-archive or OCI layout tar and returns the names
// (or, untagged, the ids) of what it held.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, progress func(ProgressEvent)) ([]string, error) {
	return nil, errdefs.ErrUnavailable
}

// ImageImport makes an image of a root file system tar and returns its id.
func (e *Engine) ImageImport(ctx context.Context, r io.Reader, opt ImageImportOptions) (string, error) {
	return "", errdefs.ErrUnavailable
}

// ImageSave writes images as a tar that both ImageLoad and docker load read.
func (e *Engine) ImageSave(ctx context.Context, names []string, w io.Writer) error {
	return errdefs.ErrUnavailable
}

// ImageList lists images, newest first.
func (e *Engine) ImageList(ctx context.Context, opt ImageListOptions) ([]image.Summary, error) {
	return nil, errdefs.ErrUnavailable
}

// ImageInspect describes one image.
func (e *Engine) ImageInspect(ctx context.Context, ref string) (*image.InspectResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ImageHistory lists the steps an image was made by, newest first.
func (e *Engine) ImageHistory(ctx context.Context, ref string) ([]image.HistoryResponseItem, error) {
	return nil, errdefs.ErrUnavailable
}

// ImageTag gives an image another name.
func (e *Engine) ImageTag(ctx context.Context, src, dst string) error { return errdefs.ErrUnavailable }

// ImageRemove removes a name, and the image when it was the last one.
func (e *Engine) ImageRemove(ctx context.Context, ref string, opt ImageRemoveOptions) ([]image.DeleteResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// ImagePrune removes images no container uses: untagged ones, with the filter
// dangling=false all.
func (e *Engine) ImagePrune(ctx context.Context, f Filters) (*image.PruneReport, error) {
	return nil, errdefs.ErrUnavailable
}

// NetworkList lists the networks. Filters: driver, id, name, scope, type.
func (e *Engine) NetworkList(ctx context.Context, f Filters) ([]network.Summary, error) {
	return nil, errdefs.ErrUnavailable
}

// NetworkInspect describes a network and its endpoints.
func (e *Engine) NetworkInspect(ctx context.Context, ref string) (*network.Inspect, error) {
	return nil, errdefs.ErrUnavailable
}

// Subscribe yields events that pass the filters: the remembered ones from
// since on (zero: none), then live ones up to until (zero: without end). The
// channel is closed when until has passed or ctx ends.
func (e *Engine) Subscribe(ctx context.Context, f Filters, since, until time.Time) (<-chan events.Message, error) {
	return nil, errdefs.ErrUnavailable
}

// Info describes the host and the engine.
func (e *Engine) Info(ctx context.Context) (*system.Info, error) { return nil, errdefs.ErrUnavailable }

// Version describes the build.
func (e *Engine) Version(ctx context.Context) (*system.VersionResponse, error) {
	return nil, errdefs.ErrUnavailable
}

// DiskUsage sums up what images and containers take on disk.
func (e *Engine) DiskUsage(ctx context.Context) (*system.DiskUsage, error) {
	return nil, errdefs.ErrUnavailable
}
