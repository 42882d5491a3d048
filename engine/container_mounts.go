package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/image"
	"github.com/berth-containers/berth/volume"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// inheritMounts are the mounts of --volumes-from: those of other containers,
// each CONTAINER[:MODE].
func (e *Engine) inheritMounts(from []string) ([]mountPoint, error) {
	var list []mountPoint
	for _, spec := range from {
		ref, mode, _ := strings.Cut(spec, ":")
		if ref == "" {
			return nil, invalidf("invalid volumes-from specification: %q", spec)
		}
		other, err := e.containers.get(ref)
		if err != nil {
			// Not ErrNotFound: at a create, docker takes that for a missing image.
			return nil, invalidf("volumes from %s: %v", ref, err)
		}
		for _, m := range other.snapshot().Mounts {
			m.NoCopy = true
			writable := m.RW
			if err := applyBindMode(&m, mode); err != nil || strings.Contains(mode, "nocopy") {
				return nil, invalidf("invalid volumes-from specification: %q: invalid mode %s", spec, mode)
			}
			m.RW = m.RW && writable
			if !covered(list, nil, m.Destination) {
				list = append(list, m)
			}
		}
	}
	return list, nil
}

// nameMounts gives the record's volumes their names and places, and its image
// mounts their images.
func (e *Engine) nameMounts(ctx context.Context, rec *record) error {
	rec.Mounts = slices.Clone(rec.Mounts)
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		switch {
		case m.Type == mount.TypeImage && m.ImageID == "":
			img, err := e.images.Get(ctx, m.Source)
			if errors.Is(err, errdefs.ErrNotFound) { // see inheritMounts
				return errdefs.WithHint(invalidf("mount %s: no such image: %s", m.Destination, m.Source), "pull, load or import it first")
			}
			if err != nil {
				return err
			}
			m.ImageID = img.ID
		case m.Type == mount.TypeVolume:
			if m.Name == "" {
				m.Name = newID()
			}
			m.Source = filepath.Join(e.volumesDir(), m.Name, "_data")
			_, err := e.volumes.Get(m.Name)
			m.Fresh = errors.Is(err, errdefs.ErrNotFound)
		}
	}
	return nil
}

// settledMounts are the mounts of a container that has been made.
func settledMounts(mounts []mountPoint) []mountPoint {
	mounts = slices.Clone(mounts)
	for i := range mounts {
		mounts[i].Fresh = false
	}
	return mounts
}

// fillMounts makes the sources of binds that are missing, as Docker's -v does,
// and takes the volumes into use: those that are empty with what the image has at
// their place.
func (e *Engine) fillMounts(ctx context.Context, rec *record, img *image.Image) error {
	var root *os.File
	defer func() {
		if root != nil {
			root.Close()
		}
	}()
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		switch m.Type {
		case mount.TypeBind:
			done := awaitsText(ctx, time.Time{}, "the file system of "+m.Source)
			err := unlessHeld(ctx, func() error { return makeBindSource(m.Source) })
			done()
			if err != nil {
				return err
			}
		case mount.TypeVolume:
			if err := e.holdVolume(ctx, rec, m); err != nil {
				return err
			}
			if m.NoCopy || m.Subpath != "" {
				continue
			}
			if root == nil {
				var err error
				if root, err = e.images.MountImage(ctx, img); err != nil {
					return err
				}
			}
			if err := e.fillVolume(ctx, root, m); err != nil {
				return fmt.Errorf("volume for %s: %w", m.Destination, err)
			}
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

// holdVolume takes a volume into use for a container, making it if need be.
func (e *Engine) holdVolume(ctx context.Context, rec *record, m *mountPoint) error {
	opt := volume.CreateOptions{Name: m.Name, Options: m.driverOptions, Labels: m.labels}
	if m.Anonymous {
		opt.Labels = anonymousLabels(m.labels)
	}
	_, made, err := e.volumes.Hold(ctx, opt, rec.ID)
	if made {
		e.emitVolume(events.ActionCreate, m.Name, nil)
	}
	return explainFullDisk(err, e.volumesDir())
}

// fillVolume copies into an empty volume what root has at its destination.
func (e *Engine) fillVolume(ctx context.Context, root *os.File, m *mountPoint) error {
	dir, err := openInRoot(root, strings.TrimPrefix(m.Destination, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return e.volumes.Fill(ctx, m.Name, dir)
}

// removeVolumes ends the record's hold on its volumes and removes, when asked,
// the anonymous ones nobody else uses. Of a container whose creation was cut
// short it removes all that were made for it.
func (e *Engine) removeVolumes(rec *record, anonymous bool) error {
	var errs []error
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		e.volumes.Release(m.Name, rec.ID)
		if !m.Fresh && !(anonymous && m.Anonymous) {
			continue
		}
		err := e.removeVolume(m.Name)
		if !errors.Is(err, errdefs.ErrConflict) && !errors.Is(err, errdefs.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mountsImage says whether the container shows the image's files in a mount.
func mountsImage(rec *record, id digest.Digest) bool {
	return slices.ContainsFunc(rec.Mounts, func(m mountPoint) bool { return m.ImageID == id })
}

// adoptVolumes tells the volumes, at the engine's start, which containers have
// them and which of these run.
func (e *Engine) adoptVolumes() error {
	running := map[string][]string{}
	for _, c := range e.containers.all() {
		rec := c.snapshot()
		for i := range rec.Mounts {
			m := &rec.Mounts[i]
			if m.Type != mount.TypeVolume {
				continue
			}
			if err := e.volumes.Adopt(m.Name, c.id); err != nil && rec.State.Status != stateCreating {
				e.log.Error("container has lost a volume", "container", c.id, "err", err) // its start says so too
			}
			if rec.State.active() {
				running[m.Name] = append(running[m.Name], c.id)
			}
		}
	}
	return e.volumes.Running(running)
}

// openedMounts are the sources of a starting container's mounts that had to be
// opened: held until the keeper has bound them.
type openedMounts struct {
	// paths are what to bind, by destination.
	paths map[string]string
	files []*os.File
}

func (o *openedMounts) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// add binds a descriptor of ours, which the keeper, another process, opens.
func (o *openedMounts) add(dest string, f *os.File) {
	o.files = append(o.files, f)
	o.paths[dest] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// openMounts mounts the container's volumes and opens what a path cannot name
// safely: a directory within a volume, whose content other containers may
// change at any moment, and an image's files.
func (e *Engine) openMounts(ctx context.Context, rec *record, u *userns) (_ *openedMounts, err error) {
	opened := &openedMounts{paths: map[string]string{}}
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		switch m.Type {
		case mount.TypeVolume:
			err = e.openVolume(rec, m, opened)
		case mount.TypeImage:
			err = e.openImageMount(ctx, m, u, opened)
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return opened, nil
}

func (e *Engine) openVolume(rec *record, m *mountPoint, opened *openedMounts) error {
	path, err := e.volumes.Mount(m.Name, rec.ID)
	if err != nil {
		return err
	}
	e.emitVolume(events.ActionMount, m.Name, map[string]string{
		"container": rec.ID, "destination": m.Destination, "propagation": string(m.Propagation), "read/write": strconv.FormatBool(m.RW),
	})
	if m.Subpath == "" {
		return nil
	}
	root, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := openSubpath(root, m.Subpath)
	if err != nil {
		return fmt.Errorf("volume %s: %w", m.Name, err)
	}
	opened.add(m.Destination, f)
	return nil
}

// openSubpath opens path below root. No link and no .. leads out, whoever
// changes the directories meanwhile: that is an error, not another place.
func openSubpath(root *os.File, path string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(root.Fd()), path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			// A rename raced with the resolution; openat2(2) says to try again.
		case errors.Is(err, unix.EXDEV):
			return nil, invalidf("subpath %s leads out of it", path)
		case errors.Is(err, unix.ENOENT):
			return nil, errdefs.WithHint(invalidf("subpath %s does not exist", path), "make the directory in the volume first")
		default:
			return nil, &os.PathError{Op: "open subpath", Path: path, Err: err}
		}
	}
}

// openImageMount mounts an image's files for a starting container, with the ids of
// its user namespace.
func (e *Engine) openImageMount(ctx context.Context, m *mountPoint, u *userns, opened *openedMounts) error {
	img, err := e.images.Get(ctx, m.ImageID.String())
	if err != nil {
		return err
	}
	root, err := e.images.MountImageFor(ctx, img, u.rootOptions())
	if err != nil {
		return err
	}
	if err := copyableDetached(root); err != nil {
		root.Close()
		return err
	}
	if m.Subpath == "" {
		opened.add(m.Destination, root)
		return nil
	}
	opened.files = append(opened.files, root)
	sub, err := openSubpath(root, m.Subpath)
	if err != nil {
		return fmt.Errorf("image %s: %w", m.Source, err)
	}
	opened.add(m.Destination, sub)
	return nil
}

// copyableDetached says by trying whether the kernel lets a mount that is
// attached nowhere be bound (Linux 6.15).
func copyableDetached(root *os.File) error {
	fd, err := unix.OpenTree(int(root.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		return errdefs.WithHint(errUnsupported("--mount type=image on this kernel"), "it needs Linux 6.15 or newer")
	}
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	return unix.Close(fd)
}

// unmountVolumes ends the use of a container's volumes by a run. Those that do
// not run use none, and it is no error to say so twice.
func (e *Engine) unmountVolumes(rec *record) error {
	var errs []error
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		used, err := e.volumes.Unmount(m.Name, rec.ID)
		if used {
			e.emitVolume(events.ActionUnmount, m.Name, map[string]string{"container": rec.ID})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
