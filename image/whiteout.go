package image

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What a layer's tar says about files below it, by the image specification:
// ".wh.NAME" deletes NAME, ".wh..wh..opq" deletes what its directory had.
// https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // what aufs kept for itself, but for the next
	whiteoutOpaque = ".wh..wh..opq"

	opaqueAttribute = "trusted.overlay.opaque"
)

// whiteouts collects the marks of a layer while it is unpacked and writes them
// at its end as overlayfs knows them. A mark speaks of the layers below, never of
// its own, in whatever order the entries come: overlayfs has no place for "NAME
// below is deleted, and this is another NAME" but the opaque mark of a
// directory, which can be set only once it is there.
type whiteouts struct {
	dir     string   // the layer's
	parents []string // directories of the layers below, the top one first
	deleted []deletion
	all     bool // everything below is deleted
}

type deletion struct {
	path     string // below dir
	uid, gid int
}

// add takes a mark, which an archive has as a file base in the directory parent,
// a name without links; dir is that directory.
func (w *whiteouts) add(hdr *tar.Header, dir int, parent, base string) error {
	switch {
	case base != whiteoutOpaque:
		w.deleted = append(w.deleted, deletion{filepath.Join(parent, base[len(whiteoutPrefix):]), hdr.Uid, hdr.Gid})
		return nil
	case parent == "": // overlayfs does not look for the mark there
		w.all = true
		return nil
	}
	return os.NewSyscallError("setxattr "+parent, unix.Fsetxattr(dir, opaqueAttribute, []byte{'y'}, 0))
}

// ofAufs tells what aufs wrote for itself and nobody else reads.
func ofAufs(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return strings.HasPrefix(part, whiteoutMeta) && part != whiteoutOpaque
	})
}

// finish writes the marks.
func (w *whiteouts) finish() error {
	if w.all {
		for _, parent := range w.parents {
			entries, err := os.ReadDir(parent)
			if err != nil {
				return err
			}
			for _, e := range entries {
				w.deleted = append(w.deleted, deletion{path: e.Name()})
			}
		}
	}
	for _, d := range w.deleted {
		if err := w.mark(d); err != nil {
			return err
		}
	}
	return nil
}

// mark hides what the layers below have at a path: by a character device 0/0,
// or, where this layer has a directory of its own, by making that opaque. What
// hides nothing is left out: in a directory that is in no other layer overlayfs
// would show the device.
func (w *whiteouts) mark(d deletion) error {
	parent, base := filepath.Split(d.path)
	dir, opaque, err := w.open(filepath.Clean(parent))
	if err != nil || dir < 0 {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		if opaque || !w.below(d.path) {
			return nil
		}
		return w.hide(dir, base, d)
	case err != nil:
		return &os.PathError{Op: "stat", Path: d.path, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	}
	own, _, err := w.open(d.path)
	if err != nil || own < 0 {
		return err
	}
	defer unix.Close(own)
	return os.NewSyscallError("setxattr "+d.path, unix.Fsetxattr(own, opaqueAttribute, []byte{'y'}, 0))
}

// hide makes the device that hides what is below. Its directory keeps the times
// that the archive has given it.
func (w *whiteouts) hide(dir int, base string, d deletion) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Dir(d.path), Err: err}
	}
	if err := unix.Mknodat(dir, base, unix.S_IFCHR, 0); err != nil {
		return &os.PathError{Op: "mknod", Path: d.path, Err: err}
	}
	if err := unix.Fchownat(dir, base, d.uid, d.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH))
}

// open opens a directory of the layer, component by component, and tells
// whether it or one above it is opaque. It returns -1 when the layer has put
// something else in its place, a link perhaps, since the mark came.
func (w *whiteouts) open(rel string) (fd int, opaque bool, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err = unix.Open(w.dir, flags, 0)
	if err != nil {
		return -1, false, &os.PathError{Op: "open", Path: w.dir, Err: err}
	}
	if rel == "." {
		return fd, false, nil
	}
	for part := range strings.SplitSeq(rel, "/") {
		next, err := unix.Openat(fd, part, flags, 0)
		unix.Close(fd)
		switch {
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
			return -1, false, nil
		case err != nil:
			return -1, false, &os.PathError{Op: "open", Path: rel, Err: err}
		}
		fd = next
		var b [1]byte
		n, err := unix.Fgetxattr(fd, opaqueAttribute, b[:])
		opaque = opaque || err == nil && n == 1 && b[0] == 'y'
	}
	return fd, opaque, nil
}

// below tells whether the layers below, as overlayfs puts them together, have
// something at the path.
func (w *whiteouts) below(rel string) bool {
	for _, layer := range w.parents {
		path, opaque := layer, false
		parts := strings.Split(rel, "/")
		for i, part := range parts {
			path = filepath.Join(path, part)
			fi, err := os.Lstat(path)
			if err != nil {
				break // not in this layer
			}
			if isWhiteout(fi) {
				return false
			}
			if i == len(parts)-1 {
				return true
			}
			if !fi.IsDir() {
				return false
			}
			opaque = opaque || isOpaque(path)
		}
		if opaque {
			return false
		}
	}
	return false
}
