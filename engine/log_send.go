package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The log drivers that send (journald, syslog) read what the keeper has written
// to files, as "logs" does, and so neither a receiver that is slow or gone nor
// an engine that is restarted stalls a container or loses an entry. What waits
// is bounded by the files' rotation: entries that would be rotated away are
// dropped and counted, and the receiver is told how many.

// logSender delivers entries to somebody else.
type logSender interface {
	// send delivers one entry. After an error the entry is sent again, to a
	// receiver connected to anew.
	send(ctx context.Context, e *logEntry) error
	// close ends the connection, if there is one; send makes another.
	close()
}

// The pauses between attempts to reach a receiver.
const (
	sendFirst = 100 * time.Millisecond
	sendMost  = 10 * time.Second
)

// sendSave is how many entries are sent at most before it is written down how
// far that is: after a crash so many may be sent twice.
const sendSave = 256

// sentFile is where it is kept how far a container's log has been sent.
const sentFile = "log-sent.json"

// sentMark is the place behind the last entry sent: the inode of the file it is
// in, and an offset there.
type sentMark struct {
	Inode  uint64
	Offset int64
}

// newSender makes the sender of a container's log driver; nil: it has none.
func (e *Engine) newSender(rec *record) (logSender, error) {
	switch rec.HostConfig.LogConfig.Type {
	case logJournald:
		return newJournald(rec, e.cfg.JournalSocket)
	case logSyslog:
		return newSyslog(rec)
	}
	return nil, nil
}

// sendLog sends a container's log, in the background, until the container has
// ended and all is sent, or the engine closes.
func (e *Engine) sendLog(c *ctr) {
	if !sendsLog(c.rec.HostConfig.LogConfig.Type) || !c.claimSending() {
		return
	}
	rec := c.rec
	e.wg.Go(func() {
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		for again := true; again; {
			err := e.sendAll(ctx, c, rec)
			if err != nil && e.ctx.Err() == nil && !c.gone() {
				e.log.Error("send log", "container", c.id, "driver", rec.HostConfig.LogConfig.Type, "err", err)
			}
			again = c.endSending() && e.ctx.Err() == nil && err == nil
		}
	})
}

// claimSending makes the caller the one who sends.
func (c *ctr) claimSending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := !c.sending
	c.sending = true
	return mine
}

// endSending gives that back, unless the container runs again: that is true.
func (c *ctr) endSending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = !c.removed && c.rec.State.active()
	return c.sending
}

// sendAll sends what is there and what comes, until the container's end.
func (e *Engine) sendAll(ctx context.Context, c *ctr, rec *record) error {
	files, err := c.logFiles(rec)
	if err != nil {
		return err
	}
	wake, stop, err := e.logWatch.follow(files.path)
	if err != nil {
		return err
	}
	defer stop()
	sender, err := e.newSender(rec)
	if err != nil {
		return err
	}
	defer sender.close()
	s := &sending{e: e, c: c, to: sender}
	if s.reader, err = newLogReader(files, LogsOptions{Stdout: true, Stderr: true, Tail: -1}, s); err != nil {
		return err
	}
	defer s.reader.close()
	s.reader.each = func(entry *logEntry) error { return s.deliver(ctx, entry) }
	if err := s.resume(); err != nil {
		return err
	}
	err = c.follow(ctx, s.reader, wake)
	if s.lost > 0 {
		e.log.Warn("log entries were lost", "container", c.id, "entries", s.lost, "bytes", s.size, "cause", s.cause)
	}
	return errors.Join(err, s.save())
}

// sending is a log on its way to a sender.
type sending struct {
	e      *Engine
	c      *ctr
	to     logSender
	reader *logReader

	unsaved int
	// down says that the receiver could not be reached, until pause has passed
	// since the last attempt.
	down    bool
	pause   time.Duration
	attempt time.Time
	lost    int
	size    int
	cause   error
}

// resume goes to where an earlier engine was.
func (s *sending) resume() error {
	data, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var mark sentMark
	if err != nil || json.Unmarshal(data, &mark) != nil {
		return err
	}
	r := s.reader
	for i, f := range r.queue {
		inode, err := r.files.inode(f)
		if err != nil || inode != mark.Inode {
			continue
		}
		closeFiles(r.queue[:i])
		r.queue, r.read = r.queue[i:], mark.Offset
		_, err = f.Seek(mark.Offset, io.SeekStart)
		return err
	}
	if mark.Inode != 0 {
		s.e.log.Warn("log entries were rotated away before they could be sent", "container", s.c.id)
	}
	return nil
}

func inodeOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Ino, err
}

func (s *sending) path() string { return filepath.Join(s.c.dir, sentFile) }

// save writes down how far the log has been sent.
func (s *sending) save() error {
	s.unsaved = 0
	if len(s.reader.queue) == 0 {
		return nil
	}
	inode, err := s.reader.files.inode(s.reader.queue[0])
	if err != nil {
		return err
	}
	data, err := json.Marshal(sentMark{Inode: inode, Offset: s.reader.read})
	if err == nil {
		err = writeFileAtomic(s.path(), data, 0o600)
	}
	if s.c.gone() {
		return nil
	}
	return err
}

// Begin, Flush and WriteLog make a LogWriter of it; the entries go to deliver.
func (s *sending) Begin(bool) error                 { return nil }
func (s *sending) WriteLog(LogStream, []byte) error { return nil }

// Flush is called when there is nothing more to send for now.
func (s *sending) Flush() error {
	if s.unsaved == 0 {
		return nil
	}
	return s.save()
}

// deliver sends one entry, for as long as that takes. While the receiver cannot
// be reached and the keeper is about to rotate the entry away, it is dropped.
func (s *sending) deliver(ctx context.Context, entry *logEntry) error {
	for {
		if !s.down || !time.Now().Before(s.attempt.Add(s.pause)) {
			err := s.try(ctx, entry)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.failed(err)
		}
		if s.pressed() {
			s.lost++
			s.size += len(entry.text)
			break
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
	if s.unsaved++; s.unsaved >= sendSave {
		return s.save()
	}
	return nil
}

// try sends the note of what was lost, if any, and the entry.
func (s *sending) try(ctx context.Context, entry *logEntry) error {
	if s.lost > 0 {
		note := logEntry{stream: Stderr, at: entry.at, text: fmt.Appendf(nil,
			"berth: %d log entries (%d bytes) lost here: %v\n", s.lost, s.size, s.cause)}
		if err := s.to.send(ctx, &note); err != nil {
			return err
		}
		s.e.log.Warn("log entries were lost", "container", s.c.id, "entries", s.lost, "bytes", s.size, "cause", s.cause)
		s.lost, s.size = 0, 0
	}
	if err := s.to.send(ctx, entry); err != nil {
		return err
	}
	s.down, s.pause = false, 0
	return nil
}

// failed notes that the receiver cannot be reached.
func (s *sending) failed(err error) {
	s.to.close()
	if !s.down {
		s.e.log.Warn("log entries cannot be sent, they wait", "container", s.c.id, "cause", err)
	}
	s.down, s.cause, s.attempt = true, err, time.Now()
	s.pause = max(sendFirst, min(2*s.pause, sendMost))
}

// pressed says that the file being read is the next to be rotated away, or has
// been.
func (s *sending) pressed() bool {
	r := s.reader
	if r.files.max < 2 {
		return r.files.rotated(r.queue[0])
	}
	at := r.files.index(r.queue[0])
	return at < 0 || at == r.files.max-1
}

// rest waits for the next attempt.
func (s *sending) rest(ctx context.Context) error {
	timer := time.NewTimer(time.Until(s.attempt.Add(s.pause)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
