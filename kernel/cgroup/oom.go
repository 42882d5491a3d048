package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// OOMKills returns how many processes of the group and of the cgroups below it
// the kernel has killed for want of memory. It is 0 when the group is gone or the
// host has no memory controller.
func (g *Group) OOMKills() (uint64, error) {
	b := g.branch("memory")
	if b == nil {
		return 0, nil
	}
	n, err := b.oomKills()
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count OOM kills of cgroup %s: %w", g.path, err)
	}
	return n, nil
}

// oomKills: v2's counter includes the cgroups below, v1's (since 4.13) does not.
func (b *branch) oomKills() (uint64, error) {
	if b.v2 {
		n, _, err := b.readKey("memory.events", "oom_kill")
		return n, err
	}
	var sum uint64
	err := b.walk(func(dir int) error {
		s, err := readAt(dir, "memory.oom_control")
		n, _ := keyed(s, "oom_kill")
		sum += n
		return err
	}, nil)
	return sum, err
}

// OOMWatch tells of processes killed for want of memory in one group.
type OOMWatch struct {
	b     *branch
	file  *os.File // v1: an eventfd; v2: an inotify instance
	kills uint64   // v2: as last seen
	empty int32    // v2: the watch that tells when nobody is left
}

// WatchOOM starts to watch. Whoever calls it closes the watch.
func (g *Group) WatchOOM() (*OOMWatch, error) {
	b := g.branch("memory")
	if b == nil {
		return nil, fmt.Errorf("watch memory of cgroup %s: this host has no memory controller: %w", g.path, errdefs.ErrUnsupported)
	}
	w := &OOMWatch{b: b}
	open := w.openV1
	if b.v2 {
		open = w.openV2
	}
	if err := open(); err != nil {
		return nil, fmt.Errorf("watch memory of cgroup %s: %w", g.path, classify(err))
	}
	return w, nil
}

// openV1 registers an eventfd with the v1 OOM notifier, kernel doc
// cgroup-v1/memory.rst section 10.
func (w *OOMWatch) openV1() error {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	w.file = os.NewFile(uintptr(event), "memory.oom_control")
	control, err := w.b.open("memory.oom_control", unix.O_RDONLY)
	if err != nil {
		return errors.Join(err, w.file.Close())
	}
	defer unix.Close(control)
	if err := w.b.write("cgroup.event_control", fmt.Sprintf("%d %d", event, control)); err != nil {
		return errors.Join(err, w.file.Close())
	}
	return nil
}

// openV2 watches memory.events, which the kernel modifies at each event, and
// cgroup.events: the removal of a cgroup is announced nowhere, but that its last
// process has gone is.
func (w *OOMWatch) openV2() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make inotify instance: %w", err)
	}
	w.file = os.NewFile(uintptr(fd), "memory.events")
	_, err = unix.InotifyAddWatch(fd, w.b.dir+"/memory.events", unix.IN_MODIFY)
	if err != nil {
		return errors.Join(fmt.Errorf("watch memory.events: %w", err), w.file.Close())
	}
	empty, err := unix.InotifyAddWatch(fd, w.b.dir+"/cgroup.events", unix.IN_MODIFY)
	if err != nil {
		return errors.Join(fmt.Errorf("watch cgroup.events: %w", err), w.file.Close())
	}
	w.empty = int32(empty)
	if w.kills, err = w.b.oomKills(); err != nil {
		return errors.Join(err, w.file.Close())
	}
	return nil
}

// Wait blocks until the group has run out of memory and, on v2, the kernel has
// killed for it. On v1 the kernel tells before it kills, and tells the groups
// below of a shortage above them too: ask [Group.OOMKills] when the process has
// ended. Wait returns [io.EOF] when the last process has left the group (v2) or
// the group is removed (v1), and [os.ErrClosed] after [OOMWatch.Close]. One
// goroutine waits at a time.
func (w *OOMWatch) Wait() error {
	if w.b.v2 {
		return w.waitV2()
	}
	var count [8]byte
	if _, err := w.file.Read(count[:]); err != nil {
		return fmt.Errorf("wait for OOM of cgroup %s: %w", w.b.dir, err)
	}
	if _, err := w.b.read("memory.oom_control"); gone(err) {
		return io.EOF
	}
	return nil
}

func (w *OOMWatch) waitV2() error {
	for left := false; ; {
		kills, err := w.b.oomKills()
		switch {
		case gone(err):
			return io.EOF
		case err != nil:
			return err
		case kills != w.kills:
			w.kills = kills
			return nil
		case left:
			return io.EOF
		}
		if left, err = w.await(); err != nil {
			return err
		}
	}
}

// await blocks until one of the files changes. left tells whether the last process
// has left the group.
func (w *OOMWatch) await() (left bool, err error) {
	buf := make([]byte, 1024)
	n, err := w.file.Read(buf)
	if err != nil {
		return false, fmt.Errorf("wait for OOM of cgroup %s: %w", w.b.dir, err)
	}
	if !eventsOf(buf[:n], w.empty) {
		return false, nil
	}
	populated, _, err := w.b.readKey("cgroup.events", "populated")
	if gone(err) {
		return true, nil
	}
	return populated == 0, err
}

// eventsOf tells whether one of the inotify events, inotify(7), is of the watch.
func eventsOf(events []byte, watch int32) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		if int32(binary.NativeEndian.Uint32(events)) == watch {
			return true
		}
		name := int(binary.NativeEndian.Uint32(events[12:]))
		events = events[unix.SizeofInotifyEvent+name:]
	}
	return false
}

// Close ends the watch and a Wait in progress.
func (w *OOMWatch) Close() error { return w.file.Close() }
