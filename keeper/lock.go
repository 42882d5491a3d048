package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// place is where a keeper lives.
//
// Two locks settle who may be the keeper. The life lock, on keeper.lock, is
// held by a keeper from before it listens until its death. The door lock, on
// the containers directory, is held for a moment by who looks for a keeper and
// starts one, and by a keeper that is about to end itself: so nobody who looks
// finds a keeper half made or half gone.
type place struct{ root string }

func (p place) socket() string     { return filepath.Join(p.root, "keeper.sock") }
func (p place) lifeLock() string   { return filepath.Join(p.root, "keeper.lock") }
func (p place) logFile() string    { return filepath.Join(p.root, "keeper.log") }
func (p place) containers() string { return filepath.Join(p.root, "containers") }

// make creates the directories. An existing root keeps its mode.
func (p place) make() error {
	if !filepath.IsAbs(p.root) {
		return fmt.Errorf("keeper root %q: path must be absolute: %w", p.root, errdefs.ErrInvalid)
	}
	if err := os.MkdirAll(p.containers(), 0o700); err != nil {
		return fmt.Errorf("make keeper root: %w", err)
	}
	return nil
}

// lockDoor waits for the door lock; closing the file releases it.
func (p place) lockDoor(ctx context.Context) (*os.File, error) {
	dir, err := os.Open(p.containers())
	if err != nil {
		return nil, err
	}
	locked := make(chan error)
	go func() {
		err := flock(dir, unix.LOCK_EX)
		select {
		case locked <- err:
		case <-ctx.Done():
			dir.Close()
		}
	}()
	select {
	case err = <-locked:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", p.containers(), err)
	}
	return dir, nil
}

// lockLife takes the life lock, or fails with ErrConflict at once.
func (p place) lockLife() (*os.File, error) {
	for {
		file, err := os.OpenFile(p.lifeLock(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = flock(file, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another keeper runs in %s: %w", p.root, errdefs.ErrConflict)
		}
		if err != nil {
			file.Close()
			return nil, err
		}
		if sameFile(file, p.lifeLock()) {
			return file, nil
		}
		file.Close() // the previous keeper has removed it meanwhile
	}
}

func sameFile(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// flock locks a file that we alone use, so making it blocking harms nobody.
func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// maxSocketPath is the longest path that fits sun_path with its final zero
// (unix(7)).
const maxSocketPath = 107

// address calls f with a name for the socket that is short enough.
func (p place) address(f func(*net.UnixAddr) error) error {
	name := p.socket()
	if len(name) > maxSocketPath {
		dir, err := os.OpenFile(p.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer dir.Close()
		name = filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(name))
	}
	return f(&net.UnixAddr{Name: name, Net: "unix"})
}

// listen makes the socket. It replaces one that a dead keeper left; who calls
// it holds the life lock.
func (p place) listen() (l *net.UnixListener, err error) {
	if err := os.Remove(p.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err = p.address(func(addr *net.UnixAddr) error {
		// Nobody may connect before the mode is set: the peer is checked too,
		// but a socket must not be open to all even for a moment.
		old := unix.Umask(0o177)
		l, err = net.ListenUnix("unix", addr)
		unix.Umask(old)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", p.socket(), err)
	}
	l.SetUnlinkOnClose(false) // whose name may be a descriptor's; see remove
	return l, nil
}

// remove deletes what a keeper that ends leaves behind, its log excepted.
func (p place) remove() error {
	return errors.Join(ignoreNotExist(os.Remove(p.socket())), ignoreNotExist(os.Remove(p.lifeLock())))
}

// dial connects to the keeper. [errdefs.ErrUnavailable] is added when there is
// none.
func (p place) dial(ctx context.Context) (conn *net.UnixConn, err error) {
	err = p.address(func(addr *net.UnixAddr) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", addr.Name)
		if err == nil {
			conn = c.(*net.UnixConn)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		err = errdefs.As(errdefs.ErrUnavailable, err)
	}
	return conn, err
}
