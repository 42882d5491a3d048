package image

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// unpack makes layer i of the draft a snapshot on top of those below it, unless
// it is one already; it reports whether it was. Progress is told how many bytes
// of the blob are done and may be nil.
func (s *Store) unpack(ctx context.Context, c *session, d *draft, i int, progress func(int64)) (already bool, err error) {
	l := d.layers[i]
	unlock, err := s.busy.lock(ctx, "layer "+l.ChainID.String())
	if err != nil {
		return false, err
	}
	defer unlock()
	c.pin(l.ChainID.String())
	switch _, err := s.layers.Stat(ctx, l.ChainID.String()); {
	case err == nil:
		return true, nil
	case !cerrdefs.IsNotFound(err):
		return false, err
	}
	var parent digest.Digest
	if i > 0 {
		parent = d.layers[i-1].ChainID
	}
	if err := s.unpackOn(ctx, c, parent, l, d.descs[i], progress); err != nil {
		return false, fmt.Errorf("unpack layer %s: %w", l.Digest, err)
	}
	return false, nil
}

// unpackOn extracts a blob into a new snapshot on parent ("" for none),
// compares what it was with the layer's diff ID, and commits it as the layer's
// chain ID. After an error the snapshot is gone.
func (s *Store) unpackOn(ctx context.Context, c *session, parent digest.Digest, l Layer, blob ocispec.Descriptor, progress func(int64)) (err error) {
	key := "unpack-" + rand.Text()
	c.pin(key)
	if _, err := s.layers.Prepare(ctx, key, parent.String()); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		// The directory is deleted by the collection every session ends with.
		if rerr := s.layers.Remove(context.WithoutCancel(ctx), key); rerr != nil && !cerrdefs.IsNotFound(rerr) {
			err = fmt.Errorf("%w (removing it: %v)", err, rerr)
		}
		s.janitor.layersRemoved()
	}()
	fault.Here(fault.LayerPrepared)
	info, err := s.layers.Stat(ctx, key)
	if err != nil {
		return err
	}
	lowers, err := s.lowerDirs(ctx, parent)
	if err != nil {
		return err
	}
	diffID, err := s.extract(ctx, blob, info.Labels[upperdirLabel], lowers, progress)
	if err != nil {
		return err
	}
	if diffID != l.DiffID {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("its content is %s, the config says %s", diffID, l.DiffID))
	}
	fault.Here(fault.LayerExtracted)
	if err := s.journal.add(l.ChainID); err != nil {
		return err
	}
	fault.Here(fault.LayerListed)
	err = s.layers.Commit(ctx, l.ChainID.String(), key)
	fault.Here(fault.LayerCommitted)
	return err
}

// extract writes the tar stream in blob into dir, with whiteouts as overlayfs
// wants them, and returns the digest of the uncompressed stream. Parents, the
// top one first, lend their attributes to directories the layer does not name.
//
// A layer cannot write outside dir: containerd's extractor resolves every
// parent directory and link target inside it, and nothing else writes there.
// What it may bring, and how much of it, is in layer_limit.go.
func (s *Store) extract(ctx context.Context, blob ocispec.Descriptor, dir string, parents []string, progress func(int64)) (digest.Digest, error) {
	ra, err := s.blobs.ReaderAt(ctx, blob)
	if err != nil {
		return "", err
	}
	defer ra.Close()
	raw := content.NewReader(ra)
	if progress != nil {
		raw = &countingReader{r: raw, report: progress}
	}
	plain, err := decompress(raw)
	if err != nil {
		return "", err
	}
	defer plain.Close()
	limit := s.newLayerLimit()
	ahead := newReadAhead(limit.reader(plain))
	defer ahead.Close()
	marks := &whiteouts{dir: dir, parents: parents}
	_, err = archive.Apply(ctx, dir, ahead,
		archive.WithConvertWhiteout(marks.convert),
		archive.WithParents(parents),
		archive.WithFilter(limit.admit))
	if err == nil {
		err = marks.finish()
	}
	if err != nil {
		return "", malformed(dir, err)
	}
	// What follows the end of the archive is part of the digest too.
	if _, err := io.Copy(io.Discard, ahead); err != nil {
		return "", err
	}
	return ahead.Digest(), ctx.Err()
}

// layerSizes fills in what each layer takes unpacked.
func (s *Store) layerSizes(ctx context.Context, layers []Layer) error {
	for i := range layers {
		u, err := s.layers.Usage(ctx, layers[i].ChainID.String())
		if err != nil {
			return err
		}
		layers[i].Size = u.Size
	}
	return nil
}

// record makes the draft an image of the store, with names (full, with tag) and
// digests (full name@digest), and returns it.
func (s *Store) record(ctx context.Context, d *draft, names, digests []string) (*Image, error) {
	if err := s.layerSizes(ctx, d.layers); err != nil {
		return nil, err
	}
	rec := imageRecord{Target: d.target, Layers: d.layers, Parent: d.parent, Added: now()}
	img, err := s.catalogue.add(d.id, rec, d.config, names, digests)
	if err != nil {
		return nil, err
	}
	fault.Here(fault.ImageRecorded)
	s.journal.settle()
	return img, nil
}

// restoreLayers unpacks the layers of a recorded image that are missing.
func (s *Store) restoreLayers(ctx context.Context, d *draft) (err error) {
	c := s.begin()
	for i := range d.layers {
		if _, err = s.unpack(ctx, c, d, i, nil); err != nil {
			break
		}
	}
	c.drop()
	return err
}
