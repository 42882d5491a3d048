package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	cfs "github.com/containerd/continuity/fs"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// snapshotAttribute holds a container directory's record. An extended attribute
// is written with the directory's inode in one journal transaction, so it is
// there whenever the directory is, also after a power loss and without fsync.
const snapshotAttribute = "trusted.berth.snapshot"

// snapshotKey is what a key may look like: it names a directory.
var snapshotKey = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// snapshotRecord says what a container's directory stands on.
type snapshotRecord struct {
	// Image is the image it was made from, for people; the image may be gone.
	Image digest.Digest `json:"image"`
	// Chain names the layers, "" for an image without any.
	Chain digest.Digest `json:"chain"`
	// Volatile: the data need not survive the host.
	Volatile bool `json:"volatile,omitempty"`
	// Size limits the bytes its files may take, 0 does not.
	Size int64 `json:"size,omitempty"`
}

// PrepareOptions say what a container's directory is like. The zero value is one
// that survives the host and may take all there is.
type PrepareOptions struct {
	// Volatile is for a container whose files are thrown away with it (`run --rm`):
	// overlayfs neither honours fsync in it nor writes the file system back when it
	// is unmounted (see [Store.MountDetached]), which on a busy disk is most of the
	// time that ending a container takes. After a power loss its content is undefined.
	Volatile bool
	// Size limits the bytes its files take on disk; see [Store.QuotaProblem].
	Size int64
}

// Prepare makes the writable directory key on top of the image's layers. It
// does not mount it; see [Store.MountDetached]. The layers stay for as long as
// the key does, even when the image is removed. Errors: errdefs.ErrConflict when
// the key exists, ErrNotFound when the image is gone, ErrInvalid for a key that
// is not a plain name.
func (s *Store) Prepare(ctx context.Context, key string, img *Image) error {
	return s.PrepareWith(ctx, key, img, PrepareOptions{})
}

// PrepareVolatile is Prepare with the option Volatile.
func (s *Store) PrepareVolatile(ctx context.Context, key string, img *Image) error {
	return s.PrepareWith(ctx, key, img, PrepareOptions{Volatile: true})
}

// PrepareWith is Prepare with options. A Size that cannot be had is an
// errdefs.ErrUnsupported.
func (s *Store) PrepareWith(ctx context.Context, key string, img *Image, opt PrepareOptions) error {
	return s.prepare(ctx, key, snapshotRecord{Image: img.ID, Chain: img.ChainID, Volatile: opt.Volatile, Size: opt.Size})
}

func (s *Store) prepare(ctx context.Context, key string, rec snapshotRecord) (err error) {
	defer func() {
		if err != nil {
			err = s.explain(fmt.Errorf("prepare snapshot %s: %w", key, err))
		}
	}()
	if !snapshotKey.MatchString(key) {
		return errdefs.As(errdefs.ErrInvalid, errors.New("not a plain name"))
	}
	lower, err := s.reserve(ctx, key, rec.Chain)
	if err != nil {
		return err
	}
	// Filling the directory may take long: no lock is held, the layers are pinned.
	err = s.makeSnapshot(key, rec, func(upper string) error {
		return s.snap.prepare(ctx, snapshotMount{lower: lower, upper: upper})
	})
	s.held.Lock()
	defer s.held.Unlock()
	s.unpinLocked(rec.Chain.String())
	if err == nil {
		s.containers[key] = rec
	}
	return err
}

// reserve checks that the key is free and pins the layers, which it returns.
func (s *Store) reserve(ctx context.Context, key string, chain digest.Digest) ([]string, error) {
	s.held.Lock()
	defer s.held.Unlock()
	if _, ok := s.containers[key]; ok {
		return nil, errdefs.As(errdefs.ErrConflict, errors.New("it exists"))
	}
	lower, err := s.lowerDirsLocked(ctx, chain)
	if err == nil {
		s.pins[chain.String()]++
	}
	return lower, err
}

// makeSnapshot makes the directory under a temporary name and renames it: it
// appears with everything in it or not at all.
func (s *Store) makeSnapshot(key string, rec snapshotRecord, fill func(upper string) error) (err error) {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	tmp := s.containerDir("." + key + ".new")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = errdefs.As(errdefs.ErrConflict, errors.New("it is being made"))
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.releaseQuota(tmp), os.RemoveAll(tmp))
		}
	}()
	// Before anything is in it: what is made there is of its project from the start.
	if err := s.claimQuota(tmp, rec.Size); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(tmp, "work"), 0o700); err != nil {
		return err
	}
	// The upper directory's mode is that of the container's root directory.
	upper := filepath.Join(tmp, "upper")
	if err := os.Mkdir(upper, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(upper, 0o755); err != nil { // whatever the umask
		return err
	}
	if err := fill(upper); err != nil {
		return err
	}
	if err := unix.Setxattr(tmp, snapshotAttribute, b, 0); err != nil {
		return &os.PathError{Op: "setxattr", Path: tmp, Err: err}
	}
	fault.Here(fault.SnapshotMade)
	err = os.Rename(tmp, s.containerDir(key))
	fault.Here(fault.SnapshotRenamed)
	return err
}

// RemoveSnapshot removes the key at once and its files in the background.
// Removing what is not there is no error.
func (s *Store) RemoveSnapshot(_ context.Context, key string) error {
	s.held.Lock()
	defer s.held.Unlock()
	if _, ok := s.containers[key]; !ok {
		return nil
	}
	// The limit goes first: it would be nobody's once the directory is gone.
	err := s.releaseQuota(s.containerDir(key))
	if err == nil {
		err = s.janitor.discard(s.containerDir(key))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	delete(s.containers, key)
	return nil
}

// Snapshots lists the keys there are, for the engine to reconcile with its own
// records, with the ID of the image each was made from.
func (s *Store) Snapshots() map[string]digest.Digest {
	s.held.Lock()
	defer s.held.Unlock()
	keys := make(map[string]digest.Digest, len(s.containers))
	for key, rec := range s.containers {
		keys[key] = rec.Image
	}
	return keys
}

// Usage is what the key's own files take on disk, in bytes, and how many they
// are. It walks them.
func (s *Store) Usage(ctx context.Context, key string) (size, inodes int64, err error) {
	if _, err := s.snapshot(key); err != nil {
		return 0, 0, err
	}
	u, err := cfs.DiskUsage(ctx, s.upperDir(key))
	if err != nil {
		return 0, 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return u.Size, u.Inodes, nil
}

func (s *Store) snapshot(key string) (snapshotRecord, error) {
	s.held.Lock()
	defer s.held.Unlock()
	rec, ok := s.containers[key]
	if !ok {
		return rec, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such snapshot: %s", key))
	}
	return rec, nil
}

func (s *Store) upperDir(key string) string { return filepath.Join(s.containerDir(key), "upper") }
func (s *Store) workDir(key string) string  { return filepath.Join(s.containerDir(key), "work") }

// lowerDirs returns the directories of a chain of layers, the top one first.
func (s *Store) lowerDirs(ctx context.Context, chain digest.Digest) ([]string, error) {
	s.held.Lock()
	defer s.held.Unlock()
	return s.lowerDirsLocked(ctx, chain)
}

func (s *Store) lowerDirsLocked(ctx context.Context, chain digest.Digest) ([]string, error) {
	if dirs, ok := s.lowers[chain]; ok {
		return dirs, nil
	}
	var dirs []string
	for name := chain.String(); name != ""; {
		info, err := s.layers.Stat(ctx, name)
		if err != nil {
			if cerrdefs.IsNotFound(err) {
				err = errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such layer: %s", name))
			}
			return nil, err
		}
		dir, err := s.lowerDir(name, info.Labels[upperdirLabel])
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
		name = info.Parent
	}
	s.lowers[chain] = dirs
	return dirs, nil
}

// mountedLayer is a layer that is seen through a mount.
type mountedLayer struct {
	path  string
	mount io.Closer
}

// lowerDir is where a layer's files are seen. The caller holds s.held.
func (s *Store) lowerDir(name, dir string) (string, error) {
	if m, ok := s.mounted[name]; ok {
		return m.path, nil
	}
	path, mount, err := s.snap.lower(dir)
	if err != nil {
		return "", fmt.Errorf("layer %s: %w", name, err)
	}
	if mount != nil {
		s.mounted[name] = mountedLayer{path, mount}
	}
	return path, nil
}

// unmountLayer lets go of a layer that is removed. Mounts of containers keep
// what they stand on.
func (s *Store) unmountLayer(name string) error {
	m, ok := s.mounted[name]
	if !ok {
		return nil
	}
	delete(s.mounted, name)
	return m.mount.Close()
}

// loadContainers reads the records of the container directories and removes
// those that were being made.
func (s *Store) loadContainers() error {
	dir := filepath.Join(s.root, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			if err := errors.Join(s.releaseQuota(path), s.janitor.discard(path)); err != nil {
				return err
			}
			continue
		}
		rec, err := readSnapshot(path)
		if err != nil {
			// Its files may be somebody's data: keep them, run nothing on them.
			s.log.Warn("image store: container directory without a record", "path", path, "err", err)
			continue
		}
		s.containers[e.Name()] = rec
	}
	return nil
}

func readSnapshot(path string) (rec snapshotRecord, err error) {
	b := make([]byte, 1024)
	n, err := unix.Getxattr(path, snapshotAttribute, b)
	if err != nil {
		return rec, &os.PathError{Op: "getxattr", Path: path, Err: err}
	}
	return rec, json.Unmarshal(b[:n], &rec)
}
