package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/berth-containers/berth/fault"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// catalogue is the list of images: a file read once, held in memory, and
// replaced as a whole by every change.
type catalogue struct {
	path string

	// writing admits one change at a time, while it is written: who only reads
	// does not wait for the disk. mu guards the fields below and is held for
	// moments; now is changed by who holds both.
	writing sync.Mutex

	mu  sync.RWMutex
	now catalogueState
	// configs are the parsed configs of now.Images.
	configs map[digest.Digest]*dockerspec.DockerOCIImage
}

// catalogueState is what images.json holds.
type catalogueState struct {
	// Images by ID, the digest of the config blob.
	Images map[digest.Digest]imageRecord `json:"images"`
	// Names are full names with tag ("docker.io/library/busybox:latest").
	Names map[string]digest.Digest `json:"names"`
	// Digests are full names with the digest they were pulled by
	// ("docker.io/library/busybox@sha256:…").
	Digests map[string]digest.Digest `json:"digests"`
}

type imageRecord struct {
	// Target is the image's manifest.
	Target ocispec.Descriptor `json:"target"`
	// Layers, lowest first.
	Layers []Layer `json:"layers"`
	// Parent is the image this one was committed from, which may be gone.
	Parent digest.Digest `json:"parent,omitempty"`
	// Added is when the image came into the store, LastTagged when it last got
	// a name (zero: never).
	Added      time.Time `json:"added"`
	LastTagged time.Time `json:"lastTagged"`
}

func (r imageRecord) chain() digest.Digest {
	if len(r.Layers) == 0 {
		return ""
	}
	return r.Layers[len(r.Layers)-1].ChainID
}

func openCatalogue(path string) (*catalogue, error) {
	c := &catalogue{path: path, configs: map[digest.Digest]*dockerspec.DockerOCIImage{}}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(b, &c.now); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	c.now = c.now.clone()
	return c, nil
}

// clone copies the maps, so that a change can be thrown away.
func (st catalogueState) clone() catalogueState {
	n := catalogueState{
		Images:  make(map[digest.Digest]imageRecord, len(st.Images)+1),
		Names:   make(map[string]digest.Digest, len(st.Names)+1),
		Digests: make(map[string]digest.Digest, len(st.Digests)+1),
	}
	maps.Copy(n.Images, st.Images)
	maps.Copy(n.Names, st.Names)
	maps.Copy(n.Digests, st.Digests)
	return n
}

// update runs change on a copy of the state, writes the copy to the disk and
// makes it the state. An error of either leaves everything as it was.
func (c *catalogue) update(change func(*catalogueState) error) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.updateLocked(change)
}

func (c *catalogue) updateLocked(change func(*catalogueState) error) error {
	next := c.now.clone()
	if err := change(&next); err != nil {
		return err
	}
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := replaceFile(c.path, b); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = next
	maps.DeleteFunc(c.configs, func(id digest.Digest, _ *dockerspec.DockerOCIImage) bool {
		_, ok := next.Images[id]
		return !ok
	})
	return nil
}

// add records the image id, or keeps the record there is, gives it names, and
// returns it as it then is.
func (c *catalogue) add(id digest.Digest, rec imageRecord, config *dockerspec.DockerOCIImage, names, digests []string) (*Image, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.updateLocked(func(st *catalogueState) error {
		if old, ok := st.Images[id]; ok {
			rec = old
		}
		st.Images[id] = rec
		st.name(id, names, digests)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.remember(id, config)
	return c.now.image(id, config), nil
}

// addNames names an image that is already recorded and returns it; nil when it
// is not.
func (c *catalogue) addNames(id digest.Digest, names, digests []string) (*Image, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, ok := c.now.Images[id]; !ok {
		return nil, nil
	}
	err := c.updateLocked(func(st *catalogueState) error {
		st.name(id, names, digests)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.now.image(id, c.configs[id]), nil
}

// name gives an image names; one that another image had moves.
func (st catalogueState) name(id digest.Digest, names, digests []string) {
	for _, n := range names {
		if st.Names[n] != id {
			rec := st.Images[id]
			rec.LastTagged = now()
			st.Images[id], st.Names[n] = rec, id
		}
	}
	for _, d := range digests {
		st.Digests[d] = id
	}
}

// remember keeps the parsed config of a recorded image.
func (c *catalogue) remember(id digest.Digest, config *dockerspec.DockerOCIImage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.configs[id] = config
}

// read gives f a consistent view; f must not keep or change it.
func (c *catalogue) read(f func(st catalogueState, configs map[digest.Digest]*dockerspec.DockerOCIImage)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	f(c.now, c.configs)
}

// replaceFile writes b to path so that a reader, after any crash, finds either
// the old or the new content. The temporary name starts with a dot and ends in
// ".new"; what a killed process leaves of them Open removes.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	fault.Here(fault.ListWritten)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	fault.Here(fault.ListRenamed)
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
