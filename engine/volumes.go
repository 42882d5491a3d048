package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-containers/berth/image"
	"github.com/containerd/continuity/fs"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
)

// volumeData is the directory within a volume's that containers see, as
// Docker lays it out.
const volumeData = "_data"

func (e *Engine) volumesDir() string { return filepath.Join(e.cfg.StateRoot, "volumes") }

// nameVolumes gives the record's anonymous volumes their names and places.
func (e *Engine) nameVolumes(rec *record) error {
	rec.Mounts = slices.Clone(rec.Mounts)
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		m.Name = newID()
		m.Source = filepath.Join(e.volumesDir(), m.Name, volumeData)
	}
	return nil
}

// fillMounts makes the sources of binds that are missing, as Docker's -v does,
// and the anonymous volumes with what the image has at their place.
func (e *Engine) fillMounts(ctx context.Context, rec *record, img *image.Image) error {
	var root *os.File
	defer func() {
		if root != nil {
			root.Close()
		}
	}()
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		if m.Type == mount.TypeBind {
			if err := makeBindSource(m.Source); err != nil {
				return err
			}
			continue
		}
		if root == nil {
			var err error
			if root, err = e.images.MountImage(ctx, img); err != nil {
				return err
			}
		}
		if err := makeVolume(root, m); err != nil {
			return fmt.Errorf("volume for %s: %w", m.Destination, err)
		}
	}
	return nil
}

func makeBindSource(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make bind source: %w", err)
	}
	return nil
}

// makeVolume makes a volume's directory and copies into it what root has at
// the destination, with owners and modes.
func makeVolume(root *os.File, m *mountPoint) error {
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return err
	}
	dir, err := openInRoot(root, strings.TrimPrefix(m.Destination, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	// The descriptor pins what was resolved; the copy goes no link up.
	return fs.CopyDir(m.Source, fmt.Sprintf("/proc/self/fd/%d/.", dir.Fd()))
}

// removeVolumes removes the record's anonymous volumes.
func (e *Engine) removeVolumes(rec *record) error {
	var errs []error
	for i := range rec.Mounts {
		if m := &rec.Mounts[i]; m.Anonymous && m.Name != "" {
			errs = append(errs, os.RemoveAll(filepath.Join(e.volumesDir(), m.Name)))
		}
	}
	return errors.Join(errs...)
}
