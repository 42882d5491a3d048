package image

import (
	"archive/tar"
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// implicit are the directories a layer has but does not name: made for what is
// in them. Where a layer below has the directory, that one's owner, mode, times
// and attributes are meant to stay; what is below is known only at the end.
type implicit struct {
	named, unnamed map[string]struct{}
}

func newImplicit() *implicit {
	return &implicit{named: map[string]struct{}{}, unnamed: map[string]struct{}{}}
}

// note takes account of an entry.
func (m *implicit) note(hdr *tar.Header) {
	name := insideName(hdr.Name)
	if hdr.Typeflag == tar.TypeDir {
		m.named[name] = struct{}{}
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := m.named[dir]; ok {
			return
		}
		if _, ok := m.unnamed[dir]; ok {
			return
		}
		m.unnamed[dir] = struct{}{}
	}
}

// inherit gives the directories of the layer in dir that it does not name the
// attributes they have in parents, the top one first.
func (m *implicit) inherit(dir string, parents []string) error {
	if len(parents) == 0 || len(m.unnamed) == 0 {
		return nil
	}
	layer := &whiteouts{dir: dir}
	for _, rel := range slices.Sorted(maps.Keys(m.unnamed)) {
		if _, ok := m.named[rel]; ok {
			continue // named after what is in it
		}
		fd, _, err := layer.open(rel)
		if err != nil {
			return err
		}
		if fd < 0 {
			continue // something else has taken its place
		}
		err = inheritFrom(fd, rel, parents)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// inheritFrom copies the attributes of the uppermost directory at rel.
func inheritFrom(fd int, rel string, parents []string) error {
	for _, parent := range parents {
		source, err := cfs.RootPath(parent, rel)
		if errors.Is(err, unix.ENOTDIR) {
			return nil // it replaces what is below
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		switch err := unix.Lstat(source, &st); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			continue
		case err != nil:
			return &os.PathError{Op: "stat", Path: source, Err: err}
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return nil // it replaces what is below
		}
		return copyAttributes(fd, source, &st)
	}
	return nil
}

func copyAttributes(fd int, source string, st *unix.Stat_t) error {
	names, err := listAttributes(source)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !layerAttribute(name) {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's limit
		n, err := unix.Lgetxattr(source, name, value)
		if err == nil {
			err = unix.Fsetxattr(fd, name, value[:n], 0)
		}
		if err != nil {
			return &os.PathError{Op: "copy attribute " + name, Path: source, Err: err}
		}
	}
	// The owner first: changing it may take mode bits away.
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: source, Err: err}
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: source, Err: err}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "utimes", Path: source, Err: err}
	}
	return nil
}

func listAttributes(path string) ([]string, error) {
	n, err := unix.Llistxattr(path, nil)
	if err != nil || n == 0 {
		return nil, os.NewSyscallError("listxattr", err)
	}
	list := make([]byte, n)
	if n, err = unix.Llistxattr(path, list); err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	return strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 }), nil
}
