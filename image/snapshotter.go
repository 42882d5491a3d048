package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// The snapshotters, by the names configuration and info have for them.
const (
	SnapshotterOverlay = "overlayfs"
	SnapshotterErofs   = "erofs"
	SnapshotterNative  = "native"
)

// snapshotter is a way of keeping unpacked layers and of making root file
// systems of them. What a layer is does not differ: a directory of its files,
// with the marks of overlayfs for what it deletes. TestSnapshotters holds all of
// them to the same.
type snapshotter interface {
	// seal makes of a layer's directory, which is complete, what is kept of it.
	seal(ctx context.Context, dir string) error
	// lower gives the directory in which a sealed layer's files are seen for as
	// long as the closer is not closed; nil: as long as the layer is there.
	lower(dir string) (string, io.Closer, error)
	// prepare fills the upper directory of a container that is being made.
	prepare(ctx context.Context, m snapshotMount) error
	// mount returns a detached mount, see [Store.MountDetached].
	mount(ctx context.Context, m snapshotMount) (*os.File, error)
	// diff writes what differs in the upper directory from the layers below as a
	// layer, and tells whether anything does.
	diff(ctx context.Context, m snapshotMount, w io.Writer) (changed bool, err error)
}

// snapshotMount is a mount as a value.
type snapshotMount struct {
	lower    []string // top first
	upper    string   // "" is read-only
	work     string
	volatile bool
	label    string   // of SELinux, "" for none
	ids      *mapping // of a user namespace, nil for the host's ids
}

// openSnapshotter finds out whether this host can do it.
func openSnapshotter(name, root string) (snapshotter, error) {
	switch name {
	case SnapshotterOverlay:
		s := &overlaySnapshotter{mounter: mounter{root: root}}
		return s, s.mounter.probe()
	case SnapshotterErofs:
		s := &erofsSnapshotter{overlaySnapshotter{mounter: mounter{root: root}}}
		return s, s.probe()
	case SnapshotterNative:
		return &nativeSnapshotter{root: root}, nil
	}
	return nil, errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("unknown snapshotter %q", name)),
		"there are "+strings.Join([]string{SnapshotterOverlay, SnapshotterErofs, SnapshotterNative}, ", "))
}

// Snapshotter is the name of the one that is used, and of the file system below
// it as Docker writes it.
func (s *Store) Snapshotter() (name, backing string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.root, &fs); err != nil {
		return s.snapName, "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.NFS_SUPER_MAGIC: "nfs", 0x2fc12fc1: "zfs", 0xca451a4e: "bcachefs",
	}
	if name, ok := names[int64(fs.Type)]; ok { // the type differs by architecture
		return s.snapName, name
	}
	return s.snapName, fmt.Sprintf("0x%x", fs.Type)
}

// chooseSnapshotter opens the one that was asked for, else the one the store was
// made with, else overlayfs, else, where that does not work, native.
func (s *Store) chooseSnapshotter(ctx context.Context) (err error) {
	path := filepath.Join(s.root, "snapshotter")
	made, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	was := strings.TrimSpace(string(made))
	if s.snapName = s.opts.Snapshotter; s.snapName == "" {
		s.snapName = was
	}
	if s.snapName != "" {
		s.snap, err = openSnapshotter(s.snapName, s.root)
	} else {
		s.snapName = SnapshotterOverlay
		if s.snap, err = openSnapshotter(s.snapName, s.root); errors.Is(err, errdefs.ErrUnsupported) {
			s.log.Warn("image store: overlayfs does not work here, containers get copies of their images", "err", err)
			s.snapName = SnapshotterNative
			s.snap, err = openSnapshotter(s.snapName, s.root)
		}
	}
	if err != nil {
		return fmt.Errorf("snapshotter %s: %w", s.snapName, err)
	}
	if was == s.snapName {
		return nil
	}
	if err := s.convert(ctx, was); err != nil {
		return err
	}
	return replaceFile(path, []byte(s.snapName+"\n"))
}

// convert makes a store that another snapshotter made this one's: its layers are
// dropped, and unpacked again from their blobs. Containers' directories stand on
// them, and running ones read them: while there are any it is refused.
func (s *Store) convert(ctx context.Context, was string) error {
	parents, err := s.layerParents(ctx)
	if err != nil || len(parents) == 0 {
		return err
	}
	if was == "" { // made before there was a choice
		was = SnapshotterOverlay
		if was == s.snapName {
			return nil
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "containers"))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") }) {
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrConflict, fmt.Errorf("the store was made with the snapshotter %s, the configuration says %s, and there are containers", was, s.snapName)),
			fmt.Sprintf("set snapshotter = %q in the section [image] of berthd.toml; without containers the images are converted", was))
	}
	s.log.Info("image store: unpack all images again", "was", was, "snapshotter", s.snapName)
	s.held.Lock()
	defer s.held.Unlock()
	return s.removeLayers(ctx, parents)
}

// overlaySnapshotter keeps layers as directories and stacks them.
type overlaySnapshotter struct{ mounter mounter }

func (*overlaySnapshotter) seal(context.Context, string) error           { return nil }
func (*overlaySnapshotter) lower(dir string) (string, io.Closer, error)  { return dir, nil, nil }
func (*overlaySnapshotter) prepare(context.Context, snapshotMount) error { return nil }

func (s *overlaySnapshotter) mount(_ context.Context, m snapshotMount) (*os.File, error) {
	if m.ids != nil {
		return s.mounter.mountMapped(m, m.ids)
	}
	return s.mounter.mount(m)
}

func (*overlaySnapshotter) diff(ctx context.Context, m snapshotMount, w io.Writer) (bool, error) {
	upper, err := os.Open(m.upper)
	if err != nil {
		return false, err
	}
	defer upper.Close()
	return writeUpper(ctx, upper, w)
}
