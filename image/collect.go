package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-containers/berth/fault"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	cerrdefs "github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// The collector is mark and sweep over everything there is. Live are: what an
// image record leads to, the layers a container stands on, and what a running
// session has pinned. A store has hundreds of blobs and layers, not millions;
// walking them all takes a few milliseconds and leaves no count to go wrong. A
// record lists all its blobs, so that marking reads nothing from the disk.

// collect removes every blob and layer nothing refers to.
func (s *Store) collect(ctx context.Context) error {
	s.held.Lock()
	defer s.held.Unlock()
	if err := s.downloads.sweep(false); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	live := s.mark(nil)
	if err := s.sweepBlobs(ctx, live.blobs); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	err := s.sweepLayers(ctx, live.layers)
	if isDiskFull(err) {
		// The snapshotter's database needs room to write that a layer is gone;
		// the blobs in the trash are that room.
		s.janitor.wait()
		err = s.sweepLayers(ctx, live.layers)
	}
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// liveSet is what stays. A blob and a snapshot may have the same name: the chain
// ID of a lowest layer is the digest of its plain tar.
type liveSet struct {
	blobs, layers map[string]struct{}
}

func (l *liveSet) blob(d digest.Digest)  { l.blobs[d.String()] = struct{}{} }
func (l *liveSet) layer(d digest.Digest) { l.layers[d.String()] = struct{}{} }

// mark returns the names of all live blobs and snapshots: those of all images,
// or only of some.
func (s *Store) mark(some func(digest.Digest) bool) *liveSet {
	live := &liveSet{blobs: map[string]struct{}{}, layers: map[string]struct{}{}}
	for name := range s.pins { // of either kind
		live.blob(digest.Digest(name))
		live.layer(digest.Digest(name))
	}
	for _, c := range s.containers {
		live.layer(c.Chain)
	}
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		for id, rec := range st.Images {
			if some != nil && !some(id) {
				continue
			}
			live.blob(id)
			live.blob(rec.Target.Digest)
			live.layer(rec.chain())
			for _, l := range rec.Layers {
				live.blob(l.Digest)
			}
		}
	})
	return live
}

func (s *Store) sweepBlobs(ctx context.Context, live map[string]struct{}) error {
	var dead []digest.Digest
	err := s.blobs.Walk(ctx, func(info content.Info) error {
		if _, ok := live[info.Digest.String()]; !ok {
			dead = append(dead, info.Digest)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range dead {
		// A rename is over at once, an unlink of gigabytes is not.
		if err := s.janitor.discard(s.blobPath(d)); err != nil {
			return err
		}
	}
	return nil
}

// sweepLayers removes dead snapshots, children before parents.
func (s *Store) sweepLayers(ctx context.Context, live map[string]struct{}) error {
	parents, err := s.layerParents(ctx)
	if err != nil {
		return err
	}
	for name := range liveLine(parents, live) {
		delete(parents, name)
	}
	return s.removeLayers(ctx, parents)
}

// layerParents maps each snapshot to the one it stands on.
func (s *Store) layerParents(ctx context.Context) (map[string]string, error) {
	parents := map[string]string{}
	err := s.layers.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		parents[info.Name] = info.Parent
		return nil
	})
	return parents, err
}

// liveLine adds to the live what it stands on.
func liveLine(parents map[string]string, live map[string]struct{}) map[string]struct{} {
	for name := range parents {
		if _, ok := live[name]; !ok {
			continue
		}
		for p := parents[name]; p != ""; p = parents[p] {
			live[p] = struct{}{}
		}
	}
	return live
}

// removeLayers removes the given snapshots (name to parent), children first.
// The caller holds s.held.
func (s *Store) removeLayers(ctx context.Context, parents map[string]string) error {
	if len(parents) == 0 {
		return nil
	}
	var removed []digest.Digest
	children := map[string]int{}
	for _, p := range parents {
		children[p]++
	}
	for len(parents) > 0 {
		before := len(parents)
		for name, parent := range parents {
			if children[name] > 0 {
				continue
			}
			err := s.layers.Remove(ctx, name)
			if err != nil && !cerrdefs.IsNotFound(err) {
				return err
			}
			if err := s.unmountLayer(name); err != nil {
				return err
			}
			fault.Here(fault.LayerRemoved)
			delete(parents, name)
			children[parent]--
			removed = append(removed, digest.Digest(name))
		}
		if len(parents) == before {
			return fmt.Errorf("remove layers: %d of them are each other's parent", before)
		}
	}
	clear(s.lowers)
	s.janitor.layersRemoved()
	return s.journal.strike(removed)
}

// dropLayers removes the layers named and everything that stands on them.
func (s *Store) dropLayers(ctx context.Context, chains []digest.Digest) error {
	if len(chains) == 0 {
		return nil
	}
	s.held.Lock()
	defer s.held.Unlock()
	parents, err := s.layerParents(ctx)
	if err != nil {
		return err
	}
	suspect := map[string]bool{}
	for _, c := range chains {
		suspect[c.String()] = true
	}
	drop := map[string]string{}
	for name := range parents {
		for p := name; p != ""; p = parents[p] {
			if suspect[p] {
				drop[name] = parents[name]
				break
			}
		}
	}
	return s.removeLayers(ctx, drop)
}

// abortIngests removes the half-written blobs and temporary files of a process
// that was killed. Only Open may call it: no session runs yet.
func (s *Store) abortIngests(context.Context) error {
	ingests, err := os.ReadDir(filepath.Join(s.root, "content", "ingest"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range ingests {
		if err := os.RemoveAll(filepath.Join(s.root, "content", "ingest", e.Name())); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".new") {
			if err := os.Remove(filepath.Join(s.root, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
