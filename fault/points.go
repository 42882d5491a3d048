package fault

// Point names a place behind a step that outlives the process.
type Point string

// The engine's points.
const (
	RecordWritten  Point = "engine.record.written" // a container's record, under its temporary name
	RecordRenamed  Point = "engine.record.renamed"
	CreateDir      Point = "engine.create.dir"
	CreateRecord   Point = "engine.create.record"
	CreateSnapshot Point = "engine.create.snapshot"
	CreateMounts   Point = "engine.create.mounts"
	CreateDone     Point = "engine.create.done"

	StartRecord   Point = "engine.start.record"
	StartShm      Point = "engine.start.shm"
	StartRootfs   Point = "engine.start.rootfs"
	StartNetwork  Point = "engine.start.network"
	StartFiles    Point = "engine.start.files"
	StartAnswered Point = "engine.start.answered"
	StartDone     Point = "engine.start.done"

	StopRecord   Point = "engine.stop.record"
	StopSignal   Point = "engine.stop.signal"
	RestartPause Point = "engine.restart.pause"
	ExitReleased Point = "engine.exit.released"
	ExitRecord   Point = "engine.exit.record"
	ExitDone     Point = "engine.exit.done"

	RemoveRecord   Point = "engine.remove.record"
	RemoveReleased Point = "engine.remove.released"
	RemoveSnapshot Point = "engine.remove.snapshot"
	RemoveVolumes  Point = "engine.remove.volumes"
	RemoveDir      Point = "engine.remove.dir"
	RemoveDone     Point = "engine.remove.done"

	RenameDone    Point = "engine.rename.done"
	PauseRecord   Point = "engine.pause.record"
	PauseDone     Point = "engine.pause.done"
	UnpauseThawed Point = "engine.unpause.thawed"
	UnpauseDone   Point = "engine.unpause.done"
	UpdateRecord  Point = "engine.update.record"
	UpdateDone    Point = "engine.update.done"
	CopyWritten   Point = "engine.copy.written" // a file into a container, without a name yet
	CopyDone      Point = "engine.copy.done"

	ExecCreated  Point = "engine.exec.created"
	ExecClaimed  Point = "engine.exec.claimed"
	ExecAnswered Point = "engine.exec.answered"
	ExecDone     Point = "engine.exec.done"
	ExecEnded    Point = "engine.exec.ended"
)

// The image store's points.
const (
	ListWritten     Point = "image.list.written" // images.json or unsynced.json, under its temporary name
	ListRenamed     Point = "image.list.renamed"
	BlobCommitted   Point = "image.blob.committed"
	LayerPrepared   Point = "image.layer.prepared"
	LayerExtracted  Point = "image.layer.extracted"
	LayerListed     Point = "image.layer.listed"
	LayerCommitted  Point = "image.layer.committed"
	LayerRemoved    Point = "image.layer.removed"
	ImageRecorded   Point = "image.recorded"
	SnapshotMade    Point = "image.snapshot.made" // under its temporary name
	SnapshotRenamed Point = "image.snapshot.renamed"
	Discarded       Point = "image.discarded" // moved into the trash
)

// The volumes' points.
const (
	VolumeMade    Point = "volume.made" // under its temporary name
	VolumeRenamed Point = "volume.renamed"
	VolumeDoomed  Point = "volume.doomed"
)

// The network's points.
const (
	NetnsFile     Point = "network.netns.file"
	NetnsBound    Point = "network.netns.bound"
	NetnsReleased Point = "network.netns.released"
	NetnsRemoved  Point = "network.netns.removed"
	LeaseWritten  Point = "network.lease.written" // under its temporary name
	LeaseRenamed  Point = "network.lease.renamed"
	LeaseRemoved  Point = "network.lease.removed"
	LinkMade      Point = "network.link.made"
	LinkReady     Point = "network.link.ready"
	Published     Point = "network.ports.published"
	Unpublished   Point = "network.ports.unpublished"
)

// The keeper's points.
const (
	KeeperDir        Point = "keeper.record.dir"
	KeeperWritten    Point = "keeper.record.written" // a spec or an exit, under its temporary name
	KeeperRenamed    Point = "keeper.record.renamed"
	KeeperCgroup     Point = "keeper.start.cgroup"
	KeeperMade       Point = "keeper.start.made"
	KeeperServed     Point = "keeper.start.served"
	KeeperExecMade   Point = "keeper.exec.made"
	KeeperReaped     Point = "keeper.exit.reaped"
	KeeperEmptied    Point = "keeper.exit.emptied"
	KeeperExit       Point = "keeper.exit.recorded"
	KeeperForgotten  Point = "keeper.forgotten"
	KeeperSignalSent Point = "keeper.signal.sent"
	KeeperParked     Point = "keeper.upgrade.parked"
	KeeperTookOver   Point = "keeper.upgrade.took-over"
)

// Points lists all of them.
func Points() []Point {
	return []Point{
		RecordWritten, RecordRenamed, CreateDir, CreateRecord, CreateSnapshot, CreateMounts, CreateDone,
		StartRecord, StartShm, StartRootfs, StartNetwork, StartFiles, StartAnswered, StartDone,
		StopRecord, StopSignal, RestartPause, ExitReleased, ExitRecord, ExitDone,
		RemoveRecord, RemoveReleased, RemoveSnapshot, RemoveVolumes, RemoveDir, RemoveDone,
		RenameDone, PauseRecord, PauseDone, UnpauseThawed, UnpauseDone, UpdateRecord, UpdateDone, CopyWritten, CopyDone,
		ExecCreated, ExecClaimed, ExecAnswered, ExecDone, ExecEnded,

		ListWritten, ListRenamed, BlobCommitted, LayerPrepared, LayerExtracted, LayerListed, LayerCommitted, LayerRemoved,
		ImageRecorded, SnapshotMade, SnapshotRenamed, Discarded,

		VolumeMade, VolumeRenamed, VolumeDoomed,

		NetnsFile, NetnsBound, NetnsReleased, NetnsRemoved, LeaseWritten, LeaseRenamed, LeaseRemoved,
		LinkMade, LinkReady, Published, Unpublished,

		KeeperDir, KeeperWritten, KeeperRenamed, KeeperCgroup, KeeperMade, KeeperServed, KeeperExecMade,
		KeeperReaped, KeeperEmptied, KeeperExit, KeeperForgotten, KeeperSignalSent,
		KeeperParked, KeeperTookOver,
	}
}
