package engine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// eventStoreSize is how big a file of the store becomes. There are two: the
// current one, and the one before, so that between this and twice this of the
// newest events is kept.
const eventStoreSize = 4 << 20

// eventsFile is the store's place in the state root.
const eventsFile = "events.jsonl"

// olderSuffix is put behind the name of the file before the current one.
const olderSuffix = ".1"

// eventStore keeps events on disk, so that they can be asked for after a restart
// of the engine, one JSON object a line. It is guarded by its eventLog's mu.
type eventStore struct {
	path  string
	limit int64
	file  *os.File // nil when it cannot be written
	size  int64
	// fails is called with the first of several failures to write.
	fails  func(error)
	failed bool
}

// openEventStore opens or makes the store at path.
func openEventStore(path string, fails func(error)) (*eventStore, error) {
	s := &eventStore{path: path, limit: eventStoreSize, fails: fails}
	return s, s.open()
}

// open opens the current file. A line that a crash has left unfinished is ended.
func (s *eventStore) open() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	info, err := f.Stat()
	last := []byte{'\n'}
	if err == nil && info.Size() > 0 {
		_, err = f.ReadAt(last, info.Size()-1)
	}
	if err == nil && last[0] != '\n' {
		_, err = f.Write([]byte{'\n'})
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open events: %w", err)
	}
	s.file, s.size = f, info.Size()
	return nil
}

// add writes an event. An event that cannot be written is still told to those
// who listen.
func (s *eventStore) add(msg *events.Message) {
	if err := s.write(msg); err != nil {
		if !s.failed {
			s.fails(err)
		}
		s.failed = true
		return
	}
	s.failed = false
}

func (s *eventStore) write(msg *events.Message) error {
	line, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if s.file == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	n, err := s.file.Write(append(line, '\n'))
	s.size += int64(n)
	if err != nil {
		s.close() // what was written of it is ended when it is opened again
		return fmt.Errorf("write event: %w", err)
	}
	if s.size < s.limit {
		return nil
	}
	s.close()
	if err := os.Rename(s.path, s.path+olderSuffix); err != nil {
		return fmt.Errorf("rotate events: %w", err)
	}
	return s.open()
}

func (s *eventStore) close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// kept is what of the store an earlier moment saw: files, each with how much of
// it was there.
type kept struct {
	files []*os.File
	sizes []int64
}

// snapshot opens what is there now, oldest first.
func (s *eventStore) snapshot() (*kept, error) {
	k := &kept{}
	for _, path := range []string{s.path + olderSuffix, s.path} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var info os.FileInfo
		if err == nil {
			k.files = append(k.files, f)
			info, err = f.Stat()
		}
		if err != nil {
			k.close()
			return nil, fmt.Errorf("read events: %w", err)
		}
		k.sizes = append(k.sizes, info.Size())
	}
	return k, nil
}

func (k *kept) close() { closeFiles(k.files) }

// each calls fn with the events in order, until it is false. Lines that cannot
// be read, torn by a crash, are left out.
func (k *kept) each(fn func(*events.Message) bool) error {
	for i, f := range k.files {
		r := bufio.NewReader(io.LimitReader(f, k.sizes[i]))
		for {
			line, err := r.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("read events: %w", err)
			}
			msg := new(events.Message)
			if json.Unmarshal(line, msg) == nil && msg.TimeNano != 0 && !fn(msg) {
				return nil
			}
		}
	}
	return nil
}
