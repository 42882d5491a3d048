package docker

import (
	"context"
	"io"
	"time"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/engine/explain"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Engine is what the door asks of the engine, by aspect. *engine.Engine is one.
type Engine interface {
	Lifecycle
	Signals
	Containers
	Files
	Observation
	Streams
	Execs
	ImageTransfer
	Images
	Registries
	Networks
	Volumes
	System
	Upkeep
}

// Lifecycle makes, runs and ends containers.
type Lifecycle interface {
	ContainerCreate(ctx context.Context, name string, req *container.CreateRequest, platform *ocispec.Platform) (container.CreateResponse, error)
	ContainerStart(ctx context.Context, ref string) error
	ContainerStop(ctx context.Context, ref string, opt engine.StopOptions) error
	ContainerRestart(ctx context.Context, ref string, opt engine.StopOptions) error
	ContainerRemove(ctx context.Context, ref string, opt engine.RemoveOptions) error
}

// Signals acts on running containers.
type Signals interface {
	ContainerKill(ctx context.Context, ref, signal string) error
	ContainerPause(ctx context.Context, ref string) error
	ContainerUnpause(ctx context.Context, ref string) error
	ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error)
}

// Containers changes what containers are.
type Containers interface {
	ContainerRename(ctx context.Context, ref, name string) error
	ContainerUpdate(ctx context.Context, ref string, upd *container.UpdateConfig) (container.UpdateResponse, error)
	ContainerCommit(ctx context.Context, opt engine.CommitOptions) (string, error)
	ContainerPrune(ctx context.Context, f engine.Filters) (*container.PruneReport, error)
	ContainerExport(ctx context.Context, ref string, w io.Writer) error
}

// Files reads and writes what is in containers.
type Files interface {
	ContainerArchive(ctx context.Context, ref, name string, begin func(container.PathStat) (io.Writer, error)) error
	ContainerExtract(ctx context.Context, ref, name string, r io.Reader, opt engine.ExtractOptions) error
	ContainerChanges(ctx context.Context, ref string) ([]container.FilesystemChange, error)
}

// Observation says what containers are and do.
type Observation interface {
	ContainerInspect(ctx context.Context, ref string, size bool) (*container.InspectResponse, error)
	ContainerList(ctx context.Context, opt engine.ListOptions) ([]container.Summary, error)
	ContainerTop(ctx context.Context, ref, psArgs string) (*container.TopResponse, error)
	ContainerStats(ctx context.Context, ref string) (*container.StatsResponse, error)
	ContainerExplain(ctx context.Context, ref string) (*explain.Container, error)
	Watch(ctx context.Context, every time.Duration, fn func(*engine.Overview) error) error
	ContainerStatsFollow(ctx context.Context, ref string, fn func(*container.StatsResponse) error) error
}

// Streams carries containers' input and output.
type Streams interface {
	ContainerLogs(ctx context.Context, ref string, opt engine.LogsOptions, out engine.LogWriter) error
	ContainerAttach(ctx context.Context, ref string, opt engine.AttachOptions) (engine.Stream, error)
	ContainerResize(ctx context.Context, ref string, height, width uint) error
}

// Execs runs further processes in containers.
type Execs interface {
	ExecCreate(ctx context.Context, ref string, req *container.ExecCreateRequest) (string, error)
	ExecStart(ctx context.Context, id string, opt engine.ExecStartOptions) (engine.Stream, error)
	ExecInspect(ctx context.Context, id string) (*container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint) error
}

// ImageTransfer brings images in and out.
type ImageTransfer interface {
	ImagePull(ctx context.Context, ref string, opt engine.ImagePullOptions) (*image.InspectResponse, error)
	ImageLoad(ctx context.Context, r io.Reader, opt engine.ImageLoadOptions) ([]string, error)
	ImageImport(ctx context.Context, r io.Reader, opt engine.ImageImportOptions) (string, error)
	ImageSave(ctx context.Context, opt engine.ImageSaveOptions, w io.Writer) error
	ImagePush(ctx context.Context, ref string, opt engine.ImagePushOptions) error
}

// Images names, lists and removes images.
type Images interface {
	ImageList(ctx context.Context, opt engine.ImageListOptions) ([]image.Summary, error)
	ImageInspect(ctx context.Context, ref string) (*image.InspectResponse, error)
	ImageHistory(ctx context.Context, ref string) ([]image.HistoryResponseItem, error)
	ImageTag(ctx context.Context, src, dst string) error
	ImageRemove(ctx context.Context, ref string, opt engine.ImageRemoveOptions) ([]image.DeleteResponse, error)
	ImagePrune(ctx context.Context, f engine.Filters) (*image.PruneReport, error)
}

// Registries speaks to registries without bringing images in or out.
type Registries interface {
	RegistryLogin(ctx context.Context, auth *registry.AuthConfig) (*registry.AuthResponse, error)
	DistributionInspect(ctx context.Context, ref string, auth *registry.AuthConfig) (*registry.DistributionInspect, error)
}

// Networks describes networks.
type Networks interface {
	NetworkList(ctx context.Context, f engine.Filters) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, ref string) (*network.Inspect, error)
}

// Volumes makes, describes and removes named storage.
type Volumes interface {
	VolumeCreate(ctx context.Context, req *volume.CreateRequest) (*volume.Volume, error)
	VolumeInspect(ctx context.Context, name string) (*volume.Volume, error)
	VolumeList(ctx context.Context, f engine.Filters) ([]volume.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	VolumePrune(ctx context.Context, f engine.Filters) (*volume.PruneReport, error)
}

// System describes the engine and its host.
type System interface {
	Info(ctx context.Context) (*system.Info, error)
	Version(ctx context.Context) (*system.VersionResponse, error)
	DiskUsage(ctx context.Context) (*system.DiskUsage, error)
	Subscribe(ctx context.Context, f engine.Filters, since, until time.Time) (<-chan events.Message, error)
}

// Upkeep looks after the engine itself.
type Upkeep interface {
	Check(ctx context.Context, repair bool) (*engine.CheckReport, error)
	UpgradeKeeper(ctx context.Context) (*engine.KeeperUpgrade, error)
	Leftovers(ctx context.Context) ([]engine.OperationInfo, error)
}

var _ Engine = (*engine.Engine)(nil)
