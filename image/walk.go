package image

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive"
	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// A container can rearrange the tree under whoever walks it by path: replace a
// directory by a link to the host's /etc between the look and the open. The
// walks here run on a thread whose root directory is the tree, where an absolute
// link leads back into it and ".." ends at it.

// ExportRootfs writes everything below rootfs, a directory descriptor such as
// [Store.MountDetached] returns, as a tar stream. Sockets are left out.
func ExportRootfs(ctx context.Context, rootfs *os.File, w io.Writer) error {
	err := inside(rootfs, func() error {
		cw := archive.NewChangeWriter(w, "/")
		if err := walkTree(ctx, func(path string, fi fs.FileInfo) error {
			return cw.HandleChange(cfs.ChangeKindAdd, path, fi, nil)
		}); err != nil {
			return err
		}
		return cw.Close()
	})
	if err != nil {
		return fmt.Errorf("export file system: %w", err)
	}
	return nil
}

// writeUpper writes what an overlay upper directory changes as a layer: its
// files, and for the marks by which overlayfs hides what is below, the whiteout
// files of the image specification. It reports whether there was any change.
func writeUpper(ctx context.Context, upper *os.File, w io.Writer) (changed bool, err error) {
	err = inside(upper, func() error {
		cw := archive.NewChangeWriter(w, "/")
		err := walkTree(ctx, func(path string, fi fs.FileInfo) error {
			changed = true
			if isWhiteout(fi) {
				return cw.HandleChange(cfs.ChangeKindDelete, path, nil, nil)
			}
			if err := cw.HandleChange(cfs.ChangeKindModify, path, fi, nil); err != nil {
				return err
			}
			if fi.IsDir() && isOpaque(path) {
				// Becomes ".wh..wh..opq": hide all the directory had below.
				return cw.HandleChange(cfs.ChangeKindDelete, filepath.Join(path, ".wh..opq"), nil, nil)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return cw.Close()
	})
	return changed, err
}

// isWhiteout: a character device 0/0 stands for "deleted".
// https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories
func isWhiteout(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func isOpaque(path string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(path, "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// inside runs f on a thread whose root and working directory are dir.
func inside(dir *os.File, f func() error) error {
	return onThread(0, func() error {
		if err := unix.Fchdir(int(dir.Fd())); err != nil {
			return os.NewSyscallError("fchdir", err)
		}
		if err := unix.Chroot("."); err != nil {
			return os.NewSyscallError("chroot", err)
		}
		return f()
	})
}

// walkTree calls visit for everything below /, in order, parents first.
func walkTree(ctx context.Context, visit func(path string, fi fs.FileInfo) error) error {
	return filepath.WalkDir("/", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if path == "/" {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		return visit(path, fi)
	})
}
