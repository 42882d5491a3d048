package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// Usage is what a store takes on disk, in bytes. Containers' own files are not
// in it, see [Store.Usage]; the layers they stand on are.
type Usage struct {
	// Total is all blobs and unpacked layers, each counted once.
	Total int64
	// Reclaimable is what Prune with All gives back: what is left of Total is
	// used by containers, or by operations that are running.
	Reclaimable int64
	// Shared is, of each image, what its layers that other images have too take.
	Shared map[digest.Digest]int64
}

// DiskUsage measures by asking what there is, not by adding up what records
// say: a file counts the blocks it has, and what is on its way counts too.
func (s *Store) DiskUsage(ctx context.Context) (Usage, error) {
	used := s.usedImages(ctx)
	ctx = quiet(ctx)
	s.held.Lock()
	defer s.held.Unlock()
	live := s.mark(func(id digest.Digest) bool { return used[id] })
	u := Usage{Shared: s.shared()}
	if err := s.countBlobs(ctx, &u, live.blobs); err != nil {
		return Usage{}, err
	}
	return u, s.countLayers(ctx, &u, live.layers)
}

func (u *Usage) count(size int64, live bool) {
	u.Total += size
	if !live {
		u.Reclaimable += size
	}
}

func (s *Store) countBlobs(ctx context.Context, u *Usage, live map[string]struct{}) error {
	err := s.blobs.Walk(ctx, func(info content.Info) error {
		size, err := blocksOf(s.blobPath(info.Digest))
		_, ok := live[info.Digest.String()]
		u.count(size, ok)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) { // a store that never had one
		err = nil
	}
	return err
}

func (s *Store) countLayers(ctx context.Context, u *Usage, live map[string]struct{}) error {
	parents := map[string]string{}
	err := s.layers.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted { // the rest is on its way
			parents[info.Name] = info.Parent
		}
		return nil
	})
	if err != nil {
		return err
	}
	live = liveLine(parents, live)
	for name := range parents {
		size, err := s.layers.Usage(ctx, name)
		if err != nil {
			return err
		}
		_, ok := live[name]
		u.count(size.Size, ok)
	}
	return nil
}

// usedImages are those a container was made from, and those they were made from.
func (s *Store) usedImages(ctx context.Context) map[digest.Digest]bool {
	list, _ := s.List(ctx)
	used, parents := map[digest.Digest]bool{}, map[digest.Digest]digest.Digest{}
	for _, img := range list {
		parents[img.ID] = img.Parent
	}
	for _, img := range list {
		if len(s.users(img.ID)) == 0 {
			continue
		}
		for id := img.ID; id != "" && !used[id]; id = parents[id] {
			used[id] = true
		}
	}
	return used
}

// ContentSize is what an image's blobs have together, in bytes: manifest, config
// and layers.
func (s *Store) ContentSize(img *Image) (int64, error) {
	config, err := os.Stat(s.blobPath(img.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it was removed meanwhile
	}
	if err != nil {
		return 0, err
	}
	size := img.Target.Size + config.Size()
	seen := map[digest.Digest]bool{}
	for _, l := range img.Layers {
		if !seen[l.Digest] {
			size += l.BlobSize
		}
		seen[l.Digest] = true
	}
	return size, nil
}

// shared sums up, for each image, the layers it has in common with others.
func (s *Store) shared() map[digest.Digest]int64 {
	images := map[digest.Digest]int{}
	sizes := map[digest.Digest]int64{}
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		for _, rec := range st.Images {
			for _, l := range rec.Layers {
				images[l.ChainID]++
			}
		}
		for id, rec := range st.Images {
			for _, l := range rec.Layers {
				if images[l.ChainID] > 1 {
					sizes[id] += l.Size
				}
			}
		}
	})
	return sizes
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, "content", "blobs", d.Algorithm().String(), d.Encoded())
}

// blocksOf is what a file takes on disk; nothing when it is gone meanwhile.
func blocksOf(path string) (int64, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512, nil // the unit of stat(2), whatever the file system's
	}
	return fi.Size(), nil
}
