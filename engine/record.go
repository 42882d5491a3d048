package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-containers/berth/fault"
	bnet "github.com/berth-containers/berth/network"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recordFile is the name of a container's record in its directory.
const recordFile = "record.json"

// record is everything the engine keeps about a container. It is written
// before the act it describes and by rename, so that a reader finds either the
// old or the new one.
type record struct {
	ID      string
	Name    string
	Created time.Time
	// ImageID is the config digest of the image it was made from.
	ImageID  digest.Digest
	Platform ocispec.Platform
	// Manifest describes the image's target at creation.
	Manifest *ocispec.Descriptor `json:",omitempty"`

	// Config and HostConfig are the request merged with the image's config and
	// the engine's defaults.
	Config     *container.Config
	HostConfig *container.HostConfig
	// Path and Args are entrypoint and command joined.
	Path string
	Args []string
	// IDs are the host's ids of its user namespace; nil: it is in the host's.
	IDs *idMapping `json:",omitempty"`
	// Labels are SELinux's; nil where there is none.
	Labels *seLinuxLabels `json:",omitempty"`
	// Mounts are the binds and volumes, tmpfs excepted.
	Mounts []mountPoint `json:",omitempty"`
	// Endpoint is what was asked for on the network (address, MAC, aliases).
	Endpoint *network.EndpointSettings `json:",omitempty"`
	// Attached is what the network gave, while the container runs on a bridge.
	Attached *bnet.Attachment `json:",omitempty"`

	State        lifeState
	RestartCount int `json:",omitempty"`
}

// mountPoint is a bind or volume of a container.
type mountPoint struct {
	container.MountPoint
	// Anonymous volumes are removed with the container when asked.
	Anonymous bool `json:",omitempty"`
	// NonRecursive binds only the mount itself, not those below it.
	NonRecursive bool `json:",omitempty"`
	// ReadOnlyNonRecursive leaves mounts below a read-only bind writable.
	ReadOnlyNonRecursive bool `json:",omitempty"`
	// Subpath is the directory within a volume or an image.
	Subpath string `json:",omitempty"`
	// NoCopy leaves an empty volume empty whatever the image has at its place.
	NoCopy bool `json:",omitempty"`
	// Fresh: the volume is made with the container. It is only set until the
	// container is created, so that a creation cut short takes the volume along.
	Fresh bool `json:",omitempty"`
	// ImageID is the image a mount of type image shows.
	ImageID digest.Digest `json:",omitempty"`

	// What a volume is created with if it does not exist.
	driverOptions, labels map[string]string
}

// save writes the record to dir. There is no fsync: rename keeps it whole
// against a crash of the engine; against a crash of the host, Open drops what
// it cannot read.
func (r *record) save(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of container %s: %w", r.ID, err)
	}
	if err := writeFileAtomic(filepath.Join(dir, recordFile), data, 0o600); err != nil {
		return fmt.Errorf("write record of container %s: %w", r.ID, err)
	}
	return nil
}

// loadRecord reads the record in dir.
func loadRecord(dir string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("decode %s: %w", filepath.Join(dir, recordFile), err)
	}
	if r.ID != filepath.Base(dir) || r.Config == nil || r.HostConfig == nil {
		return nil, fmt.Errorf("record in %s is incomplete", dir)
	}
	return r, nil
}

// newSuffix ends the name of a file that is being written.
const newSuffix = ".new"

// writeFileAtomic writes path by way of a temporary file beside it. There is
// one writer per path, so the temporary name need not be unique.
func writeFileAtomic(path string, data []byte, mode os.FileMode) error {
	tmp := path + newSuffix
	if err := os.WriteFile(tmp, data, mode); err != nil {
		os.Remove(tmp) // a piece of it is of no use to anybody, and in nobody's way
		return explainFullDisk(err, filepath.Dir(path))
	}
	fault.Here(fault.RecordWritten)
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	fault.Here(fault.RecordRenamed)
	return nil
}
