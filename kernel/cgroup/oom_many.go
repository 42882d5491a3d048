package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// OOMWatcher watches many groups at once. One goroutine waits for all of them; a
// group costs a descriptor on v1, which is nobody's to read, and none on v2.
type OOMWatcher struct {
	// file is what is waited for: an epoll instance with an eventfd for each group
	// on v1, an inotify instance on v2.
	file *os.File
	v2   bool

	mu     sync.Mutex
	closed bool
	last   int32            // of the numbers given on v1
	names  map[int32]string // by that number, or by the inotify watch
	events map[int32]int    // v1: the eventfd of each
}

// NewOOMWatcher makes a watcher without groups. Whoever calls it closes it. On a
// host without a memory controller it is an [errdefs.ErrUnsupported].
func NewOOMWatcher() (*OOMWatcher, error) {
	g, err := Plan("/berth") // made by nobody: it tells where the controller is
	if err != nil {
		return nil, err
	}
	defer g.Close()
	b := g.branch("memory")
	if b == nil {
		return nil, fmt.Errorf("watch memory: this host has no memory controller: %w", errdefs.ErrUnsupported)
	}
	w := &OOMWatcher{v2: b.v2, names: map[int32]string{}, events: map[int32]int{}}
	var fd int
	if w.v2 {
		fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	} else if fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		err = unix.SetNonblock(fd, true) // for the runtime's poller
	}
	if err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	w.file = os.NewFile(uintptr(fd), "memory")
	return w, nil
}

// Add watches a group; [OOMWatcher.Next] gives its name. stop ends that.
func (w *OOMWatcher) Add(g *Group, name string) (stop func(), err error) {
	b := g.branch("memory")
	if b == nil {
		return nil, fmt.Errorf("watch memory of cgroup %s: this host has no memory controller: %w", g.path, errdefs.ErrUnsupported)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	add := w.addV1
	if w.v2 {
		add = w.addV2
	}
	if stop, err = add(b, name); err != nil {
		return nil, fmt.Errorf("watch memory of cgroup %s: %w", g.path, classify(err))
	}
	return stop, nil
}

// addV1 registers an eventfd with the group's OOM notifier. It is edge-triggered:
// nobody has to read it.
func (w *OOMWatcher) addV1(b *branch, name string) (stop func(), err error) {
	one := &OOMWatch{b: b}
	if err := one.openV1(); err != nil {
		return nil, err
	}
	// No *os.File: the runtime's poller is not to wait for it.
	event, err := unix.FcntlInt(one.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, one.file.Close()); err != nil {
		return nil, err
	}
	w.last++
	number := w.last
	err = w.control(func(epoll int) error {
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: number})
	})
	if err != nil {
		unix.Close(event)
		return nil, err
	}
	w.names[number], w.events[number] = name, event
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if event, ok := w.events[number]; ok { // else all of it has been closed
			unix.Close(event) // which takes it out of the epoll instance
			delete(w.names, number)
			delete(w.events, number)
		}
	}, nil
}

// addV2 watches the file that the kernel modifies at each event.
func (w *OOMWatcher) addV2(b *branch, name string) (stop func(), err error) {
	var watch int
	err = w.control(func(inotify int) (err error) {
		watch, err = unix.InotifyAddWatch(inotify, b.dir+"/memory.events", unix.IN_MODIFY)
		return err
	})
	if err != nil {
		return nil, err
	}
	number := int32(watch)
	w.names[number] = name
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.names, number)
		// It fails when the group has gone, and its file with it.
		_ = w.control(func(inotify int) error {
			_, err := unix.InotifyRmWatch(inotify, uint32(number))
			return err
		})
	}, nil
}

// control calls f with the descriptor while it is open.
func (w *OOMWatcher) control(f func(fd int) error) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// Next waits for groups that may have run out of memory, or, on v1, have been removed,
// and returns their names. Ask [Group.OOMKills] what has happened; on v1 the kernel
// tells before it kills. It returns [os.ErrClosed] after [OOMWatcher.Close].
func (w *OOMWatcher) Next() ([]string, error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	take := takeEpoll
	if w.v2 {
		take = takeInotify
	}
	var numbers []int32
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		numbers, inner = take(int(fd))
		return len(numbers) > 0 || inner != nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, os.ErrClosed
	}
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("wait for want of memory: %w", err)
	}
	var names []string
	for _, n := range numbers {
		if name, ok := w.names[n]; ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// takeEpoll takes what has happened, nothing when nothing has.
func takeEpoll(fd int) (numbers []int32, err error) {
	var events [64]unix.EpollEvent
	n, err := unix.EpollWait(fd, events[:], 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return nil, err
	}
	for i := range max(n, 0) {
		numbers = append(numbers, events[i].Fd)
	}
	return numbers, nil
}

// takeInotify does the same for inotify(7) events.
func takeInotify(fd int) (numbers []int32, err error) {
	var buf [4096]byte
	n, err := unix.Read(fd, buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for events := buf[:n]; len(events) >= unix.SizeofInotifyEvent; {
		numbers = append(numbers, int32(binary.NativeEndian.Uint32(events)))
		events = events[unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:])):]
	}
	return numbers, nil
}

// Close ends the watch, and a Next in progress.
func (w *OOMWatcher) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	err := w.file.Close()
	for number, event := range w.events {
		err = errors.Join(err, unix.Close(event))
		delete(w.events, number)
	}
	return err
}
