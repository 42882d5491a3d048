package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// gzipTypes are the media types of uncompressed layers and of the same layers
// compressed.
var gzipTypes = map[string]string{
	ocispec.MediaTypeImageLayer:        ocispec.MediaTypeImageLayerGzip,
	images.MediaTypeDockerSchema2Layer: images.MediaTypeDockerSchema2LayerGzip,
}

// compress returns the image with all its layers compressed: archives and
// commits come uncompressed, and a registry is to keep, and others to pull, a
// third of that. The image stays the same, its ID is that of the config; its
// manifest is another one.
func (p *push) compress(ctx context.Context, c *session, d *draft) (*draft, error) {
	if !slices.ContainsFunc(d.layers, func(l Layer) bool { return gzipTypes[l.MediaType] != "" }) {
		return d, nil
	}
	manifest, err := readManifest(ctx, c, d.target)
	if err != nil {
		return nil, err
	}
	for i, l := range d.layers {
		mediaType := gzipTypes[l.MediaType]
		if mediaType == "" {
			continue
		}
		p.progress.layer(l.DiffID, statusCompressing)
		desc, err := compressBlob(ctx, c, manifest.Layers[i], func(n int64) {
			p.progress.count(ProgressEvent{ID: short(l.DiffID), Status: statusCompressing, Current: n, Total: l.BlobSize})
		})
		if err != nil {
			return nil, fmt.Errorf("compress layer %s: %w", l.DiffID, err)
		}
		desc.MediaType, desc.Annotations = mediaType, manifest.Layers[i].Annotations
		manifest.Layers[i] = desc
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	target := ocispec.Descriptor{MediaType: d.target.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(ctx, c, target.Digest.String(), bytes.NewReader(b), target); err != nil {
		return nil, err
	}
	return readDraft(ctx, c, target)
}

// compressBlob stores a gzipped copy of a blob.
func compressBlob(ctx context.Context, c *session, plain ocispec.Descriptor, progress func(int64)) (desc ocispec.Descriptor, err error) {
	ra, err := c.ReaderAt(ctx, plain)
	if err != nil {
		return desc, err
	}
	defer ra.Close()
	w, err := content.OpenWriter(ctx, c, content.WithRef("compress-"+plain.Digest.String()))
	if err != nil {
		return desc, err
	}
	defer w.Close()
	z, err := gzip.NewWriterLevel(w, gzip.DefaultCompression)
	if err != nil {
		return desc, err
	}
	src := &countingReader{r: contextReader{ctx, content.NewReader(ra)}, report: progress}
	if _, err := io.CopyBuffer(z, src, make([]byte, 256<<10)); err != nil {
		return desc, err
	}
	if err := z.Close(); err != nil {
		return desc, err
	}
	status, err := w.Status()
	if err != nil {
		return desc, err
	}
	desc = ocispec.Descriptor{Digest: w.Digest(), Size: status.Offset}
	if err := w.Commit(ctx, desc.Size, desc.Digest); err != nil && !cerrdefs.IsAlreadyExists(err) {
		return desc, err
	}
	return desc, nil
}
