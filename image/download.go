package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// chunkSize is what one request of a parallel download asks for. A layer that is
// not longer is one request.
const chunkSize = 16 << 20

// patience is how often in a row a transfer may break without having brought
// anything before it is given up.
const patience = 8

// keepPartial is how long the beginning of a blob is kept for a pull that may
// come to finish it.
const keepPartial = 24 * time.Hour

// downloads are the blobs on their way, each once, whoever waits for it: see
// [Store.download]. What is on its way lies in the directory "downloads" under
// the blob's digest, and stays there when the transfer breaks or the engine
// dies: the next pull goes on with it. The file itself says what it has: where
// nothing was written yet it has holes.
type downloads struct {
	dir string

	mu  sync.Mutex
	now map[digest.Digest]*download
}

// download is one blob on its way.
type download struct {
	desc  ocispec.Descriptor
	owner *downloads
	path  string
	file  *os.File

	users   int  // guarded by owner.mu
	useless bool // what is there is not kept; guarded by owner.mu
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the transfer has ended
	closed  chan struct{} // closed when the last user has left
	synced  error         // of writing it to the disk; valid once ended

	mu      sync.Mutex
	changed *sync.Cond
	// missing are the parts still to come, in order; those being fetched are at
	// its front.
	missing []*part
	// round counts how often it was begun anew because the content was wrong.
	round int
	// got is how many bytes are there.
	got int64
	// queued: it waits for a connection; arrived: all is there; verified: and it
	// is what its digest says.
	queued, arrived, verified, ranges bool
	err                               error
}

// part is a range of a blob that is missing: pos moves towards end.
type part struct {
	pos, end int64
	taken    bool
}

// source is where a blob can be had.
type source interface {
	// get asks for a blob from an offset on up to end, which may be the blob's
	// own. An answer that is not ranged begins at the blob's beginning.
	get(ctx context.Context, desc ocispec.Descriptor, from, end int64) (body io.ReadCloser, ranged bool, err error)
}

func newDownloads(root string) *downloads {
	return &downloads{dir: filepath.Join(root, "downloads"), now: map[digest.Digest]*download{}}
}

// join begins the download of a blob, or takes part in the one that runs; own
// says which. The caller leaves it. slots bounds the connections.
func (ds *downloads) join(desc ocispec.Descriptor, from source, slots *semaphore.Weighted) (d *download, own bool, err error) {
	for {
		ds.mu.Lock()
		d := ds.now[desc.Digest]
		if d == nil {
			d, err := ds.begin(desc, from, slots)
			ds.mu.Unlock()
			return d, true, err
		}
		if d.users > 0 {
			d.users++
			ds.mu.Unlock()
			return d, false, nil
		}
		ds.mu.Unlock()
		<-d.closed // its last user is leaving; the file is ours after that
	}
}

func (ds *downloads) begin(desc ocispec.Descriptor, from source, slots *semaphore.Weighted) (*download, error) {
	path := filepath.Join(ds.dir, desc.Digest.Algorithm().String()+"-"+desc.Digest.Encoded())
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(quiet(context.Background()))
	d := &download{
		desc: desc, owner: ds, path: path, file: f, users: 1, cancel: cancel, ranges: true,
		ended: make(chan struct{}), closed: make(chan struct{}),
	}
	d.changed = sync.NewCond(&d.mu)
	if d.missing, err = holes(f, desc.Size); err != nil {
		cancel()
		return nil, errors.Join(err, f.Close())
	}
	d.got = desc.Size - d.lacks()
	ds.now[desc.Digest] = d
	d.queued = !slots.TryAcquire(1)
	go d.run(ctx, from, slots)
	return d, nil
}

// leave gives up a user's part. The last one ends the transfer; what is there of
// it stays for the next.
func (d *download) leave() {
	d.owner.mu.Lock()
	d.users--
	last := d.users == 0
	d.owner.mu.Unlock()
	if !last {
		return
	}
	d.cancel()
	<-d.ended
	d.file.Close()
	d.owner.forget(d)
	close(d.closed)
}

// discard has what is there removed at the end: on a full disk it takes room that
// the next attempt needs.
func (d *download) discard() {
	d.owner.mu.Lock()
	defer d.owner.mu.Unlock()
	d.useless = true
}

// forget takes a download that is over off the list.
func (ds *downloads) forget(d *download) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.now[d.desc.Digest] != d {
		return // another has begun
	}
	delete(ds.now, d.desc.Digest)
	if d.useless {
		_ = os.Remove(d.path) // the store may have it
	}
}

// run fetches, verifies, and begins once more when what came was wrong.
func (d *download) run(ctx context.Context, from source, slots *semaphore.Weighted) {
	defer close(d.ended)
	err := d.queue(ctx, slots)
	if err == nil {
		err = d.attempt(ctx, from, slots)
		if errors.Is(err, errWrongContent) {
			// What was on the disk may be to blame, or the way here: once more.
			if err = d.again(); err == nil {
				err = d.attempt(ctx, from, slots)
			}
		}
		slots.Release(1)
	}
	if errors.Is(err, errWrongContent) || isDiskFull(err) {
		// Nobody can go on with it.
		if rerr := os.Remove(d.path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	if err != nil {
		d.owner.forget(d) // who comes now tries anew
	}
	d.mu.Lock()
	d.err, d.verified = err, err == nil
	d.changed.Broadcast()
	d.mu.Unlock()
	if err == nil {
		d.synced = d.file.Sync()
	}
}

// queue waits for a connection unless begin has got one.
func (d *download) queue(ctx context.Context, slots *semaphore.Weighted) error {
	d.mu.Lock()
	queued := d.queued
	d.mu.Unlock()
	if !queued {
		return nil
	}
	err := slots.Acquire(ctx, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queued = false
	d.changed.Broadcast()
	return err
}

// attempt fetches what is missing and hashes it on the way.
func (d *download) attempt(ctx context.Context, from source, slots *semaphore.Weighted) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hashed := make(chan error, 1)
	go func() { hashed <- d.verify(ctx) }()
	err := d.fetch(ctx, from, slots)
	if err != nil {
		cancel()
	}
	return errors.Join(err, ignoreCancelled(<-hashed, err))
}

// ignoreCancelled drops the error of who was stopped because of another one.
func ignoreCancelled(err, because error) error {
	if because != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errWrongContent: what came is not what the digest says.
var errWrongContent = errdefs.WithHint(
	errdefs.As(errdefs.ErrInvalid, errors.New("what the registry sent is not what its digest says")),
	"pull again; if it stays so, the registry or a proxy before it has a damaged copy")

// verify hashes the blob while it arrives.
func (d *download) verify(ctx context.Context) error {
	verifier := d.desc.Digest.Verifier()
	r := d.reader(ctx)
	if _, err := io.CopyBuffer(struct{ io.Writer }{verifier}, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return errWrongContent
	}
	return nil
}

// again empties the file.
func (d *download) again() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	d.missing, d.got, d.arrived = []*part{{end: d.desc.Size}}, 0, false
	d.round++
	d.changed.Broadcast()
	return nil
}

// fetch brings in the missing parts: one connection at first, further ones for
// a long blob when the registry has answered a range and slots are free.
func (d *download) fetch(ctx context.Context, from source, slots *semaphore.Weighted) error {
	d.split()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	var more func()
	work := func(own bool) {
		if !own {
			defer slots.Release(1)
		}
		for {
			p := d.take()
			if p == nil {
				return
			}
			if err := d.part(ctx, from, p, more); err != nil {
				cancel(err)
				return
			}
		}
	}
	more = func() {
		for d.waiting() && slots.TryAcquire(1) {
			workers.Go(func() { work(false) })
		}
	}
	workers.Go(func() { work(true) })
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arrived = true
	d.changed.Broadcast()
	return nil
}

// split makes chunks of long missing parts.
func (d *download) split() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var chunks []*part
	for _, p := range d.missing {
		for p.end-p.pos > chunkSize+chunkSize/2 {
			chunks = append(chunks, &part{pos: p.pos, end: p.pos + chunkSize})
			p.pos += chunkSize
		}
		chunks = append(chunks, p)
	}
	d.missing = chunks
}

// take gives a worker the next part, nil when there is none.
func (d *download) take() *part {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.missing {
		if !p.taken {
			p.taken = true
			return p
		}
	}
	return nil
}

// waiting tells whether another worker would find something to do.
func (d *download) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ranges && slices.ContainsFunc(d.missing, func(p *part) bool { return !p.taken })
}

// part fetches one part, however often its connection breaks. more is called
// when the registry has shown that it does ranges.
func (d *download) part(ctx context.Context, from source, p *part, more func()) error {
	for failures := 0; ; {
		before := p.pos
		err := d.stream(ctx, from, p, more)
		if err == nil {
			return nil
		}
		if p.pos > before {
			failures = 0
		}
		failures++
		if failures > patience || ctx.Err() != nil || final(err) {
			return err
		}
		if err := pause(ctx, failures); err != nil {
			return err
		}
	}
}

// stream reads one answer into the file.
func (d *download) stream(ctx context.Context, from source, p *part, more func()) error {
	body, ranged, err := from.get(ctx, d.desc, p.pos, p.end)
	if err != nil {
		return err
	}
	defer body.Close()
	switch {
	case ranged:
		more()
	default:
		d.alone(p)
		if _, err := io.CopyN(io.Discard, body, p.pos); err != nil {
			return unexpectedEnd(err)
		}
	}
	buf := make([]byte, 128<<10)
	for p.pos < p.end {
		n, err := body.Read(buf[:min(int64(len(buf)), p.end-p.pos)])
		if n > 0 {
			if _, werr := d.file.WriteAt(buf[:n], p.pos); werr != nil {
				return werr
			}
			d.advance(p, int64(n))
		}
		if err != nil && p.pos < p.end {
			return unexpectedEnd(err)
		}
	}
	// Sent to the disk now, it need not be waited for at the end.
	_ = unix.SyncFileRange(int(d.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	if !ranged && p.end == d.desc.Size {
		return d.tooLong(body)
	}
	return nil
}

// tooLong tells whether more comes than the blob has.
func (d *download) tooLong(body io.Reader) error {
	var b [1]byte
	if n, _ := io.ReadFull(body, b[:]); n > 0 {
		return errWrongContent
	}
	return nil
}

// unexpectedEnd is the error of an answer that ended early.
func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// alone gives all that is missing to p, the first part: the registry knows no
// ranges, and all of the blob comes.
func (d *download) alone(p *part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ranges = false
	if len(d.missing) == 0 || d.missing[0] != p || slices.ContainsFunc(d.missing[1:], func(o *part) bool { return o.taken }) {
		return // it did before; each part then reads up to its own place
	}
	p.end = d.desc.Size
	d.missing = d.missing[:1]
	d.got = d.desc.Size - d.lacks()
}

// lacks is how many bytes are still missing.
func (d *download) lacks() (n int64) {
	for _, p := range d.missing {
		n += p.end - p.pos
	}
	return n
}

// advance notes that n bytes of a part have come.
func (d *download) advance(p *part, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p.pos += n
	d.got += n
	if p.pos == p.end {
		d.missing = slices.DeleteFunc(d.missing, func(o *part) bool { return o == p })
	}
	d.changed.Broadcast()
}

// there is up to where the blob is there without a gap.
func (d *download) there() int64 {
	if len(d.missing) == 0 {
		return d.desc.Size
	}
	return d.missing[0].pos
}

// downloadReader reads a blob while it arrives.
type downloadReader struct {
	d     *download
	ctx   context.Context
	round int
	pos   int64
}

// errAgain: the download was begun anew; what was read is void.
var errAgain = errors.New("the download has begun anew")

// reader reads the blob from its beginning; it waits for what has not come.
func (d *download) reader(ctx context.Context) *downloadReader {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &downloadReader{d: d, ctx: ctx, round: d.round}
}

// Read implements [io.Reader].
func (r *downloadReader) Read(p []byte) (int, error) {
	there, err := r.wait()
	if err != nil {
		return 0, err
	}
	if r.pos == r.d.desc.Size {
		return 0, io.EOF
	}
	n, err := r.d.file.ReadAt(p[:min(int64(len(p)), there-r.pos)], r.pos)
	r.pos += int64(n)
	return n, err
}

// wait returns when there is something to read, or nothing more to come.
func (r *downloadReader) wait() (there int64, err error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	stop := func() bool { return true }
	for {
		there := d.there()
		switch {
		case r.ctx.Err() != nil:
			err = context.Cause(r.ctx)
		case d.round != r.round:
			err = errAgain
		case there > r.pos || r.pos == d.desc.Size:
			stop()
			return there, nil
		case d.err != nil:
			err = d.err
		}
		if err != nil {
			stop()
			return 0, err
		}
		if there == r.pos {
			stop()
			stop = context.AfterFunc(r.ctx, func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.changed.Broadcast()
			})
			d.changed.Wait()
		}
	}
}

// stand is how far a download is.
type stand struct {
	got             int64
	queued, arrived bool
}

// follow tells report how far it is, until the download has ended or ctx
// is done, and returns how it ended.
func (d *download) follow(ctx context.Context, report func(stand)) error {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.err != nil:
			return d.err
		case d.verified:
			return nil
		}
		at := stand{d.got, d.queued, d.arrived}
		d.mu.Unlock()
		report(at)
		d.mu.Lock()
		if at == (stand{d.got, d.queued, d.arrived}) && d.err == nil && !d.verified && ctx.Err() == nil {
			d.changed.Wait()
		}
	}
}

// holes lists what a file lacks of size bytes: what the file system says was
// never written, and the last block before that, which may be filled up with
// zeros behind what was. A file system that cannot tell has it all or nothing:
// the digest will show.
func holes(f *os.File, size int64) ([]*part, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Size > size {
		return []*part{{end: size}}, f.Truncate(0)
	}
	var missing []*part
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil { // ENXIO: there is none from here on
			return append(missing, &part{pos: at, end: size}), nil
		}
		if data > at {
			missing = append(missing, &part{pos: at, end: data})
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return append(missing, &part{pos: data, end: size}), nil
		}
		if hole >= size {
			break
		}
		at = max(data, (hole-1)/int64(st.Blksize)*int64(st.Blksize))
		if next, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA); err == nil {
			missing = append(missing, &part{pos: at, end: next})
			at = next
			continue
		}
		return append(missing, &part{pos: at, end: size}), nil
	}
	return missing, nil
}

// sweep removes the files of downloads nobody takes part in: those old enough,
// or all of them.
func (ds *downloads) sweep(all bool) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	entries, err := os.ReadDir(ds.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(ds.dir, e.Name())
		if ds.used(path) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if all || time.Since(info.ModTime()) > keepPartial {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (ds *downloads) used(path string) bool {
	for _, d := range ds.now {
		if d.path == path {
			return true
		}
	}
	return false
}
