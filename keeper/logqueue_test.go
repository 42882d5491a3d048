package keeper

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func makeLog(t *testing.T, c LogConfig) *jsonLog {
	t.Helper()
	l, err := newJSONLog(c, &sync.Pool{New: func() any { return new(bytes.Buffer) }}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogAttrs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := makeLog(t, LogConfig{Path: path, Attrs: `{"tag":"ship"}`})
	s := &logStream{name: "stdout"}
	at := time.Unix(1700000000, 5)
	l.add(s, []byte("one\n"), at)
	l.end(s, at)
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	want := `{"log":"one\n","stream":"stdout","attrs":{"tag":"ship"},"time":"2023-11-14T22:13:20.000000005Z"}` + "\n"
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := newJSONLog(LogConfig{Path: path, Attrs: `{"tag":`}, nil, nil); err == nil {
		t.Error("attributes that are no JSON are taken")
	}
}

// A log that has ended has settled: a hand-over asks those of exited processes too.
func TestEndedLogSettles(t *testing.T) {
	for _, maxBuffer := range []int64{0, 4096} {
		l := makeLog(t, LogConfig{Path: filepath.Join(t.TempDir(), "log"), MaxBuffer: maxBuffer})
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if lost, err := l.settle(time.Now().Add(time.Minute)); err != nil || lost.entries != 0 {
			t.Errorf("buffer of %d: %d entries are lost, %v", maxBuffer, lost.entries, err)
		}
	}
}

// TestLogQueue lets a log's disk stand still: nobody waits, what fits is kept,
// what does not is counted.
func TestLogQueue(t *testing.T) {
	dir := t.TempDir()
	// A fifo is a disk that stands still until somebody reads.
	path := filepath.Join(dir, "log")
	l := makeLog(t, LogConfig{Path: path, MaxBuffer: 4096})
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	slow, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fast := l.file.file
	l.file.file = slow
	if _, err := slow.Write(make([]byte, 65536)); err != nil { // it is full
		t.Fatal(err)
	}
	s := &logStream{name: "stdout"}
	line := []byte(strings.Repeat("x", 999) + "\n")
	for i := range 20 {
		l.add(s, line, time.Now())
		l.flush()
		for i == 0 && queued(l) { // until the writer stands still with the first
			runtime.Gosched()
		}
	}
	l.mu.Lock()
	l.queue.mu.Lock()
	lost := l.queue.lost.entries
	l.queue.mu.Unlock()
	l.mu.Unlock()
	if lost < 14 || lost > 18 {
		t.Errorf("%d entries lost of 20, where four fit", lost)
	}
	go func() {
		b := make([]byte, 65536)
		for {
			if n, err := slow.Read(b); n == 0 || err != nil {
				return
			}
		}
	}()
	for kept := int64(1); kept > 0; { // until all that was kept is written
		l.queue.mu.Lock()
		kept = l.queue.size
		l.queue.mu.Unlock()
	}
	l.mu.Lock()
	l.flushLocked()
	l.queue.close()
	l.file.file = fast
	if err := l.file.close(); err != nil {
		t.Error(err)
	}
	l.mu.Unlock()
	got, _ := os.ReadFile(path)
	if !strings.Contains(string(got), "log entries (") || !strings.Contains(string(got), "lost here: the disk was slower") {
		t.Errorf("the log does not tell of the loss: %q", got)
	}
}

// TestLogNamesInUse keeps a log from being rotated while somebody replaces its
// files, and shifts compressed ones with the others.
func TestLogNamesInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := makeLog(t, LogConfig{Path: path, MaxSize: 50, MaxFiles: 3, Compressed: true})
	s := &logStream{name: "stdout"}
	write := func() {
		l.add(s, []byte("one\n"), time.Now())
		l.flush()
	}
	write()
	lock, err := os.OpenFile(LogLock(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	write()
	if _, err := os.Stat(path + ".1"); err == nil {
		t.Error("rotated under the lock")
	}
	lock.Close()
	write()
	if err := os.Rename(path+".1", path+".1.gz"); err != nil {
		t.Fatal(err)
	}
	write()
	for name, want := range map[string]bool{".1": true, ".1.gz": false, ".2": false, ".2.gz": true} {
		if _, err := os.Stat(path + name); (err == nil) != want {
			t.Errorf("%s is there: %v", name, err == nil)
		}
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// queued tells whether entries wait for the writer.
func queued(l *jsonLog) bool {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	return len(l.queue.waiting) > 0
}
