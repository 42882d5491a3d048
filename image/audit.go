package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/berth-containers/berth/audit"
)

// Audit compares the list of images, the blobs, the layers and the containers'
// directories with each other. owned says of a key whether a container has it.
// Nothing is changed; what is under way while it looks may be among the findings.
func (s *Store) Audit(ctx context.Context, owned func(key string) bool) ([]audit.Finding, error) {
	a := &auditor{s: s, owned: owned}
	ctx = quiet(ctx)
	if err := errors.Join(a.list(), a.images(ctx), a.containers(), a.quotas(), a.garbage(ctx)); err != nil {
		return a.found, fmt.Errorf("check images: %w", err)
	}
	return a.found, nil
}

// auditor collects findings.
type auditor struct {
	s     *Store
	owned func(key string) bool
	found audit.Findings
}

// list compares images.json with the list in memory.
func (a *auditor) list() error {
	c := a.s.catalogue
	c.writing.Lock()
	defer c.writing.Unlock()
	want, err := json.Marshal(c.now)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(c.path)
	if err == nil && string(got) == string(want) || errors.Is(err, fs.ErrNotExist) && len(c.now.Images) == 0 {
		return nil
	}
	a.found.Add("file "+c.path, "it is not the list of images that the engine holds", "write it again", func(context.Context) (string, error) {
		return "wrote it", c.update(func(*catalogueState) error { return nil })
	})
	return nil
}

// images looks for the blobs and the layers of every image.
func (a *auditor) images(ctx context.Context) error {
	var state catalogueState
	a.s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) { state = st.clone() })
	for id, rec := range state.Images {
		object := "image " + short(id)
		if names := namesOf(state.Names, id); len(names) > 0 {
			object += " (" + familiar(names[0]) + ")"
		}
		a.blobs(object, id, rec)
		if err := a.layers(ctx, object, id, rec); err != nil {
			return err
		}
	}
	return nil
}

// blobs looks whether an image's files are there and as long as they should be.
// What is in them was verified when they were written.
func (a *auditor) blobs(object string, id digest.Digest, rec imageRecord) {
	sizes := map[digest.Digest]int64{id: -1, rec.Target.Digest: rec.Target.Size}
	for _, l := range rec.Layers {
		sizes[l.Digest] = l.BlobSize
	}
	for d, want := range sizes {
		info, err := os.Stat(filepath.Join(a.s.root, "content", "blobs", d.Algorithm().String(), d.Encoded()))
		switch {
		case err != nil:
			a.found.Add(object, fmt.Sprintf("its blob %s is missing", d), "remove the image and pull or load it again", nil)
		case want > 0 && info.Size() != want:
			a.found.Add(object, fmt.Sprintf("its blob %s has %d bytes, it should have %d", d, info.Size(), want),
				"remove the image and pull or load it again", nil)
		}
	}
}

// layers looks whether an image is unpacked.
func (a *auditor) layers(ctx context.Context, object string, id digest.Digest, rec imageRecord) error {
	for _, l := range rec.Layers {
		problem, err := a.s.layerProblem(ctx, l.ChainID)
		if err != nil {
			return err
		}
		if problem == "" {
			continue
		}
		a.found.Add(object, fmt.Sprintf("its unpacked layer %s is %s", l.ChainID, problem), "unpack it again from its blob",
			func(ctx context.Context) (string, error) {
				return "unpacked the layer again; restart containers that run on it", a.s.unpackAgain(quiet(ctx), id, l.ChainID)
			})
	}
	return nil
}

// layerProblem says what is wrong with an unpacked layer, "" when nothing is.
func (s *Store) layerProblem(ctx context.Context, chain digest.Digest) (string, error) {
	info, err := s.layers.Stat(ctx, chain.String())
	if cerrdefs.IsNotFound(err) {
		return "missing", nil
	}
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(info.Labels[upperdirLabel]); err != nil {
		return "without its directory", nil
	}
	return "", nil
}

// unpackAgain makes a layer, and those that stand on it, anew.
func (s *Store) unpackAgain(ctx context.Context, id, chain digest.Digest) error {
	if problem, err := s.layerProblem(ctx, chain); err != nil || problem == "" {
		return err
	}
	if err := s.dropLayers(ctx, []digest.Digest{chain}); err != nil {
		return err
	}
	targets := map[digest.Digest]imageRecord{}
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) { maps.Copy(targets, st.Images) })
	for other, rec := range targets { // those of other images that stood on it were dropped with it
		d, err := readDraft(ctx, s.blobs, rec.Target)
		if err == nil {
			err = s.restoreLayers(ctx, d)
		}
		if err != nil && other == id {
			return err
		}
	}
	return nil
}

// containers looks at the containers' directories.
func (a *auditor) containers() error {
	dir := filepath.Join(a.s.root, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		key, path := e.Name(), filepath.Join(dir, e.Name())
		if strings.HasPrefix(key, ".") {
			continue // being made
		}
		_, err := a.s.snapshot(key)
		switch {
		case err != nil:
			a.found.Add("directory "+path, "it says nothing of the layers it stands on, and no container uses it",
				"look whether its files are still wanted, and delete it", nil)
		case !a.owned(key):
			a.found.Add("directory "+path, "it is the writable layer of no container", "remove it", func(ctx context.Context) (string, error) {
				if a.owned(key) {
					return "left it alone: it has an owner now", nil
				}
				return "removed it", a.s.RemoveSnapshot(ctx, key)
			})
		}
	}
	return nil
}

// SnapshotProblem says what is wrong with a container's directory, "" when
// nothing is.
func (s *Store) SnapshotProblem(ctx context.Context, key string) string {
	rec, err := s.snapshot(key)
	if err != nil {
		return "is missing"
	}
	lower, err := s.lowerDirs(ctx, rec.Chain)
	if err != nil {
		return "stands on a layer that is missing"
	}
	for _, dir := range lower {
		if _, err := os.Stat(dir); err != nil {
			return "stands on a layer that is missing"
		}
	}
	for _, dir := range []string{s.upperDir(key), s.workDir(key)} {
		if _, err := os.Stat(dir); err != nil {
			return "has no directory " + dir
		}
	}
	if _, err := readSnapshot(filepath.Dir(s.upperDir(key))); err != nil {
		return "does not say which layers it stands on"
	}
	return ""
}

// garbage looks for blobs and layers that nothing refers to.
func (a *auditor) garbage(ctx context.Context) error {
	blobs, layers, err := a.s.unreferenced(ctx)
	if err != nil || blobs+layers == 0 {
		return err
	}
	a.found.Add("image store", fmt.Sprintf("%d blobs and %d layers belong to no image", blobs, layers), "remove them",
		func(ctx context.Context) (string, error) { return "removed them", a.s.collect(quiet(ctx)) })
	return nil
}

// unreferenced counts what a collection would remove.
func (s *Store) unreferenced(ctx context.Context) (blobs, layers int, err error) {
	s.held.Lock()
	defer s.held.Unlock()
	live := s.mark(nil)
	err = s.blobs.Walk(ctx, func(info content.Info) error {
		if _, ok := live.blobs[info.Digest.String()]; !ok {
			blobs++
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, err
	}
	parents, err := s.layerParents(ctx)
	if err != nil {
		return 0, 0, err
	}
	needed := liveLine(parents, live.layers)
	for name := range parents {
		if _, ok := needed[name]; !ok {
			layers++
		}
	}
	return blobs, layers, nil
}
