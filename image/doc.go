// Package image keeps the images of one host and the writable file systems
// made from them: pull, load, import, save, list, tag, remove, commit, and the
// overlay mounts containers run on.
//
// # What it is made of
//
// containerd's libraries, in process: the local content store (blobs named by
// their digest, written once, verified), the overlay snapshotter (one directory
// per layer), the registry client, the archive reader and writer and the layer
// extractor. There is no containerd daemon and none of its plugin registry.
//
// containerd's metadata database (namespaces, leases, labels, a collector that
// reads labels) is not used. One process owns a store, so what leases protect
// is protected here by pins in memory ([Store] sessions), which vanish with the
// process as they should; what the labels say is derivable: an image record
// leads to a manifest, a manifest to its config and layers, those to the
// snapshots of its chain. What remains of the database is one small JSON file,
// written whole, synced and renamed into place. See catalogue.go and collect.go.
//
// # On disk, below Options.Root
//
//	lock                     flock of the owning process
//	images.json              the images: target manifest, names, sizes
//	content/                 containerd's local content store
//	layers/                  containerd's overlay snapshotter: unpacked layers only
//	snapshotter              how they are kept and stacked, see snapshotter.go
//	containers/KEY/          upper and work directory of one container; which
//	                         layers it stands on is in an extended attribute
//	unsynced.json            layers not known to be on the disk yet
//	downloads/               layers on their way from a registry, under their digest;
//	                         what a killed or failed pull left is gone on with
//	trash/                   what is being deleted
//	empty/ mnt/              stay empty: a lowest layer for images without one,
//	                         and where old kernels mount, unseen by the host
//
// # Crashes
//
// A killed process loses nothing that was finished: the page cache survives it.
// What was half done (ingests, layers being unpacked, temporary directories) is
// not referenced by images.json and is removed by the next Open; but for the
// layers that were being downloaded, which the next pull of them completes.
//
// A power loss is different, because unpacked layers are thousands of files
// that nobody syncs one by one. Blobs, images.json and the snapshotter's
// database are synced as they are written. Layers are listed in unsynced.json
// with the boot's identity before they become visible and are struck off after
// one syncfs(2) in the background; an Open that finds layers of another boot
// there unpacks those again from their (synced, verified) blobs.
//
// A container's directory is not synced either: Prepare is on the path of every
// container start, and an fsync costs as much as the rest of the start together
// on a slow disk. It is made under a temporary name, gets its extended attribute
// and is renamed; journalling file systems commit those in order, so after a
// power loss it is there whole or not there at all.
package image
