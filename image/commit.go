package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	cerrdefs "github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CommitOptions say what the new image is called and how its config differs.
type CommitOptions struct {
	// Ref is the new image's name; "" leaves it without.
	Ref string
	// Author and Message go into the image's history.
	Author, Message string
	// CreatedBy is the command the change came from, for the history.
	CreatedBy string
	// Config replaces the parent's; nil keeps it.
	Config *dockerspec.DockerOCIImageConfig
	// Changes are Dockerfile instructions applied to the config afterwards, see
	// [ApplyChanges].
	Changes []string
}

// Commit makes an image of parent plus what has changed in the snapshot key.
// Nothing may write to the snapshot meanwhile: stop or pause the container.
func (s *Store) Commit(ctx context.Context, key string, parent *Image, opts CommitOptions) (img *Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("commit %s: %w", key, s.explain(err))
		}
	}()
	if _, err := s.snapshot(key); err != nil {
		return nil, err
	}
	names, err := optionalTag(opts.Ref)
	if err != nil {
		return nil, err
	}
	config, err := cloneConfig(&parent.Config)
	if err != nil {
		return nil, err
	}
	if opts.Config != nil {
		config.Config = *opts.Config
	}
	if err := ApplyChanges(&config.Config, opts.Changes); err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	c := s.begin()
	defer c.finish(ctx, &err)
	manifest, err := readManifest(ctx, s.blobs, parent.Target)
	if err != nil {
		return nil, err
	}
	layerType := ocispec.MediaTypeImageLayer
	if images.IsDockerType(manifest.Config.MediaType) {
		layerType = images.MediaTypeDockerSchema2Layer
	}
	layer, err := s.diff(ctx, c, key, layerType)
	if err != nil {
		return nil, err
	}
	created := now()
	config.Created, config.Author = &created, opts.Author
	config.History = append(config.History, ocispec.History{
		Created: &created, CreatedBy: opts.CreatedBy, Author: opts.Author, Comment: opts.Message,
		EmptyLayer: layer == nil,
	})
	layers := manifest.Layers
	if layer != nil {
		layers = append(layers, *layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
	}
	return s.assemble(ctx, c, parent.ID, config, layers, names, nil)
}

// diff writes the changes of a snapshot as an uncompressed layer blob, whose
// digest therefore is its diff ID; nil when nothing has changed.
func (s *Store) diff(ctx context.Context, c *session, key, mediaType string) (_ *ocispec.Descriptor, err error) {
	rec, err := s.snapshot(key)
	if err != nil {
		return nil, err
	}
	lower, err := s.lowerDirs(ctx, rec.Chain)
	if err != nil {
		return nil, err
	}
	w, err := content.OpenWriter(ctx, c, content.WithRef("diff"))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	changed, err := s.snap.diff(ctx, snapshotMount{lower: lower, upper: s.upperDir(key)}, w)
	if err != nil || !changed {
		return nil, err
	}
	return commitBlob(ctx, w, mediaType)
}

func commitBlob(ctx context.Context, w content.Writer, mediaType string) (*ocispec.Descriptor, error) {
	status, err := w.Status()
	if err != nil {
		return nil, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: status.Offset}
	if err := w.Commit(ctx, desc.Size, desc.Digest); err != nil && !cerrdefs.IsAlreadyExists(err) {
		return nil, err
	}
	return &desc, nil
}

// assemble writes config and manifest of an image whose layer blobs are there,
// unpacks it and records it. Parent is what it was committed from, "" for none.
func (s *Store) assemble(ctx context.Context, c *session, parent digest.Digest, config *dockerspec.DockerOCIImage, layers []ocispec.Descriptor, names []string, p *progress) (*Image, error) {
	manifestType, configType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	if len(layers) > 0 && images.IsDockerType(layers[0].MediaType) {
		manifestType, configType = images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2Config
	}
	configDesc, err := writeJSON(ctx, c, configType, config)
	if err != nil {
		return nil, err
	}
	target, err := writeJSON(ctx, c, manifestType, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: manifestType,
		Config:    configDesc, Layers: layers,
	})
	if err != nil {
		return nil, err
	}
	d, err := readDraft(ctx, c, target)
	if err != nil {
		return nil, err
	}
	d.parent = parent
	if err := s.unpackAll(ctx, c, d, p); err != nil {
		return nil, err
	}
	return s.record(ctx, d, names, nil)
}

// unpackAll unpacks the layers of a draft whose blobs are all there, as they were
// hashed when they were written.
func (s *Store) unpackAll(ctx context.Context, c *session, d *draft, p *progress) error {
	u := &unpacking{s: s, c: c, d: d, verified: true}
	if p != nil {
		u.progress = func(i int, n int64) {
			l := d.layers[i]
			p.count(ProgressEvent{ID: short(l.DiffID), Status: statusLoading, Current: n, Total: l.BlobSize})
		}
	}
	return u.run(ctx)
}

func writeJSON(ctx context.Context, c *session, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return desc, content.WriteBlob(ctx, c, desc.Digest.String(), bytes.NewReader(b), desc)
}

// cloneConfig copies a config deeply: what is read from the store is shared.
func cloneConfig(config *dockerspec.DockerOCIImage) (*dockerspec.DockerOCIImage, error) {
	b, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	n := &dockerspec.DockerOCIImage{}
	return n, json.Unmarshal(b, n)
}

// optionalTag is parseTag for a name that may be missing.
func optionalTag(ref string) ([]string, error) {
	if ref == "" {
		return nil, nil
	}
	tag, err := parseTag(ref)
	return []string{tag}, err
}
