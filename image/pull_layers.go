package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// layers fetches all layers, some at once, and unpacks each while it arrives.
// The blobs become the store's when all is well.
func (p *pull) layers(ctx context.Context, d *draft) (err error) {
	source := &blobSource{client: p.client, named: p.remote.named}
	slots := semaphore.NewWeighted(int64(p.s.opts.MaxDownloads))
	arrivals := make([]*arrival, len(d.layers))
	defer func() {
		for _, a := range arrivals {
			a.leave(isDiskFull(err))
		}
	}()
	for _, l := range d.layers {
		p.progress.layer(l.Digest, statusPulling)
	}
	for i := range d.layers {
		a, err := p.arrive(ctx, d.descs[i], source, slots)
		if err != nil {
			return fmt.Errorf("layer %s: %w", d.descs[i].Digest, err)
		}
		arrivals[i] = a
	}
	group, gctx := errgroup.WithContext(ctx)
	for i, a := range arrivals {
		group.Go(func() error {
			if err := a.wait(gctx, p.progress); err != nil {
				return fmt.Errorf("layer %s: %w", d.descs[i].Digest, err)
			}
			return nil
		})
	}
	group.Go(func() error { return p.unpack(gctx, d, arrivals) })
	if err := group.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil { // when the last had just ended
		return context.Cause(ctx)
	}
	for _, a := range arrivals {
		if err := a.keep(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pull) unpack(ctx context.Context, d *draft, arrivals []*arrival) error {
	u := &unpacking{
		s: p.s, c: p.c, d: d,
		open: func(i int) blob { return arrivals[i].open },
		progress: func(i int, n int64) {
			if arrivals[i].verified() { // until then there are bytes that arrive to be shown
				p.extracting(d.layers[i], n)
			}
		},
		failed: func(ctx context.Context, i int, err error) error { return arrivals[i].explain(ctx, err) },
		done: func(ctx context.Context, i int, already bool) error {
			a := arrivals[i]
			select {
			case <-a.whole:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			l := d.layers[i]
			switch {
			case already && a.stored:
				p.progress.layer(l.Digest, statusExists)
				return nil
			case !already:
				p.extracting(l, l.BlobSize)
			}
			p.progress.layer(l.Digest, statusPulled)
			return nil
		},
	}
	return u.run(ctx)
}

func (p *pull) extracting(l Layer, n int64) {
	p.progress.count(ProgressEvent{ID: short(l.Digest), Status: statusExtract, Current: n, Total: l.BlobSize})
}

// arrival is a layer's blob as a pull sees it: in the store already, or on its
// way.
type arrival struct {
	s      *Store
	desc   ocispec.Descriptor
	source source
	slots  *semaphore.Weighted
	// stored: the store had it before.
	stored bool
	// whole is closed when it is all here and what its digest says.
	whole chan struct{}

	mu sync.Mutex
	// d is nil when the blob is stored. own: this pull has begun it.
	d   *download
	own bool
	// round is d's when it was opened last.
	round int
}

func (p *pull) arrive(ctx context.Context, desc ocispec.Descriptor, source source, slots *semaphore.Weighted) (*arrival, error) {
	a := &arrival{s: p.s, desc: desc, source: source, slots: slots, whole: make(chan struct{})}
	p.c.pin(desc.Digest.String())
	_, err := p.s.blobs.Info(ctx, desc.Digest)
	if err == nil {
		a.stored = true
		close(a.whole)
		return a, nil
	}
	if !cerrdefs.IsNotFound(err) {
		return nil, err
	}
	a.d, a.own, err = p.s.downloads.join(desc, source, slots)
	return a, err
}

// leave gives up what was joined, and what is there of it when there is no room for
// the rest; it may be called on nil.
func (a *arrival) leave(full bool) {
	if a == nil {
		return
	}
	if d := a.current(); d != nil {
		if full {
			d.discard()
		}
		d.leave()
	}
}

func (a *arrival) current() *download {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.d
}

func (a *arrival) verified() bool {
	select {
	case <-a.whole:
		return true
	default:
		return false
	}
}

// wait shows what arrives until all is here.
func (a *arrival) wait(ctx context.Context, progress *progress) error {
	if a.stored {
		return nil
	}
	id := short(a.desc.Digest)
	shown := false
	show := func(got int64) {
		progress.count(ProgressEvent{ID: id, Status: statusDownload, Current: got, Total: a.desc.Size})
		shown = true
	}
	for {
		d := a.current()
		err := d.follow(ctx, func(at stand) {
			switch {
			case at.queued:
				progress.send(ProgressEvent{ID: id, Status: statusWaiting})
			case !shown && at.arrived, !at.arrived && at.got > 0:
				show(at.got)
			}
			if at.arrived {
				progress.send(ProgressEvent{ID: id, Status: statusVerify})
			}
		})
		if err != nil && ctx.Err() == nil {
			err = a.renew(d, err)
			if errors.Is(err, errAgain) {
				continue
			}
		}
		if err != nil {
			return err
		}
		if !shown { // faster than could be followed
			show(a.desc.Size)
		}
		progress.send(ProgressEvent{ID: id, Status: statusVerify})
		progress.send(ProgressEvent{ID: id, Status: statusFetched})
		close(a.whole)
		return nil
	}
}

// renew begins a download anew that another pull had begun, and that failed
// perhaps for the other's reasons. It returns errAgain when there is a new one,
// or the cause.
func (a *arrival) renew(failed *download, cause error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.d != failed {
		return errAgain
	}
	if a.own {
		if cerrdefs.IsNotFound(cause) {
			return errIncomplete
		}
		return cause
	}
	d, own, err := a.s.downloads.join(a.desc, a.source, a.slots)
	if err != nil {
		return err
	}
	failed.leave()
	a.d, a.own = d, own
	return errAgain
}

// open implements blob.
func (a *arrival) open(ctx context.Context) (io.ReadCloser, error) {
	a.mu.Lock()
	d := a.d
	if d == nil {
		a.mu.Unlock()
		return a.s.blob(a.desc)(ctx)
	}
	r := d.reader(ctx)
	a.round = r.round
	a.mu.Unlock()
	return io.NopCloser(r), nil
}

// explain finds out whether a layer could not be unpacked because it did not
// arrive, or not whole.
func (a *arrival) explain(ctx context.Context, err error) error {
	a.mu.Lock()
	d, round := a.d, a.round
	a.mu.Unlock()
	if d == nil || ctx.Err() != nil || isDiskFull(err) || errors.Is(err, errAgain) {
		return err
	}
	verdict := d.follow(ctx, func(stand) {})
	if verdict != nil && ctx.Err() == nil {
		if verdict = a.renew(d, verdict); !errors.Is(verdict, errAgain) {
			verdict = fmt.Errorf("layer %s: %w", a.desc.Digest, verdict)
		}
	}
	switch {
	case verdict != nil:
		return verdict
	case d.begun() != round:
		return errAgain
	}
	return err
}

// begun is how often the download was begun anew.
func (d *download) begun() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.round
}

// keep makes the blob the store's.
func (a *arrival) keep() error {
	d := a.current()
	if d == nil {
		return nil
	}
	<-d.ended
	if d.synced != nil {
		return d.synced
	}
	return a.s.adopt(d.path, d.desc.Digest)
}

// adopt moves a file whose content is verified and on the disk to its place
// among the blobs. It may be there already, by another pull of the same.
func (s *Store) adopt(path string, dgst digest.Digest) error {
	blob := s.blobPath(dgst)
	if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
		return err
	}
	err := os.Chmod(path, 0o444)
	if err == nil {
		err = os.Rename(path, blob)
	}
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(blob)
		return err
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(blob))
}
