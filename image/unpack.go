package image

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// blob opens a layer's blob, perhaps while it still arrives.
type blob func(ctx context.Context) (io.ReadCloser, error)

// unpacking is the work of making a draft's layers snapshots. The zero values of
// its functions do without.
type unpacking struct {
	s *Store
	c *session
	d *draft
	// open gives the blob of layer i; nil takes those of the store. verified: what
	// it gives is known to be what its digest says.
	open     func(i int) blob
	verified bool
	// progress is told how many bytes of layer i's blob are done.
	progress func(i int, n int64)
	// done is told of each layer that is a snapshot now; already: it was one.
	done func(ctx context.Context, i int, already bool) error
	// failed may know better why layer i could not be unpacked: it returns
	// errAgain when that is worth trying once more.
	failed func(ctx context.Context, i int, err error) error
}

// run unpacks all layers, several at once: what is in a layer does not depend on
// those below it, only what it hides of them, and its place in the chain, which
// are settled at its end. After an error no snapshot half made is left.
func (u *unpacking) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	below := make(chan struct{})
	close(below)
	for i := range u.d.layers {
		parent, own := below, make(chan struct{})
		below = own
		group.Go(func() error {
			already, err := u.layer(ctx, i, parent)
			if err != nil {
				return err
			}
			close(own)
			if u.done != nil {
				return u.done(ctx, i, already)
			}
			return nil
		})
	}
	return group.Wait()
}

// layer makes layer i a snapshot on top of those below it, unless it is one
// already, and reports whether it was. below is closed when its parent is one.
func (u *unpacking) layer(ctx context.Context, i int, below <-chan struct{}) (already bool, err error) {
	l := u.d.layers[i]
	unlock, err := u.s.busy.lock(ctx, "layer "+l.ChainID.String())
	if err != nil {
		return false, err
	}
	defer unlock()
	u.c.pin(l.ChainID.String())
	switch _, err := u.s.layers.Stat(ctx, l.ChainID.String()); {
	case err == nil:
		return true, nil
	case !cerrdefs.IsNotFound(err):
		return false, err
	}
	for {
		err := u.unpack(ctx, i, below)
		if err == nil {
			return false, nil
		}
		if u.failed != nil {
			err = u.failed(ctx, i, err)
		}
		if !errors.Is(err, errAgain) {
			return false, err
		}
	}
}

// unpack extracts a blob into a new snapshot, compares what it was with the
// layer's diff ID, and commits it as the layer's chain ID. After an error the
// snapshot is gone.
func (u *unpacking) unpack(ctx context.Context, i int, below <-chan struct{}) (err error) {
	s, l := u.s, u.d.layers[i]
	defer func() {
		if err != nil {
			err = fmt.Errorf("unpack layer %s: %w", l.Digest, err)
		}
	}()
	key := "unpack-" + rand.Text()
	u.c.pin(key)
	// Without a parent: it gets one when it is committed.
	if _, err := s.layers.Prepare(ctx, key, ""); err != nil {
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
	x, err := u.extract(ctx, i, info.Labels[upperdirLabel])
	if err != nil {
		return err
	}
	if x.diffID != l.DiffID {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("its content is %s, the config says %s", x.diffID, l.DiffID))
	}
	select {
	case <-below:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var parent digest.Digest
	if i > 0 {
		parent = u.d.layers[i-1].ChainID
	}
	lowers, err := s.lowerDirs(ctx, parent)
	if err != nil {
		return err
	}
	if err := x.settle(lowers); err != nil {
		return err
	}
	fault.Here(fault.LayerExtracted)
	if err := s.snap.seal(ctx, info.Labels[upperdirLabel]); err != nil {
		return err
	}
	if err := s.journal.add(l.ChainID); err != nil {
		return err
	}
	fault.Here(fault.LayerListed)
	if err := s.layers.Commit(ctx, l.ChainID.String(), key, snapshots.WithParent(parent.String())); err != nil {
		return errors.Join(err, s.journal.strike([]digest.Digest{l.ChainID}))
	}
	fault.Here(fault.LayerCommitted)
	return nil
}

// extract opens and extracts layer i's blob. How many are extracted at once is
// bounded; who waits for something else holds no place.
func (u *unpacking) extract(ctx context.Context, i int, dir string) (*extracted, error) {
	if err := u.s.extracting.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer u.s.extracting.Release(1)
	open := u.s.blob(u.d.descs[i])
	if u.open != nil {
		open = u.open(i)
	}
	raw, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	var r io.Reader = raw
	if u.progress != nil {
		r = &countingReader{r: raw, report: func(n int64) { u.progress(i, n) }}
	}
	if l := u.d.layers[i]; u.verified && l.Digest == l.DiffID {
		return u.s.extractPlain(ctx, r, dir, l.DiffID)
	}
	return u.s.extract(ctx, r, dir)
}

// blob is a blob of the store.
func (s *Store) blob(desc ocispec.Descriptor) blob {
	return func(ctx context.Context) (io.ReadCloser, error) {
		ra, err := s.blobs.ReaderAt(ctx, desc)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{content.NewReader(ra), ra}, nil
	}
}

// extracted is a layer's content in its directory, before it is known what is
// below it.
type extracted struct {
	dir    string
	diffID digest.Digest // of the uncompressed stream
	marks  *whiteouts
	made   *implicit
}

// extract writes the tar stream raw, which may be compressed, into dir.
//
// A layer cannot write outside dir: see [extractor]. What it may bring, and how
// much of it, is in layer_limit.go.
func (s *Store) extract(ctx context.Context, raw io.Reader, dir string) (*extracted, error) {
	plain, err := decompress(raw)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return s.extractTar(ctx, plain, dir, "")
}

// extractPlain is extract for a stream that is not compressed and whose digest has
// been verified: it is not hashed once more.
func (s *Store) extractPlain(ctx context.Context, raw io.Reader, dir string, diffID digest.Digest) (*extracted, error) {
	return s.extractTar(ctx, raw, dir, diffID)
}

// extractTar writes a plain tar stream into dir and hashes it, unless its diff ID
// is known.
func (s *Store) extractTar(ctx context.Context, plain io.Reader, dir string, diffID digest.Digest) (*extracted, error) {
	limit := s.newLayerLimit()
	ahead := newReadAhead(limit.reader(plain), diffID == "")
	defer ahead.Close()
	x := &extracted{dir: dir, diffID: diffID, marks: &whiteouts{dir: dir}, made: newImplicit()}
	files, err := newExtractor(dir, x.marks)
	if err != nil {
		return nil, err
	}
	defer files.close()
	err = files.run(ctx, ahead, func(hdr *tar.Header) (bool, error) {
		ok, err := limit.admit(hdr)
		if ok && err == nil {
			x.made.note(hdr)
		}
		return ok, err
	})
	if err != nil {
		return nil, malformed(dir, err)
	}
	// What follows the end of the archive is part of the digest too.
	if _, err := io.Copy(io.Discard, ahead); err != nil {
		return nil, err
	}
	if diffID == "" {
		x.diffID = ahead.Digest()
	}
	return x, ctx.Err()
}

// settle completes a layer for its place on others, whose directories are
// given, the top one first: whiteouts as overlayfs wants them, and the parents'
// attributes for directories the layer does not name.
func (x *extracted) settle(parents []string) error {
	x.marks.parents = parents
	err := x.marks.finish()
	if err == nil {
		err = x.made.inherit(x.dir, parents)
	}
	if err != nil {
		return malformed(x.dir, err)
	}
	return nil
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
func (s *Store) restoreLayers(ctx context.Context, d *draft) error {
	c := s.begin()
	defer c.drop()
	return (&unpacking{s: s, c: c, d: d}).run(ctx)
}
