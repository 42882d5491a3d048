package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ChangeKind says what became of a file. The numbers are those of Docker's API.
type ChangeKind uint8

// The kinds.
const (
	Modified ChangeKind = iota
	Added
	Deleted
)

// Change is one file that differs from the image's.
type Change struct {
	// Path is absolute, in the container.
	Path string
	Kind ChangeKind
}

// Changes lists what a key's own files change of the image it stands on, by
// path. A directory counts as modified when something in it was added or
// deleted, or when it is different itself.
func (s *Store) Changes(ctx context.Context, key string) ([]Change, error) {
	rec, err := s.snapshot(key)
	if err != nil {
		return nil, err
	}
	lower, err := s.lowerDirs(ctx, rec.Chain)
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	if _, copied := s.snap.(*nativeSnapshotter); copied {
		return copiedChanges(ctx, lower, s.upperDir(key))
	}
	root, err := s.snap.mount(ctx, snapshotMount{lower: lower})
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	defer root.Close()
	d := &comparison{upper: s.upperDir(key), root: root, changed: map[string]bool{"/": true}}
	err = filepath.WalkDir(d.upper, func(file string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err = errors.Join(err, ctx.Err()); err != nil || file == d.upper {
			return err
		}
		return d.compare(file, strings.TrimPrefix(file, d.upper))
	})
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	return d.list, nil
}

// comparison walks an upper directory.
type comparison struct {
	upper   string
	root    *os.File        // the image's files
	changed map[string]bool // directories that are in the list
	list    []Change
}

// compare takes one file of the upper directory.
func (d *comparison) compare(file, name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return skipGone(err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 { // overlayfs' whiteout
		d.add(name, Deleted)
		return nil
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	old, there := d.lookup(name)
	switch {
	case !there:
		d.add(name, Added)
	case !isDir || old.Mode != st.Mode || old.Uid != st.Uid || old.Gid != st.Gid || old.Mtim != st.Mtim:
		d.add(name, Modified)
	}
	if isDir && there && opaque(file) {
		return d.hidden(file, name)
	}
	return nil
}

// add lists a change, after the directory it is a change of.
func (d *comparison) add(name string, kind ChangeKind) {
	if parent := path.Dir(name); kind != Modified && !d.changed[parent] {
		d.changed[parent] = true
		d.list = append(d.list, Change{parent, Modified})
	}
	if !d.changed[name] {
		d.changed[name] = true
		d.list = append(d.list, Change{name, kind})
	}
}

// hidden lists what the image has in a directory that was made anew.
func (d *comparison) hidden(file, name string) error {
	dir, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil // it was no directory
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := os.Lstat(filepath.Join(file, n)); errors.Is(err, fs.ErrNotExist) {
			d.add(path.Join(name, n), Deleted)
		}
	}
	return nil
}

// lookup describes the image's file of a name. Links on the way are not
// followed: an upper directory in their place is another.
func (d *comparison) lookup(name string) (st unix.Stat_t, there bool) {
	f, err := d.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return st, false
	}
	defer f.Close()
	return st, unix.Fstat(int(f.Fd()), &st) == nil
}

func (d *comparison) open(name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_PATH != 0 { // the file itself may be a link
		how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	}
	fd, err := unix.Openat2(int(d.root.Fd()), strings.TrimPrefix(name, "/"), &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// opaque says whether a directory of the upper one hides the image's.
func opaque(dir string) bool {
	b := make([]byte, 8)
	n, err := unix.Lgetxattr(dir, "trusted.overlay.opaque", b)
	return err == nil && n == 1 && b[0] == 'y'
}

func skipGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
