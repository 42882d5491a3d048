package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
)

// joins are the namespaces of other containers that a starting one enters.
// They are held open and handed on as paths to our own descriptors: a path by
// pid could name another process by the time it is opened.
type joins struct{ net, pid, ipc *os.File }

// openJoins opens what the modes ask for. The other containers must run.
func (e *Engine) openJoins(rec *record) (_ *joins, err error) {
	j := new(joins)
	var undo cleanup
	undo.add(j.close)
	defer undo.run()
	hc := rec.HostConfig
	if hc.NetworkMode.IsContainer() {
		if j.net, err = e.openNamespace(hc.NetworkMode.ConnectedContainer(), "net"); err != nil {
			return nil, err
		}
	}
	if hc.PidMode.IsContainer() {
		if j.pid, err = e.openNamespace(hc.PidMode.Container(), "pid"); err != nil {
			return nil, err
		}
	}
	if hc.IpcMode.IsContainer() {
		if j.ipc, err = e.openNamespace(hc.IpcMode.Container(), "ipc"); err != nil {
			return nil, err
		}
	}
	undo.release()
	return j, nil
}

// openNamespace opens a namespace of a running container's init.
func (e *Engine) openNamespace(id, kind string) (*os.File, error) {
	c, err := e.containers.get(id)
	if err != nil {
		return nil, fmt.Errorf("join %s namespace: %w", kind, err)
	}
	before := c.snapshot().State
	if !before.active() || before.Pid == 0 {
		return nil, errdefs.WithHint(fmt.Errorf("join %s namespace: %w", kind, errNotRunning(id)), "start that container first")
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", before.Pid, kind))
	if err != nil {
		return nil, fmt.Errorf("join %s namespace of container %s: %w", kind, short(id), err)
	}
	// The init has not been reaped if it can still be signalled and the record
	// still names it: then the file opened was its own.
	if unix.Kill(before.Pid, 0) != nil || c.snapshot().State.Pid != before.Pid {
		f.Close()
		return nil, fmt.Errorf("join %s namespace: %w", kind, errNotRunning(id))
	}
	return f, nil
}

// path names an open namespace for the keeper, another process.
func (j *joins) path(f *os.File) string {
	if f == nil {
		return ""
	}
	return descriptorPath(f)
}

func (j *joins) close() {
	for _, f := range []*os.File{j.net, j.pid, j.ipc} {
		if f != nil {
			f.Close()
		}
	}
}

// shmDir is where a shareable container's /dev/shm is mounted on the host,
// the only one that has to be: others bind it.
func (e *Engine) shmDir(id string) string { return filepath.Join(e.cfg.RunRoot, "shm", id) }

// prepareShm returns the directory bound at /dev/shm: the host's, another
// container's, or the container's own when others may join; "" for a private
// tmpfs.
func (e *Engine) prepareShm(rec *record) (string, error) {
	hc := rec.HostConfig
	switch {
	case hc.IpcMode.IsHost():
		return shmPath, nil
	case hc.IpcMode.IsContainer():
		return e.shmDir(hc.IpcMode.Container()), nil
	case !hc.IpcMode.IsShareable():
		return "", nil
	}
	dir := e.shmDir(rec.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	_, files := rec.Labels.shown()
	data := label.FormatMountLabel(fmt.Sprintf("mode=1777,size=%d", hc.ShmSize), files)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, data); err != nil {
		return "", &os.PathError{Op: "mount shm", Path: dir, Err: err}
	}
	fault.Here(fault.StartShm)
	return dir, nil
}

// removeShm undoes prepareShm; nothing there is fine.
func (e *Engine) removeShm(id string) error {
	dir := e.shmDir(id)
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unmount", Path: dir, Err: err}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
