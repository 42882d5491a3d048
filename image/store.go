package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/quota"
)

// upperdirLabel is where the overlay snapshotter says a snapshot's directory is.
const upperdirLabel = "containerd.io/snapshot/overlay.upperdir"

// Defaults of Options. Three downloads at once is Docker's number too.
const (
	defaultDownloads = 3
	defaultStall     = time.Minute
)

// Options say where a store lives and whom it trusts.
type Options struct {
	// Root is the store's directory, made with mode 0700 when missing. It must
	// be on a file system overlayfs accepts as upper directory.
	Root string
	// InsecureRegistries are registries that may be spoken to by plain HTTP or
	// with a certificate nobody vouches for: "host", "host:port", or a CIDR.
	// Loopback registries always are.
	InsecureRegistries []string
	// RegistryDirs are searched in this order for a registry's directory, with
	// its hosts.toml or certificates; the first that has one speaks alone.
	RegistryDirs []string
	// StallTimeout is how long a registry may send nothing before the connection
	// is given up and the transfer resumed on another; zero means a minute.
	StallTimeout time.Duration
	// MaxDownloads is how many blobs one Pull fetches at once; zero means 3.
	MaxDownloads int
	// MaxLayerSize bounds what a layer may unpack to, in bytes; zero means
	// 100 GiB. A larger one is an errdefs.ErrInvalid.
	MaxLayerSize int64
	// MaxLayerFiles bounds how many files a layer may have; zero means 4 million.
	MaxLayerFiles int64
	// Snapshotter is how layers are kept and stacked: overlayfs, erofs or native.
	// "" means the one the store was made with, else overlayfs, else, where that
	// does not work, native. See [Store.Snapshotter].
	Snapshotter string
	// Users tells who uses an image; Remove and Prune ask it, and hold no lock
	// meanwhile. Nil means nobody.
	Users func(id digest.Digest) []User
	// Log receives what has no caller to return it to (background deletion,
	// records dropped by Open). Nil means slog.Default().
	Log *slog.Logger
}

// User is a container that was made from an image.
type User struct {
	ContainerID string
	// Running includes paused: such a container's image is never removed.
	Running bool
}

// Store is an open image store. Its methods may be called concurrently.
type Store struct {
	root string
	opts Options
	log  *slog.Logger
	lock *os.File

	blobs  content.Store
	layers snapshots.Snapshotter

	insecureRegistries atomic.Pointer[[]string]

	catalogue *catalogue
	journal   *journal
	janitor   *janitor
	busy      keyedLocks
	downloads *downloads
	// extracting bounds how many layers are extracted at once.
	extracting *semaphore.Weighted

	// held protects what the collector must see as one: the pins of running
	// operations, the containers, and the sweep itself.
	held       sync.Mutex
	pins       map[string]int
	containers map[string]snapshotRecord
	lowers     map[digest.Digest][]string
	mounted    map[string]mountedLayer // layers that are seen through a mount
	sessions   int

	snap     snapshotter // settled by Open
	snapName string
	quota    *quota.FS // nil: noQuota says why there are none
	noQuota  error
}

// layersAtOnce is how many layers are extracted at once: twice as many as there are
// processors. The layers of an image seldom end together, and the last one alone
// keeps no more than two processors busy.
func layersAtOnce() int64 { return 2 * int64(runtime.GOMAXPROCS(0)) }

// Open opens the store below opts.Root, making it when it is missing. It
// removes what a killed process left half done and unpacks again layers that a
// power loss may have damaged. The error is an errdefs.ErrConflict when another
// process has the store open.
func Open(ctx context.Context, opts Options) (_ *Store, err error) {
	if opts.Root == "" {
		return nil, fmt.Errorf("open image store: no root given: %w", errdefs.ErrInvalid)
	}
	root, err := filepath.Abs(opts.Root)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if opts.MaxDownloads <= 0 {
		opts.MaxDownloads = defaultDownloads
	}
	if opts.StallTimeout <= 0 {
		opts.StallTimeout = defaultStall
	}
	if opts.MaxLayerSize <= 0 {
		opts.MaxLayerSize = defaultLayerSize
	}
	if opts.MaxLayerFiles <= 0 {
		opts.MaxLayerFiles = defaultLayerFiles
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	s := &Store{
		root: root, opts: opts, log: opts.Log,
		pins: map[string]int{}, mounted: map[string]mountedLayer{}, containers: map[string]snapshotRecord{}, lowers: map[digest.Digest][]string{},
	}
	s.SetInsecureRegistries(opts.InsecureRegistries)
	defer func() {
		if err != nil {
			err = fmt.Errorf("open image store %s: %w", root, errors.Join(err, s.Close()))
		}
	}()
	if err := s.openParts(); err != nil {
		return nil, err
	}
	return s, s.recover(quiet(ctx))
}

func (s *Store) openParts() (err error) {
	for _, dir := range []string{"", "content/ingest", "layers", "containers", "trash", "empty", "mnt", "probe", "downloads"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o700); err != nil {
			return err
		}
	}
	if s.lock, err = lockFile(filepath.Join(s.root, "lock")); err != nil {
		return err
	}
	// What containerd logs without a context (a probe for fs-verity that most
	// file systems fail) goes through a global logger, to standard error.
	log.L.Logger.SetOutput(io.Discard)
	if s.blobs, err = local.NewStore(filepath.Join(s.root, "content")); err != nil {
		return err
	}
	s.layers, err = overlay.NewSnapshotter(filepath.Join(s.root, "layers"),
		overlay.AsynchronousRemove, overlay.WithUpperdirLabel)
	if err != nil {
		return err
	}
	if err := s.initLayers(quiet(context.Background())); err != nil {
		return err
	}
	s.janitor = newJanitor(s.root, s.layers, s.log)
	s.journal = newJournal(s.root, s.janitor)
	s.downloads = newDownloads(s.root)
	s.extracting = semaphore.NewWeighted(layersAtOnce())
	if err := s.chooseSnapshotter(quiet(context.Background())); err != nil {
		return err
	}
	s.openQuota()
	s.catalogue, err = openCatalogue(filepath.Join(s.root, "images.json"))
	return err
}

// recover brings the store from whatever a crash left to a state where every
// image record has its blobs and layers, and nothing else is there.
func (s *Store) recover(ctx context.Context) error {
	if err := s.loadContainers(); err != nil {
		return err
	}
	if err := s.abortIngests(ctx); err != nil {
		return err
	}
	suspects, err := s.journal.suspects()
	if err != nil {
		return err
	}
	if err := s.dropLayers(ctx, suspects); err != nil {
		return err
	}
	if err := s.verifyImages(ctx); err != nil {
		return err
	}
	s.journal.settle()
	return s.collect(ctx)
}

// initLayers gives the snapshotter's database its buckets: without them, the
// first time, it cannot even list that it is empty.
func (s *Store) initLayers(ctx context.Context) error {
	err := s.layers.Walk(ctx, func(context.Context, snapshots.Info) error { return nil })
	if !cerrdefs.IsNotFound(err) {
		return err
	}
	if _, err := s.layers.Prepare(ctx, "init", ""); err != nil {
		return err
	}
	return s.layers.Remove(ctx, "init")
}

// Close waits for the deletion in hand, leaves the rest of the trash to the
// next Open, and gives the store up. Mounts made from it go on working.
func (s *Store) Close() error {
	var errs []error
	if s.janitor != nil {
		s.janitor.close()
	}
	for name := range s.mounted {
		errs = append(errs, s.unmountLayer(name))
	}
	if s.layers != nil {
		errs = append(errs, s.layers.Close())
	}
	if s.quota != nil {
		errs = append(errs, s.quota.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// lockFile takes the lock that says which process owns the store. It is
// released by closing the file, at the latest when the process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errdefs.WithHint(
				errdefs.As(errdefs.ErrConflict, errors.New("another process has it open")),
				"stop the other engine, or give this one a root of its own")
		}
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// quiet keeps containerd's own log lines, written through a global logrus
// logger, out of the engine's: what they say reaches the caller as errors.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}
