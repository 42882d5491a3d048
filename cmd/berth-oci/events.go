package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/oci"
)

// event is a line of events' output, as runc writes it.
type event struct {
	Type string `json:"type"` // stats or oom
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func runEvents(a *app, fs *flag.FlagSet, args []string) (int, error) {
	interval := fs.Duration("interval", 5*time.Second, "`time` between statistics")
	once := fs.Bool("stats", false, "print the statistics once and exit")
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	if *interval <= 0 {
		return 1, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--interval %v: must be above 0", *interval))
	}
	c, err := a.store().Open(id)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	if c.Status() == specs.StateStopped {
		return 1, errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is not running", id))
	}
	g, err := c.Group()
	if err != nil {
		return 1, err
	}
	w := eventWriter{id: id, group: g, out: json.NewEncoder(a.stdout)}
	if *once {
		return 0, w.stats()
	}
	if err := liveLong(); err != nil {
		return 1, err
	}
	return 0, w.follow(c, *interval)
}

// eventWriter prints what happens in one container.
type eventWriter struct {
	id    string
	group *cgroup.Group
	out   *json.Encoder
	told  bool // of a shortage of memory
}

// follow prints until the container has ended.
func (w *eventWriter) follow(c *oci.Container, interval time.Duration) error {
	debug.SetGCPercent(100) // off for the short-lived commands, see main
	pidfd, err := c.Pidfd()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	before, err := w.group.OOMKills()
	if err != nil {
		return err
	}
	watch, err := w.group.WatchOOM()
	if err != nil {
		return err
	}
	ooms := watchAll(watch)
	// Others may change the container while it is watched.
	if err = c.Unlock(); err == nil {
		err = w.loop(interval, ended(pidfd), ooms)
	}
	err = errors.Join(err, watch.Close())
	for range ooms { // those which came with the end
		err = errors.Join(err, w.oom())
	}
	// The last one may have been told to nobody: its cgroup went with it.
	after, kerr := w.group.OOMKills()
	if after > before && !w.told {
		err = errors.Join(err, w.oom())
	}
	return errors.Join(err, kerr)
}

// watchAll passes the watch's events on until it ends.
func watchAll(watch *cgroup.OOMWatch) <-chan struct{} {
	ooms := make(chan struct{}, 1024)
	go func() {
		defer close(ooms)
		for watch.Wait() == nil {
			ooms <- struct{}{}
		}
	}()
	return ooms
}

// ended is closed when the process of the pidfd has ended.
func ended(pidfd *os.File) <-chan struct{} {
	done := make(chan struct{})
	fd := int32(pidfd.Fd())
	go func() {
		defer close(done)
		for {
			if _, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, -1); err != unix.EINTR {
				return
			}
		}
	}()
	return done
}

// loop prints statistics at each interval, and each shortage of memory.
func (w *eventWriter) loop(interval time.Duration, ended, ooms <-chan struct{}) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ended:
			return nil
		case _, ok := <-ooms:
			if ok {
				err = w.oom()
			} else {
				ooms = nil
			}
		case <-tick.C:
			if err = w.stats(); errors.Is(err, errdefs.ErrNotFound) {
				return nil // it is being deleted
			}
		}
		if err != nil {
			return err
		}
	}
}

func (w *eventWriter) oom() error {
	w.told = true
	return w.out.Encode(event{Type: "oom", ID: w.id})
}

func (w *eventWriter) stats() error {
	s, err := w.group.Stats()
	if err != nil {
		return err
	}
	m, err := w.group.MoreStats()
	if err != nil {
		return err
	}
	return w.out.Encode(event{Type: "stats", ID: w.id, Data: statsOf(s, m)})
}
