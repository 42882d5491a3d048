package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// erofsSnapshotter keeps each layer as one EROFS image, which is mounted from
// its file (Linux 6.12) and stacked by overlayfs as a detached mount (6.15): one
// file to sync and to delete instead of thousands, and one that nothing on the
// host can write into. mkfs.erofs makes it, of a directory that has been through
// all checks of a layer; it keeps hard links, devices and attributes.
// https://docs.kernel.org/filesystems/erofs.html
type erofsSnapshotter struct{ overlaySnapshotter }

const (
	erofsTool = "mkfs.erofs"
	erofsFile = "layer.erofs"
)

// probe makes, mounts and stacks an empty image.
func (s *erofsSnapshotter) probe() (err error) {
	if err := s.mounter.probe(); err != nil {
		return err
	}
	if _, err := exec.LookPath(erofsTool); err != nil {
		return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, err), "install erofs-utils")
	}
	dir := filepath.Join(s.mounter.root, "probe")
	layer := filepath.Join(dir, "layer")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, d := range []string{layer, filepath.Join(dir, "upper"), filepath.Join(dir, "work")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := s.seal(context.Background(), layer); err != nil {
		return err
	}
	path, mounted, err := s.lower(layer)
	if err == nil {
		defer mounted.Close()
		var f *os.File
		if f, err = s.mounter.mount(snapshotMount{lower: []string{path}, upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}); err == nil {
			return f.Close()
		}
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, err),
		"it takes Linux 6.15 with EROFS, and mounts from files (CONFIG_EROFS_FS_BACKED_BY_FILE)")
}

// seal puts the image in the place of the files: what measures and deletes the
// directory needs to know nothing of it.
func (s *erofsSnapshotter) seal(ctx context.Context, dir string) (err error) {
	tmp, plain := dir+".new", dir+".plain"
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := makeErofs(ctx, filepath.Join(tmp, erofsFile), dir); err != nil {
		return err
	}
	if err := os.Rename(dir, plain); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return os.RemoveAll(plain)
}

func makeErofs(ctx context.Context, file, dir string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, erofsTool, "--quiet", file, dir)
	cmd.Stderr, cmd.Stdout = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	if strings.Contains(text, unix.ENOSPC.Error()) || strings.Contains(strings.ToLower(text), "no space left") {
		err = unix.ENOSPC
	}
	return fmt.Errorf("%s: %w: %.300s", erofsTool, err, text)
}

// lower mounts the image once for all containers: what it has read into memory
// is shared by them.
func (s *erofsSnapshotter) lower(dir string) (string, io.Closer, error) {
	fd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", nil, mountError("fsopen erofs", -1, err)
	}
	defer unix.Close(fd)
	source := filepath.Join(dir, erofsFile)
	if len(source) > maxParameter {
		f, err := os.Open(source)
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		source = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	if err := unix.FsconfigSetString(fd, "source", source); err != nil {
		return "", nil, mountError("source "+source, fd, err)
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return "", nil, mountError("mount "+filepath.Join(dir, erofsFile), fd, err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return "", nil, mountError("fsmount erofs", fd, err)
	}
	f := os.NewFile(uintptr(mnt), "erofs")
	return fmt.Sprintf("/proc/self/fd/%d", mnt), f, nil
}
