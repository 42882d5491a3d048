package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	cfs "github.com/containerd/continuity/fs"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/kernel/quota"
)

// Options says where a store is.
type Options struct {
	// Root is its directory, made when it is not there. Required.
	Root string
	// Log takes what is found broken. Zero: discard.
	Log *slog.Logger
}

// Store holds the volumes of one root. Make one with [Open]. Its methods may be
// called from any goroutine.
type Store struct {
	root string
	log  *slog.Logger
	// quota limits volumes; nil: noQuota says why that cannot be.
	quota   *quota.FS
	noQuota error

	mu   sync.Mutex
	byID map[string]*entry // by name

	// sweeping waits for the deletion of what an earlier store had begun to remove.
	sweeping sync.WaitGroup
}

// entry is a volume with who uses it.
type entry struct {
	Volume
	// holders are the containers that have it among their mounts.
	holders map[string]bool

	// mount is held while the volume is mounted, unmounted or filled.
	mount sync.Mutex
	// users are the holders that run: while there are any it is mounted.
	// Guarded by mount.
	users map[string]bool
	// removed: the entry is no longer in the store. Guarded by mount.
	removed bool
}

// Open opens the store at opt.Root and removes what was being made or removed
// when the last one ended.
func Open(opt Options) (*Store, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{root: opt.Root, log: opt.Log, byID: map[string]*entry{}}
	if err := os.MkdirAll(s.root, 0o711); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	s.quota, s.noQuota = quota.Open(s.root)
	list, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	for _, e := range list {
		dir := filepath.Join(s.root, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			s.sweeping.Go(func() { s.sweep(dir) })
			continue
		}
		v, err := load(dir)
		if err != nil {
			// Its files may be somebody's data: they stay, and the name is taken.
			s.log.Error("volume whose record cannot be read", "path", dir, "err", err)
			continue
		}
		s.byID[v.Name] = newEntry(v)
	}
	return s, nil
}

func newEntry(v *Volume) *entry {
	return &entry{Volume: *v, holders: map[string]bool{}, users: map[string]bool{}}
}

func (s *Store) sweep(dir string) {
	if err := errors.Join(s.releaseQuota(dir), os.RemoveAll(dir)); err != nil {
		s.log.Error("remove what is left of a volume", "path", dir, "err", err)
	}
}

// Close waits for what the store does in the background. Mounted volumes stay
// mounted: containers use them.
func (s *Store) Close() error {
	s.sweeping.Wait()
	if s.quota != nil {
		return s.quota.Close()
	}
	return nil
}

// CreateOptions says what a volume is.
type CreateOptions struct {
	// Name is its name; see [CheckName]. Required.
	Name string
	// Driver must be empty or local.
	Driver string
	// Options are those of Docker's local driver: type, device and o are what
	// mount(8) calls -t, the device and -o. Without them the volume is a plain
	// directory, and size limits what its files may take.
	Options map[string]string
	Labels  map[string]string
}

// Create makes a volume, or returns the one there is. Options that differ from
// those it has are an ErrConflict; labels of one that exists stay as they are.
func (s *Store) Create(ctx context.Context, opt CreateOptions) (Volume, bool, error) {
	return s.create(ctx, opt, "")
}

// Hold is Create for a container, which holds the volume from then on: it
// cannot be removed until [Store.Release].
func (s *Store) Hold(ctx context.Context, opt CreateOptions, holder string) (Volume, bool, error) {
	return s.create(ctx, opt, holder)
}

func (s *Store) create(ctx context.Context, opt CreateOptions, holder string) (_ Volume, made bool, err error) {
	if err := check(&opt); err != nil {
		return Volume{}, false, err
	}
	if err := ctx.Err(); err != nil {
		return Volume{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byID[opt.Name]
	if e == nil {
		v := &Volume{
			Name: opt.Name, Created: time.Now().UTC(), Labels: maps.Clone(opt.Labels), Options: maps.Clone(opt.Options),
			Path: filepath.Join(s.root, opt.Name, dataDir),
		}
		if err := s.make(v); err != nil {
			return Volume{}, false, fmt.Errorf("create volume %s: %w", opt.Name, err)
		}
		fault.Here(fault.VolumeRenamed)
		e, made = newEntry(v), true
		s.byID[opt.Name] = e
	} else if len(opt.Options) > 0 && !maps.Equal(opt.Options, e.Options) {
		err := errdefs.As(errdefs.ErrConflict, fmt.Errorf("create volume %s: it exists with other options", opt.Name))
		return Volume{}, false, errdefs.WithHint(err, "remove it first, choose another name, or leave the options out")
	}
	if holder != "" {
		e.holders[holder] = true
	}
	return e.Volume, made, nil
}

// Adopt notes that a container holds a volume, as its record says. A volume
// that is gone is an ErrNotFound.
func (s *Store) Adopt(name, holder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byID[name]
	if e == nil {
		return errNotFound(name)
	}
	e.holders[holder] = true
	return nil
}

// Release ends a hold. What is not held, or not there, is fine.
func (s *Store) Release(name, holder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[name]; e != nil {
		delete(e.holders, holder)
	}
}

// Get describes a volume.
func (s *Store) Get(name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byID[name]
	if e == nil {
		return Volume{}, errNotFound(name)
	}
	return e.Volume, nil
}

// List describes all volumes, by name.
func (s *Store) List() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Volume, 0, len(s.byID))
	for _, e := range s.byID {
		list = append(list, e.Volume)
	}
	slices.SortFunc(list, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Holders are the containers that hold a volume, sorted.
func (s *Store) Holders(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[name]; e != nil {
		return slices.Sorted(maps.Keys(e.holders))
	}
	return nil
}

// InUseError: containers hold the volume. It is an ErrConflict.
type InUseError struct {
	Name    string
	Holders []string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("remove %s: volume is in use - [%s]", e.Name, strings.Join(e.Holders, ", "))
}

// Unwrap gives the class.
func (e *InUseError) Unwrap() error { return errdefs.ErrConflict }

// Remove removes a volume that nobody holds, with all that is in it; else the
// error is an *[InUseError]. The name is free on return, also when ctx ends
// before all files are deleted: the next Open deletes the rest.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	e := s.byID[name]
	if e == nil {
		s.mu.Unlock()
		return errNotFound(name)
	}
	if len(e.holders) > 0 {
		s.mu.Unlock()
		return &InUseError{Name: name, Holders: slices.Sorted(maps.Keys(e.holders))}
	}
	doomed, err := s.doom(e)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := os.RemoveAll(doomed); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// doom takes a volume out of the store. The caller holds s.mu, and nobody holds
// the volume, so nobody is at work on its mount.
func (s *Store) doom(e *entry) (string, error) {
	e.mount.Lock()
	defer e.mount.Unlock()
	// Never delete through a mount: that would be somebody's files.
	if err := unmount(e.Path); err != nil {
		return "", err
	}
	// The limit goes first: it would be nobody's once the directory is gone.
	if err := s.releaseQuota(s.dir(e.Name)); err != nil {
		return "", err
	}
	doomed := filepath.Join(s.root, ".removed-"+e.Name)
	err := os.Rename(filepath.Join(s.root, e.Name), doomed)
	if errors.Is(err, fs.ErrExist) { // a volume of this name is still being deleted
		doomed, err = os.MkdirTemp(s.root, ".removed-")
		if err == nil {
			err = os.Rename(filepath.Join(s.root, e.Name), doomed)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone by another hand: so be it
		return "", err
	}
	fault.Here(fault.VolumeDoomed)
	e.removed = true
	delete(s.byID, e.Name)
	return doomed, nil
}

// Usage is what a volume's files take on disk, in bytes. Of one that is a
// mounted file system it is -1, as with Docker: its size is not ours to tell.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	v, err := s.Get(name)
	if err != nil {
		return 0, err
	}
	if v.mounts() {
		return -1, nil
	}
	u, err := cfs.DiskUsage(ctx, v.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errNotFound(name)
	}
	if err != nil {
		return 0, fmt.Errorf("usage of volume %s: %w", name, err)
	}
	return u.Size, nil
}
