package localcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pack is an archive of a file or directory. The caller closes it.
func Pack(src Info) io.ReadCloser {
	dir, name := Split(src.Path)
	if src.Rebase != "" {
		name = src.Rebase
	}
	path := filepath.Clean(src.Path)
	if ending(src.Path) == "/." {
		path = dir
	}
	return pipe(func(w *tar.Writer) error {
		p := &packer{Writer: w, links: map[[2]uint64]string{}}
		return p.add(path, name)
	})
}

// packer writes files into an archive.
type packer struct {
	*tar.Writer
	links map[[2]uint64]string // device and inode: the first name of a file with several
}

func (p *packer) add(path, name string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket != 0 {
		return nil // tar has no word for it
	}
	target := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	hdr, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	// Numbers are what counts; this host's names are not the container's.
	hdr.Format, hdr.Name, hdr.Uname, hdr.Gname = tar.FormatPAX, name, "", ""
	if info.IsDir() {
		hdr.Name = strings.TrimSuffix(name, "/") + "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !info.IsDir() {
		id := [2]uint64{st.Dev, st.Ino}
		if first, seen := p.links[id]; seen {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return p.WriteHeader(hdr)
		}
		p.links[id] = hdr.Name
	}
	if err := addXattrs(hdr, path); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return p.dir(path, hdr)
	case info.Mode().IsRegular():
		return p.regular(path, hdr)
	}
	return p.WriteHeader(hdr)
}

func (p *packer) dir(path string, hdr *tar.Header) error {
	if err := p.WriteHeader(hdr); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := p.add(filepath.Join(path, e.Name()), hdr.Name+e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) regular(path string, hdr *tar.Header) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.Copy(p, io.LimitReader(f, hdr.Size))
	if err == nil && n < hdr.Size {
		err = fmt.Errorf("%s became shorter while it was read", path)
	}
	return err
}

// addXattrs adds file capabilities and the users' own attributes.
func addXattrs(hdr *tar.Header, path string) error {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	for _, name := range strings.Split(string(list[:n]), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			continue // gone, or not for this user to read
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
	}
	return nil
}
