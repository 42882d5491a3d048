package image

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
)

// The pauses before what could not be deleted is tried again, doubled each time.
const (
	stuckFirst = time.Second
	stuckMost  = time.Minute
)

// Stuck is something removed whose files could not be deleted yet, because
// somebody else uses them. It is tried again until it works.
type Stuck struct {
	// Path is its place in the trash, Cause why it is still there.
	Path, Cause string
	// Since is when the first attempt failed.
	Since time.Time
}

// stuckTrash is what the janitor could not delete.
type stuckTrash struct {
	mu      sync.Mutex
	entries map[string]Stuck // by name in the trash
	pause   time.Duration
	timer   *time.Timer
}

// postpone notes what could not be deleted and has it tried again. Each is
// logged once.
func (j *janitor) postpone(failed map[string]error) {
	s := &j.stuck
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.entries, func(name string, _ Stuck) bool { return failed[name] == nil })
	if len(failed) == 0 {
		s.pause = 0
		return
	}
	if s.entries == nil {
		s.entries = map[string]Stuck{}
	}
	for name, err := range failed {
		e, known := s.entries[name]
		if !known {
			e = Stuck{Path: j.trash + "/" + name, Since: time.Now()}
			s.pause = 0
			j.log.Warn("image store: something removed is in use; its files are deleted later", "err", err)
		}
		e.Cause = err.Error()
		s.entries[name] = e
	}
	s.pause = min(max(2*s.pause, stuckFirst), stuckMost)
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(s.pause, j.again)
}

// again has the trash emptied once more.
func (j *janitor) again() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.dirty = true
		j.cond.Broadcast()
	}
}

// Stuck lists what was removed and could not be deleted yet, the oldest first.
func (s *Store) Stuck() []Stuck {
	t := &s.janitor.stuck
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.entries), func(a, b Stuck) int { return a.Since.Compare(b.Since) })
}

// Discard has the janitor delete a directory on the store's file system. It is
// gone from its place on return; a path that is not there is no error.
func (s *Store) Discard(path string) error {
	if err := s.janitor.discard(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
