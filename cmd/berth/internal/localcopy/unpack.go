package localcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Unpack unpacks an archive below a directory and nowhere else: an archive is a
// container's word. Files become the user's own. A directory is not replaced by
// anything else, nor anything else by a directory.
func Unpack(archive io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var dirs []*tar.Header
	for r := tar.NewReader(archive); ; {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
		if name == "" || hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := unpackOne(root, name, hdr, r); err != nil {
			return err
		}
		if hdr.Typeflag == tar.TypeDir {
			hdr.Name = name
			dirs = append(dirs, hdr)
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- { // what was made in them has changed their times
		if err := root.Chtimes(dirs[i].Name, dirs[i].ModTime, dirs[i].ModTime); err != nil {
			return err
		}
	}
	return nil
}

func unpackOne(root *os.Root, name string, hdr *tar.Header, r io.Reader) error {
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	there, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case there.IsDir() && hdr.Typeflag != tar.TypeDir:
		return fmt.Errorf("cannot overwrite directory %q with non-directory %q", path.Join(root.Name(), name), hdr.Name)
	case !there.IsDir() && hdr.Typeflag == tar.TypeDir:
		return fmt.Errorf("cannot overwrite non-directory %q with directory %q", path.Join(root.Name(), name), hdr.Name)
	case !there.IsDir():
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	mode := hdr.FileInfo().Mode()
	switch hdr.Typeflag {
	case tar.TypeDir:
		if there == nil {
			if err := root.Mkdir(name, 0o700); err != nil {
				return err
			}
		}
		return root.Chmod(name, mode)
	case tar.TypeReg:
		return unpackFile(root, name, hdr, r)
	case tar.TypeLink:
		return root.Link(strings.TrimPrefix(path.Clean("/"+hdr.Linkname), "/"), name)
	case tar.TypeSymlink:
		return root.Symlink(hdr.Linkname, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return unpackNode(root, name, hdr)
	}
	return fmt.Errorf("%s: unhandled tar header type %q", hdr.Name, hdr.Typeflag)
}

func unpackFile(root *os.Root, name string, hdr *tar.Header, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(hdr.FileInfo().Mode())
	}
	for key, value := range hdr.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && err == nil && (attr == "security.capability" || strings.HasPrefix(attr, "user.")) {
			err = unix.Fsetxattr(int(f.Fd()), attr, []byte(value), 0)
			if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
				err = nil // not on this file system, or not for this user
			}
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Chtimes(name, hdr.ModTime, hdr.ModTime)
}

// unpackNode makes a device or a pipe.
func unpackNode(root *os.Root, name string, hdr *tar.Header) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
	if err := unix.Mknodat(int(dir.Fd()), path.Base(name), kind|uint32(hdr.Mode)&0o7777, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: path.Join(root.Name(), name), Err: err}
	}
	return nil
}
