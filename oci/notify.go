package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// A service manager learns by a message that a service is ready (sd_notify(3)). A
// container has a socket of its own for its messages: the host's would show it who
// else is there. The socket is in a directory of the container's, which the
// container sees as notifyInside, where runc has it too.
const (
	notifyDir    = "notify"
	notifySocket = "notify.sock"
	notifyInside = "/run/notify"
)

// OfferNotify adds to spec what a command needs to say that it is ready: the
// socket's directory, and NOTIFY_SOCKET. It is for a new container, before Launch;
// the socket itself is made by [Container.ListenNotify].
func (c *Container) OfferNotify(spec *specs.Spec) error {
	dir := filepath.Join(c.path, notifyDir)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the directory of the notify socket: %w", err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: notifyInside, Source: dir, Type: "bind",
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	spec.Process.Env = append(spec.Process.Env, "NOTIFY_SOCKET="+notifyInside+"/"+notifySocket)
	return nil
}

// ListenNotify makes the socket of a container that was offered one, and opens it:
// a datagram socket, which the caller closes. For another container it is
// [errdefs.ErrNotFound].
func (c *Container) ListenNotify() (socket int, err error) {
	path := filepath.Join(c.path, notifyDir, notifySocket)
	socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make the notify socket: %w", err)
	}
	_ = os.Remove(path) // of a start that was interrupted
	if err = unix.Bind(socket, &unix.SockaddrUnix{Name: path}); err == nil {
		err = os.Chmod(path, 0o777) // whoever the command runs as
	}
	if err == nil {
		return socket, nil
	}
	unix.Close(socket)
	if errors.Is(err, unix.ENOENT) {
		return -1, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("container %s was created without NOTIFY_SOCKET", c.ID))
	}
	return -1, fmt.Errorf("make the notify socket %s: %w", path, err)
}

// removeNotify removes all that OfferNotify and ListenNotify make.
func (c *Container) removeNotify() error {
	dir := filepath.Join(c.path, notifyDir)
	for _, path := range []string{filepath.Join(dir, notifySocket), dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
