package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// errRunning: another daemon owns a root.
var errRunning = errors.New("another berthd is running")

// rootLocks are the files that make sure that one daemon owns a root. The
// kernel drops the locks with the process, so that a killed daemon leaves none.
type rootLocks struct {
	files   []*os.File
	pidFile string
}

// lockRoots makes the roots, locks both and writes the pid.
func lockRoots(cfg *config) (*rootLocks, error) {
	locks := &rootLocks{}
	for _, root := range []struct{ name, path string }{{"run root", cfg.RunRoot}, {"state root", cfg.StateRoot}} {
		file, err := lockRoot(root.name, root.path)
		if err != nil {
			return nil, errors.Join(err, locks.release())
		}
		locks.files = append(locks.files, file)
	}
	if cfg.PidFile != "" {
		if err := os.WriteFile(cfg.PidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			return nil, errors.Join(fmt.Errorf("write pid file: %w", err), locks.release())
		}
		locks.pidFile = cfg.PidFile
	}
	return locks, nil
}

// lockRoot locks ROOT/berthd.pid, which names the daemon that owns the root.
func lockRoot(name, root string) (*os.File, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	file, err := os.OpenFile(filepath.Join(root, "berthd.pid"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) && ownerIsGone(file) {
		err = lockSoon(file)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = heldBy(file, name, root)
	} else if err == nil {
		err = writePid(file)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// ownerPatience bounds the wait for a lock whose owner has been killed.
const ownerPatience = 10 * time.Second

// ownerIsGone says that the daemon that took the lock is dead. It may have been
// killed while it started a program: the child has the lock until it executes that,
// which on a busy host takes a moment.
func ownerIsGone(file *os.File) bool {
	pid, err := strconv.Atoi(lockedBy(file))
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// lockSoon waits for such a lock. EWOULDBLOCK: it is not given up.
func lockSoon(file *os.File) error {
	locked := make(chan error, 1)
	go func() {
		for {
			if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
				locked <- err
				return
			}
		}
	}()
	timer := time.NewTimer(ownerPatience)
	defer timer.Stop()
	select {
	case err := <-locked:
		return err
	case <-timer.C:
		return unix.EWOULDBLOCK // who waits on ends with this process
	}
}

// lockedBy is the pid that a lock file names, "" when it names none.
func lockedBy(file *os.File) string {
	text := make([]byte, 32)
	n, _ := file.ReadAt(text, 0)
	return strings.TrimSpace(string(text[:n]))
}

// heldBy names the daemon that holds a lock.
func heldBy(file *os.File, name, root string) error {
	pid := lockedBy(file)
	if pid == "" {
		pid = "not known yet"
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrConflict, fmt.Errorf("%w: pid %s uses %s %s", errRunning, pid, name, root)),
		"use it, stop it, or give this one roots of its own with --run-root and --state-root")
}

func writePid(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("write pid: %w", err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write pid: %w", err)
	}
	return nil
}

// release gives the roots back. The lock files stay, empty: removing one that
// another daemon has just opened would let a third one lock a new file.
func (l *rootLocks) release() error {
	var errs []error
	for _, file := range l.files {
		errs = append(errs, file.Truncate(0), file.Close())
	}
	if l.pidFile != "" {
		errs = append(errs, os.Remove(l.pidFile))
	}
	return errors.Join(errs...)
}
