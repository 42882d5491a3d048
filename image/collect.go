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
	live := s.mark()
	if err := s.sweepBlobs(ctx, live); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	err := s.sweepLayers(ctx, live)
	if isDiskFull(err) {
		// The snapshotter's database needs room to write that a layer is gone;
		// the blobs in the trash are that room.
		s.janitor.wait()
		err = s.sweepLayers(ctx, live)
	}
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// mark returns the names of all live blobs and snapshots.
func (s *Store) mark() map[string]struct{} {
	live := map[string]struct{}{}
	for name := range s.pins {
		live[name] = struct{}{}
	}
	for _, c := range s.containers {
		live[c.Chain.String()] = struct{}{}
	}
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		for id, rec := range st.Images {
			live[id.String()] = struct{}{}
			live[rec.Target.Digest.String()] = struct{}{}
			live[rec.chain().String()] = struct{}{}
			for _, l := range rec.Layers {
				live[l.Digest.String()] = struct{}{}
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
		blob := filepath.Join(s.root, "content", "blobs", d.Algorithm().String(), d.Encoded())
		if err := s.janitor.discard(blob); err != nil {
			return err
		}
	}
	return nil
}

// sweepLayers removes dead snapshots, children before parents. A parent of a
// live one is live.
func (s *Store) sweepLayers(ctx context.Context, live map[string]struct{}) error {
	parents := map[string]string{}
	err := s.layers.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		parents[info.Name] = info.Parent
		return nil
	})
	if err != nil {
		return err
	}
	for name := range parents {
		if _, ok := live[name]; !ok {
			continue
		}
		for p := parents[name]; p != ""; p = parents[p] {
			live[p] = struct{}{}
		}
	}
	for name := range live {
		delete(parents, name)
	}
	return s.removeLayers(ctx, parents)
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
			if err := s.layers.Remove(ctx, name); err != nil && !cerrdefs.IsNotFound(err) {
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
	parents := map[string]string{}
	err := s.layers.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		parents[info.Name] = info.Parent
		return nil
	})
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
