package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// ImportOptions describe an image made from a root file system.
type ImportOptions struct {
	// Ref is its name; "" leaves it without.
	Ref string
	// Message goes into its history.
	Message string
	// Changes are Dockerfile instructions for its config, see [ApplyChanges].
	Changes []string
	// Platform is "os/arch[/variant]"; "" means this host's.
	Platform string
	// Progress is told how many bytes are unpacked; nil means nobody.
	Progress func(ProgressEvent)
}

// Import makes an image of one layer from a tar of a root file system, plain or
// compressed by gzip, zstd, xz or bzip2. After an error nothing of it is kept. The
// error is an errdefs.ErrInvalid when the stream is no tar.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ImportOptions) (img *Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("import image: %w", s.explain(err))
		}
	}()
	names, err := optionalTag(opts.Ref)
	if err != nil {
		return nil, err
	}
	platform, err := parsePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	config := &dockerspec.DockerOCIImage{}
	if err := ApplyChanges(&config.Config, opts.Changes); err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	c := s.begin()
	defer c.finish(ctx, &err)
	layer, diffID, err := ingestLayer(ctx, c, r)
	if err != nil {
		return nil, err
	}
	created := now()
	config.Created, config.Platform = &created, platform
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	config.History = []ocispec.History{{Created: &created, Comment: opts.Message}}
	img, err = s.assemble(ctx, c, "", config, []ocispec.Descriptor{*layer}, names, newProgress(opts.Progress))
	if err != nil {
		err = notTar(err)
	}
	return img, err
}

// ingestLayer stores the stream as it comes, or, where the layer types of
// images do not know its compression, without; and computes its diff ID.
func ingestLayer(ctx context.Context, c *session, r io.Reader) (*ocispec.Descriptor, digest.Digest, error) {
	w, err := content.OpenWriter(ctx, c, content.WithRef("layer"))
	if err != nil {
		return nil, "", err
	}
	defer w.Close()
	head := make([]byte, 10)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		if errors.Is(err, io.EOF) {
			err = errdefs.As(errdefs.ErrInvalid, errors.New("the input is empty"))
		}
		return nil, "", err
	}
	src := io.MultiReader(bytes.NewReader(head[:n]), contextReader{ctx, r})
	mediaType := ocispec.MediaTypeImageLayer
	hash := digest.Canonical.Digester()
	var plain io.ReadCloser
	switch compression.DetectCompression(head[:n]) {
	case compression.Gzip:
		mediaType = ocispec.MediaTypeImageLayerGzip
	case compression.Zstd:
		mediaType = ocispec.MediaTypeImageLayerZstd
	default:
		if plain, err = decompress(src); err == nil {
			defer plain.Close()
			_, err = io.Copy(w, plain) // which hashes
		}
	}
	if mediaType != ocispec.MediaTypeImageLayer {
		raw := io.TeeReader(src, w)
		if plain, err = decompress(raw); err == nil {
			defer plain.Close()
			if _, err = io.Copy(hash.Hash(), plain); err == nil {
				_, err = io.Copy(io.Discard, raw)
			}
		}
	}
	if err != nil {
		return nil, "", notTar(err)
	}
	desc, err := commitBlob(ctx, w, mediaType)
	if err == nil && mediaType == ocispec.MediaTypeImageLayer {
		return desc, desc.Digest, nil
	}
	return desc, hash.Digest(), err
}

// notTar marks an error of reading the stream as the stream's fault.
func notTar(err error) error {
	switch {
	case isDiskFull(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errdefs.Hint(err) != "":
		return err
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, zstd.ErrMagicMismatch):
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err),
			"import takes a tar of a root file system, plain or compressed by gzip, zstd, xz or bzip2")
	}
	return err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
