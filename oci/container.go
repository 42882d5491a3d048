package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// A container used through the OCI command line has a directory of its own
// below the runtime's root:
//
//	config.json  the specification it was created from
//	state.json   its record (struct record)
//	program      while created: the program its process runs, with the report
//	start        while created: the fifo that starts it
//	notify/      the directory of its notify socket, when it has one
//
// It is in .deleted/ID/ while its poststop hooks run (retire.go).
//
// The directory is locked (flock) during every change.

// Store is the directory of all containers of one runtime root.
type Store struct {
	Root string
	// Warn is told of what goes wrong without stopping the act: a poststop hook
	// that fails. Nil: nobody is.
	Warn func(string)
}

// Container is one container of a Store, locked. Close releases it.
type Container struct {
	dir   *os.File // holds the lock
	path  string
	group *cgroup.Group // once used
	made  bool          // Launch has made the cgroup
	// onWarning is the store's Warn.
	onWarning func(string)
	record
}

// CheckID refuses names that are no container ids: one becomes part of paths.
// (Written out: compiling a regular expression would take longer than all the
// other checks.)
func CheckID(id string) error {
	ok := id != "" && len(id) <= 1024 && id[0] != '.'
	for _, c := range []byte(id) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		ok = ok && (letter || digit || c == '_' || c == '+' || c == '-' || c == '.')
	}
	if !ok {
		return errdefs.As(errdefs.ErrInvalid,
			fmt.Errorf("container id %q: letters, digits and _ + - . only, not beginning with a dot", id))
	}
	return nil
}

// New makes the container's directory and locks it. The container does not
// exist for others until its record is written.
func (s *Store) New(id, bundle string, config []byte) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	c, err := s.claim(filepath.Join(s.Root, id))
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s exists already", id)),
			"delete it first, or take another id")
	}
	c.onWarning = s.Warn
	c.record = record{ID: id, Bundle: bundle, Created: time.Now().UTC()}
	if err := c.writeSmallFile("config.json", config); err != nil {
		c.Remove()
		return nil, err
	}
	return c, nil
}

// claim makes a container's directory and locks it, or takes over one in which
// an interrupted creation has left no record. It is nil when the container
// exists.
func (s *Store) claim(path string) (*Container, error) {
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
		c, err := lock(path)
		if errors.Is(err, fs.ErrNotExist) { // deleted before we had it
			continue
		}
		if err != nil {
			return nil, err
		}
		recorded, err := c.recorded()
		if err == nil && !recorded {
			return c, nil
		}
		c.Close()
		return nil, err
	}
}

// lock opens and locks a container's directory. One that was deleted meanwhile
// is fs.ErrNotExist: another may have its name now.
func lock(path string) (*Container, error) { return lockNow(path, unix.LOCK_EX) }

// lockNow is lock with a flag of flock(2): LOCK_NB does not wait.
func lockNow(path string, how int) (*Container, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	c := &Container{dir: os.NewFile(uintptr(fd), path), path: path}
	err = unix.Flock(int(c.dir.Fd()), how)
	if err == nil && !c.there() {
		err = unix.ENOENT
	}
	if err != nil {
		c.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return c, nil
}

// there tells whether the directory still is the one at its path: neither deleted
// nor retired.
func (c *Container) there() bool {
	var held, named unix.Stat_t
	return unix.Fstat(int(c.dir.Fd()), &held) == nil && unix.Stat(c.path, &named) == nil &&
		held.Dev == named.Dev && held.Ino == named.Ino
}

// recorded tells whether the container has a record.
func (c *Container) recorded() (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(c.dir.Fd()), "state.json", &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "stat", Path: c.path + "/state.json", Err: err}
	}
	return true, nil
}

// Open finds and locks a container. What a creation that was interrupted before
// its record has left is removed.
func (s *Store) Open(id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	notFound := errdefs.As(errdefs.ErrNotFound, fmt.Errorf("container %s does not exist", id))
	c, err := lock(filepath.Join(s.Root, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound
	}
	if err != nil {
		return nil, err
	}
	c.onWarning = s.Warn
	b, err := ReadSmallFile(filepath.Join(c.path, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		c.ID = id
		if err := c.Remove(); err != nil {
			return nil, err
		}
		return nil, notFound
	}
	if err == nil {
		err = c.decode(id, b)
	}
	if err != nil {
		c.Close()
		return nil, errdefs.WithHint(fmt.Errorf("record of container %s: %w", id, err),
			"its processes and its cgroup are not known; see that they are gone, then remove the directory "+c.path)
	}
	return c, nil
}

// decode reads the record. One that was cut off or is another's must not be
// acted upon.
func (c *Container) decode(id string, b []byte) error {
	var err error
	if c.record, err = readRecord(b); err != nil {
		return fmt.Errorf("%s/state.json: %w", c.path, err)
	}
	if c.ID != id || c.Pid < 0 || c.Bundle == "" {
		return fmt.Errorf("%s/state.json: not a record of this container", c.path)
	}
	return nil
}

// Look reads a container's record without waiting for whoever changes it: for
// those who only want to see. Hooks of its own creation may.
func (s *Store) Look(id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	c := &Container{path: filepath.Join(s.Root, id), onWarning: s.Warn}
	b, err := ReadSmallFile(filepath.Join(c.path, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("container %s does not exist", id))
	}
	if err == nil {
		err = c.decode(id, b)
	}
	if err != nil {
		return nil, fmt.Errorf("record of container %s: %w", id, err)
	}
	return c, nil
}

// List returns the ids of all containers, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Close unlocks the container.
func (c *Container) Close() {
	if c.group != nil {
		c.group.Close()
		c.group = nil
	}
	if c.dir != nil { // not after Look
		c.dir.Close()
	}
}

// Remove deletes the container's directory and unlocks it. The record goes first:
// from then on the container does not exist, and what an interruption leaves is
// removed by Open.
func (c *Container) Remove() error {
	defer c.Close()
	for _, name := range []string{"state.json", "config.json", stagedConfig, "state.json.new", startFifo, programFile} {
		if err := unix.Unlinkat(int(c.dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
			return fmt.Errorf("delete container %s: %s: %w", c.ID, name, err)
		}
	}
	err := os.Remove(c.path)
	if errors.Is(err, unix.ENOTEMPTY) { // what few have: a notify socket, or an interrupted restore
		if err = c.removeNotify(); err == nil {
			err = os.Remove(filepath.Join(c.path, restoreRoot))
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(c.path)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	return nil
}

// save writes the record, atomically.
func (c *Container) save() error {
	if err := c.writeSmallFile("state.json.new", c.appendTo(make([]byte, 0, 1024))); err != nil {
		return err
	}
	dir := int(c.dir.Fd())
	if err := unix.Renameat(dir, "state.json.new", dir, "state.json"); err != nil {
		return fmt.Errorf("write record of container %s: %w", c.ID, err)
	}
	return nil
}

// Spec is the specification the container was created from.
func (c *Container) Spec() (*specs.Spec, error) {
	b, err := ReadSmallFile(filepath.Join(c.path, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.ID, err)
	}
	return ParseSpec(b)
}

// Status is the container's state now, as the kernel knows it.
func (c *Container) Status() specs.ContainerState {
	if c.Pid == 0 {
		return specs.StateCreating
	}
	if !c.alive() {
		return specs.StateStopped
	}
	if c.Creating {
		return specs.StateCreating
	}
	if g, err := c.Group(); err == nil {
		if frozen, err := g.Frozen(); err == nil && frozen {
			return statePaused
		}
	}
	if _, err := os.Lstat(filepath.Join(c.path, startFifo)); err == nil {
		return specs.StateCreated
	}
	return specs.StateRunning
}

// statePaused is runc's addition to the specification's states.
const statePaused specs.ContainerState = "paused"

// alive tells whether the recorded process still runs.
func (c *Container) alive() bool {
	started, ended, err := procStat(c.Pid)
	return err == nil && started == c.Started && !ended
}

// errNotRunning is for a container whose first process has ended. containerd
// knows that by these words, which are runc's.
var errNotRunning = errdefs.As(errdefs.ErrNotFound, errors.New("container not running"))

// Pidfd opens the container's first process. It fails with ErrNotFound class
// when that has ended.
func (c *Container) Pidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err == nil && !c.alive() { // checked after opening: the descriptor cannot be another's
		unix.Close(fd)
		err = unix.ESRCH
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.ID, errNotRunning)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// Group is the container's cgroup, open as long as the Container is. One that
// another made at its path, before the container's was made or after that had
// vanished, is an ErrNotFound: its processes are not ours to touch.
func (c *Container) Group() (*cgroup.Group, error) {
	if c.group == nil {
		if !c.hasGroup() {
			return nil, errNoGroup
		}
		restore := cgroup.Restore
		if c.Owned || c.Pid == 0 {
			restore = func(s cgroup.State) (*cgroup.Group, error) { return cgroup.RestoreOwned(s, c.ownerName()) }
		}
		g, err := restore(c.Cgroup)
		if err != nil {
			return nil, err
		}
		c.group = g
	}
	return c.group, nil
}

// ownerName is what the container's cgroup carries: no other has it, not even
// one with the same id.
func (c *Container) ownerName() string {
	return c.ID + " " + c.Created.Format(time.RFC3339Nano)
}

// Owner is the user id whose container this is.
func (c *Container) Owner() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Lstat(c.path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: c.path, Err: err}
	}
	return st.Uid, nil
}

// State is the container's state as the specification defines it.
func (c *Container) State() (*specs.State, error) {
	st, _, err := c.Details()
	return st, err
}

// Details is the container's state, and the path of its root filesystem.
func (c *Container) Details() (st *specs.State, rootfs string, err error) {
	spec, err := c.Spec()
	if errors.Is(err, fs.ErrNotExist) { // deleted while we looked
		err = errdefs.As(errdefs.ErrNotFound, fmt.Errorf("container %s does not exist", c.ID))
	}
	if err != nil {
		return nil, "", err
	}
	st = &specs.State{Version: specs.Version, ID: c.ID, Status: c.Status(), Pid: c.Pid, Bundle: c.Bundle, Annotations: spec.Annotations}
	if st.Status == specs.StateStopped {
		st.Pid = 0
	}
	if spec.Root != nil {
		rootfs = rootPathOf(spec, c.Bundle)
	}
	return st, rootfs, nil
}
