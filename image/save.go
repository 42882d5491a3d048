package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as one tar that is a docker-archive and an OCI layout at
// once, as current `docker save` does: Docker, Podman, skopeo and Load read it.
// A name saves the image under it; a repository without tag all its tags; an ID
// the image without a name. Blobs are checked against their digests on the way.
func (s *Store) Save(ctx context.Context, names []string, w io.Writer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save images: %w", err)
		}
	}()
	c := s.begin() // its pins keep the images from being collected meanwhile
	defer c.drop()
	var opts []archive.ExportOpt
	for _, ref := range names {
		target, tags, err := s.saved(c, ref)
		if err != nil {
			return err
		}
		for t := range target {
			opts = append(opts, archive.WithManifest(target[t], tags[t]...))
		}
	}
	return archive.Export(quiet(ctx), c, w, opts...)
}

// saved finds what a reference given to Save means: manifests and for each its
// names.
func (s *Store) saved(c *session, ref string) (targets []ocispec.Descriptor, names [][]string, err error) {
	add := func(rec imageRecord, id digest.Digest, tags []string) {
		targets, names = append(targets, rec.Target), append(names, tags)
		pinned := []digest.Digest{rec.Target.Digest, id}
		for _, l := range rec.Layers {
			pinned = append(pinned, l.Digest)
		}
		for _, d := range pinned {
			c.pins = append(c.pins, d.String())
		}
	}
	s.held.Lock()
	defer s.held.Unlock()
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		if tags := st.repositoryTags(ref); len(tags) > 0 {
			for _, t := range tags {
				add(st.Images[st.Names[t]], st.Names[t], []string{t})
			}
			return
		}
		var f found
		if f, err = st.lookup(ref); err != nil {
			return
		}
		var tags []string
		if f.name != "" && !strings.Contains(f.name, "@") {
			tags = []string{f.name}
		}
		add(st.Images[f.id], f.id, tags)
	})
	for _, p := range c.pins {
		s.pins[p]++
	}
	return targets, names, err
}

// repositoryTags lists the full names of a repository given without a tag.
func (st catalogueState) repositoryTags(ref string) []string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		return nil
	}
	var tags []string
	for n := range st.Names {
		if repository(n) == named.Name() {
			tags = append(tags, n)
		}
	}
	slices.Sort(tags)
	return tags
}
