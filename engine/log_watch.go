package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// logWatch wakes those who follow a log when its files change. One inotify
// instance serves all followers: the kernel allows a user only 128.
type logWatch struct {
	file *os.File
	done chan struct{}

	mu   sync.Mutex
	dirs map[int32]*watchedDir
}

// watchedDir is a directory with the followers of the logs in it.
type watchedDir struct {
	path  string
	wakes map[*logWake]struct{}
}

// logWake is one follower's bell: C holds at most one ring.
type logWake struct {
	C    chan struct{}
	name string // the current file's name; rotated ones begin with it
}

func newLogWatch() (*logWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch logs: %w", err)
	}
	w := &logWatch{file: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}), dirs: map[int32]*watchedDir{}}
	go w.run()
	return w, nil
}

// close ends the watch. Followers are not woken; they end with their contexts.
func (w *logWatch) close() {
	w.file.Close()
	<-w.done
}

// follow rings at every change of the log at path until stop is called. It
// rings once at first, so that a change before the watch is not missed.
func (w *logWatch) follow(path string) (wake *logWake, stop func(), err error) {
	wake = &logWake{C: make(chan struct{}, 1), name: filepath.Base(path)}
	wake.ring()
	dir := filepath.Dir(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := w.add(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("watch log directory %s: %w", dir, err)
	}
	d := w.dirs[wd]
	if d == nil {
		d = &watchedDir{path: dir, wakes: map[*logWake]struct{}{}}
		w.dirs[wd] = d
	}
	d.wakes[wake] = struct{}{}
	return wake, func() { w.leave(wd, d, wake) }, nil
}

func (w *logWatch) add(dir string) (int32, error) {
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR
	raw, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var wd int
	ctlErr := raw.Control(func(fd uintptr) { wd, err = unix.InotifyAddWatch(int(fd), dir, mask) })
	return int32(wd), errors.Join(ctlErr, err)
}

// leave drops a follower and, with the last one, the watch.
func (w *logWatch) leave(wd int32, d *watchedDir, wake *logWake) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(d.wakes, wake)
	if len(d.wakes) > 0 || w.dirs[wd] != d {
		return
	}
	delete(w.dirs, wd)
	if raw, err := w.file.SyscallConn(); err == nil {
		// It fails when the directory is gone, and the watch with it.
		raw.Control(func(fd uintptr) { unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

func (k *logWake) ring() {
	select {
	case k.C <- struct{}{}:
	default:
	}
}

// run reads the kernel's events, inotify(7), and rings.
func (w *logWatch) run() {
	defer close(w.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			name, _, _ := strings.Cut(string(b[unix.SizeofInotifyEvent:size]), "\x00")
			w.dispatch(wd, mask, name)
			b = b[size:]
		}
	}
}

func (w *logWatch) dispatch(wd int32, mask uint32, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if mask&unix.IN_Q_OVERFLOW != 0 { // events were lost: everybody looks
		for _, d := range w.dirs {
			for wake := range d.wakes {
				wake.ring()
			}
		}
		return
	}
	d := w.dirs[wd]
	if d == nil {
		return
	}
	for wake := range d.wakes {
		if mask&unix.IN_IGNORED != 0 || strings.HasPrefix(name, wake.name) {
			wake.ring()
		}
	}
	if mask&unix.IN_IGNORED != 0 { // the directory is gone
		delete(w.dirs, wd)
	}
}
