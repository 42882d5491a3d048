package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/network"
	"github.com/berth-containers/berth/volume"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// What the engine and its parts make in the two roots; nothing else is removed
// from there.
var (
	runRootEntries   = []string{"network", "netns", "shm", "containers", "keeper.sock", "keeper.lock", "keeper.log", "autostart.lock", "berthd.log", "berthd.pid"}
	stateRootEntries = []string{"containers", "volumes", "image", "network", "engine-id", formatFile, "berthd.pid", eventsFile, eventsFile + olderSuffix}
)

// Purge ends all containers and the keeper and removes everything Berth has
// made on this host under cfg: containers, images, volumes, networks, firewall
// table, cgroups and both roots. No engine may be open on them. What is not
// there is no error; it does what it can and joins the errors.
func Purge(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	err := errors.Join(
		removeContainers(ctx, cfg),
		quitKeeper(ctx, cfg.RunRoot),
		network.Purge(ctx, cfg.networkOptions()),
		removeCgroups(cfg.CgroupParent),
		removeAppArmor(),
		unmountAll(filepath.Join(cfg.RunRoot, "shm")),
		volume.UnmountAll(filepath.Join(cfg.StateRoot, "volumes")),
		removeEntries(cfg.RunRoot, runRootEntries),
		removeEntries(cfg.StateRoot, stateRootEntries))
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

// removeContainers removes the containers one by one, with all that the parts
// made for each. Without a record of one there is nothing to do.
func removeContainers(ctx context.Context, cfg Config) (err error) {
	records, err := os.ReadDir(filepath.Join(cfg.StateRoot, "containers"))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(records) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	list, err := e.ContainerList(ctx, ListOptions{All: true})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range list {
		err := e.ContainerRemove(ctx, c.ID, RemoveOptions{Force: true, Volumes: true})
		if !errors.Is(err, errdefs.ErrNotFound) { // with --rm it may be gone at its end
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// quitKeeper kills what the keeper still runs, then ends it, and returns when
// both are gone.
func quitKeeper(ctx context.Context, root string) error {
	c, err := keeper.Connect(ctx, keeper.ConnectOptions{Root: root})
	if errors.Is(err, errdefs.ErrUnavailable) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	// While the connection stands the pid is the keeper's.
	pidfd, err := unix.PidfdOpen(c.Info().Pid, 0)
	if err != nil {
		return fmt.Errorf("open keeper: %w", err)
	}
	defer unix.Close(pidfd)
	running, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, p := range running {
		if p.ExecID == "" && !p.Exited {
			// One that has just ended needs no signal.
			_ = c.Signal(ctx, p.ContainerID, "", unix.SIGKILL)
		}
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("end keeper: %w", err)
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		return fmt.Errorf("end keeper: %w", ctx.Err())
	}
	return awaitProcess(ctx, pidfd)
}

// awaitProcess returns when the process behind pidfd is gone.
func awaitProcess(ctx context.Context, pidfd int) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("wait for keeper: %w", err)
	}
	defer unix.Close(wake)
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer stop()
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for keeper: %w", err)
		case fds[0].Revents != 0:
			return nil
		default:
			return fmt.Errorf("wait for keeper: %w", ctx.Err())
		}
	}
}

// removeCgroups removes the cgroup that containers live below, with what a
// killed keeper has left there.
func removeCgroups(parent string) error {
	group, err := cgroup.Load(parent)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return group.Destroy()
}

// unmountAll unmounts what is mounted directly below dir.
func unmountAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, &os.PathError{Op: "unmount", Path: path, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeEntries removes the named entries of a root, and the root when nothing
// else is in it. Below a mount, which the engine has not made, nothing is
// removed: that would be somebody's files.
func removeEntries(root string, names []string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var errs []error
	for _, name := range names {
		path := filepath.Join(root, name)
		if inner := mountAt(mounts, path); inner != "" {
			errs = append(errs, errdefs.As(errdefs.ErrConflict, fmt.Errorf("remove %s: %s is a mount", path, inner)))
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	err = os.Remove(root)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
		err = nil
	}
	return errors.Join(append(errs, err)...)
}

// mountAt returns a mount point at or below path, "" when there is none. One
// that another mount hides is not in the way.
func mountAt(mounts []*mountinfo.Info, path string) string {
	for _, m := range mounts {
		if m.Mountpoint != path && !strings.HasPrefix(m.Mountpoint, path+"/") {
			continue
		}
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, m.Mountpoint, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
		if err == nil && st.Mnt_id == uint64(m.ID) {
			return m.Mountpoint
		}
	}
	return ""
}
