package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// Remote is what a registry has under a name.
type Remote struct {
	Target ocispec.Descriptor
	// Platforms are those the image is for; none when it does not say.
	Platforms []ocispec.Platform
}

// Inspect asks the registry what it has under a name, and stores nothing.
func (s *Store) Inspect(ctx context.Context, ref string, auth *registry.AuthConfig) (found *Remote, err error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("inspect %s: %w", reference.FamiliarString(named), s.explainRegistry(named, err))
		}
	}()
	c := &client{domain: reference.Domain(named)}
	defer c.close()
	if err := c.open(s, auth); err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	r, err := resolve(ctx, c, named)
	if err != nil {
		return nil, err
	}
	found = &Remote{Target: r.desc}
	switch {
	case images.IsIndexType(r.desc.MediaType):
		var index ocispec.Index
		if err := r.read(ctx, r.desc, &index); err != nil {
			return nil, err
		}
		for _, m := range index.Manifests {
			if m.Platform != nil {
				found.Platforms = append(found.Platforms, *m.Platform)
			}
		}
	case images.IsManifestType(r.desc.MediaType):
		var manifest ocispec.Manifest
		if err := r.read(ctx, r.desc, &manifest); err != nil {
			return nil, err
		}
		if !images.IsConfigType(manifest.Config.MediaType) {
			break // not a container image: it runs on nothing
		}
		var config dockerspec.DockerOCIImage
		if err := r.read(ctx, manifest.Config, &config); err != nil {
			return nil, err
		}
		if config.Architecture != "" {
			found.Platforms = []ocispec.Platform{config.Platform}
		}
	}
	return found, nil
}

// read fetches a small blob, checks it and parses it.
func (r *remote) read(ctx context.Context, desc ocispec.Descriptor, into any) error {
	if desc.Size > maxMetadata {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s %s: %d bytes are too many", kindOf(desc), desc.Digest, desc.Size))
	}
	desc.URLs = nil
	rc, err := r.fetcher.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, desc.Size+1))
	if err != nil {
		return err
	}
	verifier := desc.Digest.Verifier()
	if _, err := io.Copy(verifier, bytes.NewReader(b)); err != nil || !verifier.Verified() {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s %s is not what its digest says", kindOf(desc), desc.Digest))
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s %s: %w", kindOf(desc), desc.Digest, err))
	}
	return nil
}
