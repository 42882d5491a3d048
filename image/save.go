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

	"github.com/berth-containers/berth/errdefs"
)

// Formats of archives. A docker-archive of ours is an OCI layout as well.
const (
	FormatDocker = "docker-archive"
	FormatOCI    = "oci-archive"
)

// SaveOptions say how images are saved.
type SaveOptions struct {
	// Format is one of the formats above; "" means FormatDocker.
	Format string
	// Platform is "os/arch[/variant]": every image must be for it; "" takes any.
	Platform string
}

// Save writes images as one tar that is a docker-archive and an OCI layout at
// once, as current `docker save` does: Docker, Podman, skopeo and Load read it.
// A name saves the image under it; a repository without tag all its tags; an ID
// the image without a name. Blobs are checked against their digests on the way.
// With FormatOCI it is an OCI layout alone.
func (s *Store) Save(ctx context.Context, names []string, w io.Writer, opts SaveOptions) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save images: %w", err)
		}
	}()
	c := s.begin() // its pins keep the images from being collected meanwhile
	defer c.drop()
	var parts []archive.ExportOpt
	switch opts.Format {
	case "", FormatDocker:
	case FormatOCI:
		parts = append(parts, archive.WithSkipDockerManifest())
	default:
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("unknown format %q", opts.Format)),
			"there are "+FormatDocker+" and "+FormatOCI)
	}
	for _, ref := range names {
		target, tags, err := s.saved(c, ref)
		if err != nil {
			return err
		}
		for t := range target {
			if err := s.savedFor(ctx, ref, target[t], opts.Platform); err != nil {
				return err
			}
			parts = append(parts, archive.WithManifest(target[t], tags[t]...))
		}
	}
	return archive.Export(quiet(ctx), c, w, parts...)
}

// savedFor checks that an image is for the platform asked for.
func (s *Store) savedFor(ctx context.Context, ref string, target ocispec.Descriptor, platform string) error {
	if platform == "" {
		return nil
	}
	d, err := readDraft(ctx, s.blobs, target)
	if err == nil {
		err = d.isFor(platform)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
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
