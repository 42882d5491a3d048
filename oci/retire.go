package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Poststop hooks run when nothing of the container is left (runtime.md,
// "Lifecycle", steps 12 and 13): its id is free by then, and who asks for its
// state hears that there is none. But whoever deletes it may be killed before they
// have run. So its directory goes to a place that no id can name, and away with
// the last hook; the next delete of that id that finds no container, or one with
// such hooks of its own, runs what it finds there. A hook may thus run twice, and is
// never lost.

// retiredDir, in the store's root, holds a directory for each id, with one for
// each container of that id whose hooks are still to run.
const retiredDir = ".deleted"

// retire takes a container of which nothing runs out of the store.
func (c *Container) retire() error {
	dir := filepath.Join(filepath.Dir(c.path), retiredDir, c.ID)
	to := filepath.Join(dir, strconv.FormatInt(c.Created.UnixNano(), 10))
	for {
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = unix.Rename(c.path, to)
		}
		switch {
		case err == nil:
			c.path = to
			return nil
		case !errors.Is(err, fs.ErrNotExist) || !c.there():
			return &os.PathError{Op: "rename", Path: c.path, Err: err}
		} // another container's end has just removed the empty directory
	}
}

// afterlife runs the poststop hooks of a container that has been retired, and
// removes what is left of it.
func (c *Container) afterlife(spec *specs.Spec) error {
	c.poststop(spec)
	path := c.path
	err := c.Remove()
	removeRetired(path)
	return err
}

// removeRetired removes the directories above a retired container that are empty.
func removeRetired(path string) {
	byID := filepath.Dir(path)
	_ = os.Remove(byID) // another of that id may be there
	_ = os.Remove(filepath.Dir(byID))
}

// FinishDelete runs the poststop hooks of containers with that id whose deletion was
// interrupted, and tells whether there were any. Where a deletion is just running
// them they are left to it.
func (s *Store) FinishDelete(id string) (found bool, err error) {
	if err := CheckID(id); err != nil {
		return false, err
	}
	dir := filepath.Join(s.Root, retiredDir, id)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	for _, e := range entries {
		one, ferr := s.finish(id, filepath.Join(dir, e.Name()))
		found, err = found || one, errors.Join(err, ferr)
	}
	return found, err
}

func (s *Store) finish(id, path string) (bool, error) {
	c, err := lockNow(path, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.ID, c.onWarning = id, s.Warn
	b, err := ReadSmallFile(filepath.Join(path, "state.json"))
	if errors.Is(err, fs.ErrNotExist) { // its hooks have run
		err = c.Remove()
		removeRetired(path)
		return true, err
	}
	if err == nil {
		err = c.decode(id, b)
	}
	var spec *specs.Spec
	if err == nil {
		spec, err = c.Spec()
	}
	if err != nil {
		c.Close()
		return false, errdefs.WithHint(fmt.Errorf("poststop hooks of a deleted container %s: %w", id, err),
			"nothing of it runs; run what its hooks were to do, then remove the directory "+path)
	}
	return true, c.afterlife(spec)
}
