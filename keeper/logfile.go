package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// logFile is an append-only file of newline-terminated entries that rotates.
//
// Writing never fails and never waits for space: when the disk is full (or the
// file cannot be written for another reason) whole entries are dropped and
// counted, the file is left ending in a whole entry, and the first write that
// succeeds again is preceded by one entry that says how much was lost and why.
// A container can neither be stalled nor killed by its log.
type logFile struct {
	path     string
	maxSize  int64
	maxFiles int
	// shared says that others replace rotated files, under the lock.
	shared bool
	log    *slog.Logger

	file *os.File // nil after a rotation that could not open the new file
	size int64
	// torn says that the file may not end in a newline.
	torn bool
	lost loss
}

// loss is what could not be written since the last success.
type loss struct {
	entries, bytes int
	cause          error
}

// openLogFile opens or continues the file that config describes.
func openLogFile(config LogConfig, log *slog.Logger) (*logFile, error) {
	if !filepath.IsAbs(config.Path) {
		return nil, fmt.Errorf("open log %q: path must be absolute: %w", config.Path, errdefs.ErrInvalid)
	}
	if config.MaxSize < 0 || config.MaxFiles < 0 {
		return nil, fmt.Errorf("open log %s: negative limit: %w", config.Path, errdefs.ErrInvalid)
	}
	f := &logFile{path: config.Path, maxSize: config.MaxSize, maxFiles: max(config.MaxFiles, 1), shared: config.Compressed, log: log}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// open opens the current file. One that a crash left without a final newline
// gets it before the next entry.
func (f *logFile) open() error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.path, Err: errors.New("not a regular file")}
	}
	last := []byte{'\n'}
	if err == nil && info.Size() > 0 {
		_, err = file.ReadAt(last, info.Size()-1)
	}
	if err != nil {
		file.Close()
		return err
	}
	f.file, f.size, f.torn = file, info.Size(), last[0] != '\n'
	return nil
}

// write appends whole entries, rotating between them. After a loss nothing is
// written before the entry that tells of it.
func (f *logFile) write(entries []byte) {
	if f.lost.entries > 0 && !f.tellLoss() {
		f.lose(entries, f.lost.cause)
		return
	}
	for len(entries) > 0 {
		if f.maxSize > 0 && f.size >= f.maxSize {
			f.rotate()
		}
		n := f.untilFull(entries)
		if whole, err := f.put(entries[:n]); err != nil {
			f.lose(entries[whole:], err)
			return
		}
		entries = entries[n:]
	}
}

// untilFull is the length of the entries that go into the current file: up to
// and including the one with which it reaches its size.
func (f *logFile) untilFull(entries []byte) int {
	if f.maxSize == 0 || f.size+int64(len(entries)) < f.maxSize {
		return len(entries)
	}
	from := max(f.maxSize-f.size-1, 0)
	return int(from) + bytes.IndexByte(entries[from:], '\n') + 1
}

// put writes entries into the current file and returns how many bytes of whole
// entries got there.
func (f *logFile) put(entries []byte) (whole int, err error) {
	if f.file == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	if f.torn {
		if _, err := f.file.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		f.size++
		f.torn = false
	}
	n, err := f.file.Write(entries)
	f.size += int64(n)
	if err == nil {
		return n, nil
	}
	whole = bytes.LastIndexByte(entries[:n], '\n') + 1
	if n > whole {
		f.cut(n - whole)
	}
	return whole, err
}

// cut takes the last n bytes, a piece of an entry, off the file.
func (f *logFile) cut(n int) {
	end, err := f.file.Seek(0, io.SeekEnd)
	if err == nil {
		err = f.file.Truncate(end - int64(n))
	}
	if err != nil {
		f.torn = true
		return
	}
	f.size -= int64(n)
}

func (f *logFile) lose(entries []byte, cause error) {
	f.loseCount(bytes.Count(entries, []byte{'\n'}), len(entries), cause)
}

func (f *logFile) loseCount(entries, size int, cause error) {
	var path *fs.PathError
	if errors.As(cause, &path) {
		cause = path.Err
	}
	if f.lost.entries == 0 {
		f.log.Warn("log entries are being lost", "path", f.path, "cause", cause)
	}
	f.lost.entries += entries
	f.lost.bytes += size
	f.lost.cause = cause
}

// tellLoss writes the entry that tells of the loss, and then forgets it.
func (f *logFile) tellLoss() bool {
	var b bytes.Buffer
	text := fmt.Sprintf("berth: %d log entries (%d bytes) lost here: %v\n", f.lost.entries, f.lost.bytes, f.lost.cause)
	appendEntry(&b, nil, []byte(text), "stderr", "", time.Now().UTC().AppendFormat(nil, time.RFC3339Nano))
	if _, err := f.put(b.Bytes()); err != nil {
		return false
	}
	f.lost = loss{}
	return true
}

// rotate makes room for a new current file. It always gets a new inode, never
// a truncated old one: who follows the log reads the old file to its end and
// then opens the new one. If the renaming fails the old file grows on.
func (f *logFile) rotate() {
	err := f.shift()
	if errors.Is(err, errNamesInUse) {
		return // tried again before the next entry
	}
	if err != nil {
		f.log.Warn("log cannot be rotated", "path", f.path, "cause", err)
		f.size = 0 // tried again after another maxSize
		return
	}
	f.file.Close()
	f.file = nil
	if err := f.open(); err != nil {
		f.log.Warn("log cannot be opened after rotation", "path", f.path, "cause", err)
		f.size = 0
	}
}

// shift gives every file the next higher number; the last one is gone.
func (f *logFile) shift() error {
	if f.maxFiles == 1 {
		return ignoreNotExist(os.Remove(f.path))
	}
	if f.shared {
		lock, err := f.lockNames()
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	for i := f.maxFiles - 1; i > 0; i-- {
		from := f.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err := f.shiftOne(from, f.path+"."+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

// shiftOne renames a file, or the compressed one in its place.
func (f *logFile) shiftOne(from, to string) error {
	if !f.shared {
		return ignoreNotExist(os.Rename(from, to))
	}
	const gz = ".gz"
	return errors.Join(
		ignoreNotExist(os.Remove(to)), ignoreNotExist(os.Remove(to+gz)),
		ignoreNotExist(os.Rename(from, to)), ignoreNotExist(os.Rename(from+gz, to+gz)))
}

// errNamesInUse: somebody replaces a rotated file just now.
var errNamesInUse = errors.New("rotated files are being replaced")

func (f *logFile) lockNames() (*os.File, error) {
	lock, err := os.OpenFile(LogLock(f.path), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, errNamesInUse
	}
	return lock, nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// close ends the log; a loss not yet told of is told now if that is possible.
func (f *logFile) close() error {
	var err error
	if f.lost.entries > 0 && !f.tellLoss() {
		err = fmt.Errorf("%d log entries (%d bytes) lost: %w", f.lost.entries, f.lost.bytes, f.lost.cause)
	}
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
		f.file = nil
	}
	return err
}
