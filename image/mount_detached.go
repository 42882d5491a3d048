package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// overlayOptions are the same for every mount. The image's meaning must not
// depend on how a distribution built its kernel, and a commit reads the upper
// directory alone: so no redirects, no files that are metadata only, no index.
var overlayOptions = [][2]string{{"index", "off"}, {"redirect_dir", "nofollow"}, {"metacopy", "off"}}

// maxParameter is how long a string fsconfig(2) takes, without its zero byte.
const maxParameter = 255

// MountDetached mounts the key and returns the mount as a file descriptor, an
// O_PATH directory that is the container's root. The mount is attached nowhere:
// the host's mount table does not show it, move_mount(2) puts it into a mount
// namespace, openat2(2) looks into it, and it goes away with its last
// descriptor, namespace or open file. The caller closes it.
//
// With its last reference the kernel writes back the file system the upper
// directory is on, whoever made it dirty: 60 to 90 ms for 150 MB of somebody
// else's data here, and 0.1 ms for a volatile key. If that is the container's own, its
// exit waits for it; keep the descriptor until the container has ended and
// close it where nobody waits.
//
// Have at most one mount of a key at a time: the kernel does not define what
// two of them do to the upper directory.
func (s *Store) MountDetached(ctx context.Context, key string) (*os.File, error) {
	return s.MountRoot(ctx, key, RootOptions{})
}

// mountOf is the mount of a key.
func (s *Store) mountOf(ctx context.Context, key string) (o snapshotMount, err error) {
	rec, err := s.snapshot(key)
	if err != nil {
		return o, err
	}
	lower, err := s.lowerDirs(ctx, rec.Chain)
	if err != nil {
		return o, fmt.Errorf("mount snapshot %s: %w", key, err)
	}
	if err := s.ensureQuota(key, rec.Size); err != nil {
		return o, err
	}
	if rec.Volatile {
		// The mark by which the kernel refuses to mount a volatile directory
		// again. It means "after a crash of the host this is not whole", and
		// this one does not outlive the host.
		if err := os.RemoveAll(filepath.Join(s.workDir(key), "work", "incompat")); err != nil {
			return o, fmt.Errorf("mount snapshot %s: %w", key, err)
		}
	}
	return snapshotMount{lower: lower, upper: s.upperDir(key), work: s.workDir(key), volatile: rec.Volatile}, nil
}

// MountImage mounts an image's layers read-only, as [Store.MountDetached] does
// a container's. The layers must stay until the mount is closed: an image that
// is not in use by a container can be removed under it.
func (s *Store) MountImage(ctx context.Context, img *Image) (*os.File, error) {
	return s.MountImageFor(ctx, img, RootOptions{})
}

// MountImageFor is [Store.MountImage] with options, as [Store.MountRoot] has
// them: the image's files keep their owners in a user namespace.
func (s *Store) MountImageFor(ctx context.Context, img *Image, opt RootOptions) (*os.File, error) {
	lower, err := s.lowerDirs(ctx, img.ChainID)
	if err == nil {
		var f *os.File
		if f, err = s.snap.mount(ctx, snapshotMount{lower: lower, label: opt.Label, ids: opt.mapping()}); err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("mount image %s: %w", short(img.ID), err)
}

// mounter makes detached overlay mounts.
type mounter struct {
	root string
	// legacy: overlayfs does not know "lowerdir+" (Linux < 6.5).
	legacy bool
}

func (m *mounter) mount(o snapshotMount) (*os.File, error) {
	// overlayfs wants a lower directory, and two of them without an upper.
	for _, empty := range []string{"empty", "mnt"} {
		if len(o.lower) == 0 || o.upper == "" && len(o.lower) < 2 {
			o.lower = append(slices.Clone(o.lower), filepath.Join(m.root, empty))
		}
	}
	if m.legacy {
		return m.mountPath(o)
	}
	return m.mountContext(o)
}

// probe finds out which way of mounting the kernel knows, and if overlayfs does
// not work here at all says so in words where a container's start would say
// "invalid argument". It is by trying: before 6.5 fsconfig(2) takes any option,
// and the mount fails with EINVAL, as it does for a dozen other reasons.
func (m *mounter) probe() error {
	dir := filepath.Join(m.root, "probe")
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	o := snapshotMount{upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
	f, err := m.mount(o)
	if errors.Is(err, unix.EINVAL) {
		m.legacy = true
		f, err = m.mount(o)
	}
	if err == nil {
		err = f.Close()
	} else if !errors.Is(err, unix.EPERM) {
		err = errdefs.WithHint(errdefs.As(errdefs.ErrUnsupported, err),
			"overlayfs must be in the kernel (modprobe overlay), and the store on a file system it can write to: ext4, xfs, btrfs or tmpfs")
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// mountContext builds the mount with fsopen(2), one fsconfig(2) per layer.
func (m *mounter) mountContext(o snapshotMount) (*os.File, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, mountError("fsopen", fd, err)
	}
	defer unix.Close(fd)
	set := func(key, path string) error {
		if len(path) <= maxParameter {
			return unix.FsconfigSetString(fd, key, path)
		}
		dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		return unix.FsconfigSetString(fd, key, fmt.Sprintf("/proc/self/fd/%d", dir))
	}
	for _, dir := range o.lower {
		if err := set("lowerdir+", dir); err != nil {
			return nil, mountError("lowerdir "+dir, fd, err)
		}
	}
	options := overlayOptions
	flags := unix.MOUNT_ATTR_RDONLY
	if o.upper != "" {
		options, flags = append([][2]string{{"upperdir", o.upper}, {"workdir", o.work}}, options...), 0
	}
	for _, opt := range options {
		if err := set(opt[0], opt[1]); err != nil {
			return nil, mountError(opt[0], fd, err)
		}
	}
	if o.label != "" {
		if err := unix.FsconfigSetString(fd, "context", o.label); err != nil {
			return nil, mountError("context", fd, err)
		}
	}
	if o.volatile {
		if err := unix.FsconfigSetFlag(fd, "volatile"); err != nil {
			return nil, mountError("volatile", fd, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, mountError("overlay", fd, err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, flags)
	if err != nil {
		return nil, mountError("fsmount", fd, err)
	}
	return os.NewFile(uintptr(mnt), "overlay"), nil
}

// mountError adds what the kernel wrote into the context's log to its errno.
func mountError(what string, fd int, err error) error {
	err = fmt.Errorf("mount overlay: %s: %w", what, err)
	if errors.Is(err, unix.EPERM) {
		err = errdefs.As(errdefs.ErrPermission, err)
	}
	b := make([]byte, 1024)
	for fd >= 0 {
		n, rerr := unix.Read(fd, b)
		if rerr != nil || n == 0 {
			break
		}
		// Each message is a letter for its level, a space, and the text.
		if _, text, ok := strings.Cut(strings.TrimSpace(string(b[:n])), " "); ok {
			err = fmt.Errorf("%w: %s", err, text)
		}
	}
	return err
}

// mountPath builds the mount with mount(2), for kernels before 6.5. That needs
// a place to mount it, and its options must fit into a page: a thread of its
// own gets a mount namespace nobody sees and a working directory from which the
// paths are short.
func (m *mounter) mountPath(o snapshotMount) (f *os.File, err error) {
	rel := func(path string) string {
		if r, err := filepath.Rel(m.root, path); err == nil {
			return r
		}
		return path
	}
	var lower []string
	for _, dir := range o.lower {
		lower = append(lower, rel(dir))
	}
	options := []string{"lowerdir=" + strings.Join(lower, ":")}
	flags := uintptr(unix.MS_RDONLY)
	if o.upper != "" {
		flags = 0
		options = append(options, "upperdir="+rel(o.upper), "workdir="+rel(o.work))
	}
	for _, opt := range overlayOptions {
		options = append(options, opt[0]+"="+opt[1])
	}
	if o.volatile {
		options = append(options, "volatile")
	}
	if o.label != "" {
		options = append(options, `context="`+o.label+`"`) // it may hold commas
	}
	err = onThread(unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return mountError("make mounts private", -1, err)
		}
		if err := unix.Chdir(m.root); err != nil {
			return &os.PathError{Op: "chdir", Path: m.root, Err: err}
		}
		if err := unix.Mount("overlay", "mnt", "overlay", flags, strings.Join(options, ",")); err != nil {
			return mountError(strings.Join(options, ","), -1, err)
		}
		mnt, err := unix.OpenTree(unix.AT_FDCWD, "mnt", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return mountError("open_tree", -1, err)
		}
		f = os.NewFile(uintptr(mnt), "overlay")
		return nil // the attached one goes with the thread's namespace
	})
	return f, err
}

// onThread runs f on a thread of its own that has unshared what flags say (its
// working directory and root always among it). The thread ends with f, and
// goroutines f starts do not run on it.
func onThread(flags int, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread never ends, and it is the one whose
			// root and mounts /proc/self shows. Keep it busy while another
			// does the work.
			err := onThread(flags, f)
			runtime.UnlockOSThread()
			result <- err
			return
		}
		// Not unlocked, so that the runtime ends the thread with the goroutine.
		if err := unix.Unshare(unix.CLONE_FS | flags); err != nil {
			result <- os.NewSyscallError("unshare", err)
			return
		}
		result <- f()
	}()
	return <-result
}
