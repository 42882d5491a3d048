package image

import (
	"errors"
	"os"
	"path/filepath"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// keptDirs is how many directories of a layer are held open: archives name the
// files of a directory one after the other, and few are deeper than this.
const keptDirs = 32

// layerDirs are the directories of a layer that is extracted, by the names its
// archive has for them: a link on the way is followed, inside the layer's own
// directory. A descriptor is good until the next call but one.
type layerDirs struct {
	path  string
	root  int
	held  map[string]*openDir
	clock uint64
}

type openDir struct {
	fd   int
	used uint64
}

func newLayerDirs(path string) (*layerDirs, error) {
	root, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &layerDirs{path: path, root: root, held: map[string]*openDir{}}, nil
}

func (d *layerDirs) close() {
	d.forget()
	unix.Close(d.root)
}

// forget gives up all descriptors but the root's: what they are of may have
// another name now, or none.
func (d *layerDirs) forget() {
	for name, o := range d.held {
		unix.Close(o.fd)
		delete(d.held, name)
	}
}

// open opens a directory that is there; "" is the layer's own.
func (d *layerDirs) open(name string) (int, error) {
	if name == "" {
		return d.root, nil
	}
	if fd, ok := d.known(name); ok {
		return fd, nil
	}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(d.root, name, &how)
		switch {
		case err == nil:
			return d.hold(name, fd), nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // somebody on this host has moved something
		default:
			return -1, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// make is open for a directory that may be missing.
func (d *layerDirs) make(name string) (int, error) {
	fd, err := d.open(name)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, base := splitName(name)
	above, err := d.make(parent)
	if err != nil {
		return -1, err
	}
	err = unix.Mkdirat(above, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		return d.makeTarget(name)
	}
	if err != nil {
		return -1, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	if fd, err = d.enter(above, base, name); err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, 0o755); err != nil { // whatever the umask
		return -1, &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return fd, nil
}

// makeTarget makes the directory that a dangling link is meant to lead to.
func (d *layerDirs) makeTarget(link string) (int, error) {
	name, err := d.resolve(link)
	if err == nil && name == link {
		err = &os.PathError{Op: "open", Path: link, Err: unix.ENOENT}
	}
	if err != nil {
		return -1, err
	}
	return d.make(name)
}

// resolve is the name of a directory without links in it.
func (d *layerDirs) resolve(name string) (string, error) {
	path, err := cfs.RootPath(d.path, name)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(d.path, path)
	if err != nil || rel == "." {
		return "", err
	}
	return rel, nil
}

// enter opens the directory base of another one, which name is the name of.
func (d *layerDirs) enter(dir int, base, name string) (int, error) {
	if fd, ok := d.known(name); ok {
		return fd, nil
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return d.hold(name, fd), nil
}

// known is a directory that is held open.
func (d *layerDirs) known(name string) (fd int, ok bool) {
	o := d.held[name]
	if o == nil {
		return -1, false
	}
	d.clock++
	o.used = d.clock
	return o.fd, true
}

// hold keeps a descriptor, in the place of the one that was not used for longest.
func (d *layerDirs) hold(name string, fd int) int {
	if len(d.held) >= keptDirs {
		var oldest string
		least := d.clock + 1
		for n, o := range d.held {
			if o.used < least {
				oldest, least = n, o.used
			}
		}
		unix.Close(d.held[oldest].fd)
		delete(d.held, oldest)
	}
	d.clock++
	d.held[name] = &openDir{fd, d.clock}
	return fd
}
