package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// logFiles is the set of files a json-file log consists of: path, the current
// one, then path.1, path.2, ..., each older. The keeper rotates by renaming and
// always gives the current file a new inode, never truncates; a file that has
// been renamed is not written any more.
type logFiles struct {
	path string
	max  int // files at most, the current one included
	// opened, when not nil, is called after each file that is opened, so that
	// tests can rotate at the worst moment.
	opened func()
	// tail, when not nil, is how many of the last lines are wanted: older files
	// are not opened.
	tail *int
	// origins are what opened files were before they were compressed.
	origins map[*os.File]string
}

func (l *logFiles) name(i int) string {
	if i == 0 {
		return l.path
	}
	return l.path + "." + strconv.Itoa(i)
}

// open opens the files that exist, oldest first.
func (l *logFiles) open() ([]*os.File, error) {
	for {
		files, newest, err := l.openOnce()
		if err != nil || len(files) == 0 {
			return files, err
		}
		// One rotation meanwhile made a file appear twice, which is seen. After
		// two, one younger than the first opened may be among the older ones.
		if at := l.index(files[len(files)-1]); at >= 0 && at-newest < 2 {
			return files, nil
		}
		closeFiles(files)
	}
}

// openOnce goes from the newest file to the oldest, for files only ever move
// to higher numbers: none slips through. newest is the number that the first
// one was found at.
func (l *logFiles) openOnce() (files []*os.File, newest int, err error) {
	wanted := 0
	if l.tail != nil {
		wanted = *l.tail
	}
	for i := range max(l.max, 1) {
		f, err := l.openOne(i)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeFiles(files)
			return nil, 0, fmt.Errorf("open log: %w", err)
		}
		if slices.ContainsFunc(files, func(g *os.File) bool { return l.same(f, g) }) {
			f.Close()
			continue
		}
		if len(files) == 0 {
			newest = i
		}
		files = append(files, f)
		if l.opened != nil {
			l.opened()
		}
		if l.tail == nil {
			continue
		}
		_, found, err := lineFromEnd(f, wanted)
		if err != nil {
			closeFiles(files)
			return nil, 0, fmt.Errorf("read log: %w", err)
		}
		if wanted -= found; wanted <= 0 {
			break
		}
	}
	slices.Reverse(files)
	return files, newest, nil
}

// openLog opens a regular file: at anything else, a fifo say, nobody shall wait.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openOne opens the i-th file, or what is left of it.
func (l *logFiles) openOne(i int) (*os.File, error) {
	f, err := openLog(l.name(i))
	if i == 0 || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	f, origin, err := openGzip(l.name(i) + gzSuffix)
	if err != nil {
		return nil, err
	}
	if l.origins == nil {
		l.origins = map[*os.File]string{}
	}
	l.origins[f] = origin
	return f, nil
}

// origin is what tells f from other files; "" for one that cannot be read.
func (l *logFiles) origin(f *os.File) string {
	if origin, ok := l.origins[f]; ok {
		return origin
	}
	origin, err := originOf(f)
	if err != nil {
		return ""
	}
	return origin
}

// same says whether two open files are, or were, one.
func (l *logFiles) same(f, g *os.File) bool {
	if l.origins[f] == "" && l.origins[g] == "" {
		return sameFile(f, g)
	}
	return l.origin(f) == l.origin(g)
}

// rotated says that f is not the current file any more.
func (l *logFiles) rotated(f *os.File) bool { return l.index(f) != 0 }

// index is f's place in the rotation, -1 when it is gone from it.
func (l *logFiles) index(f *os.File) int {
	mine, err := f.Stat()
	if err != nil {
		return -1
	}
	origin := ""
	for i := range max(l.max, 1) {
		info, err := os.Stat(l.name(i))
		if err == nil && os.SameFile(mine, info) {
			return i
		}
		if err == nil || i == 0 {
			continue
		}
		if small := gzipOrigin(l.name(i) + gzSuffix); small != "" {
			if origin == "" {
				origin = l.origin(f)
			}
			if small == origin {
				return i
			}
		}
	}
	return -1
}

// next opens the files that came after f, oldest first. None are there yet
// when the keeper is between renaming and opening.
func (l *logFiles) next(f *os.File) ([]*os.File, error) {
	files, err := l.open()
	if err != nil {
		return nil, err
	}
	// f keeps its inode number from being used again, so finding it in the
	// set is finding it; everything before it has been read. When it is not
	// there it was rotated away and all that is left is newer.
	for i, g := range files {
		if l.same(f, g) {
			closeFiles(files[:i+1])
			return files[i+1:], nil
		}
	}
	return files, nil
}

func sameFile(f, g *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := g.Stat()
	return err == nil && os.SameFile(a, b)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// seekTail moves to the n-th line from the end of files (oldest first) and
// returns the files from the one it is in on; the others are closed.
func seekTail(files []*os.File, n int) ([]*os.File, error) {
	for i, f := range slices.Backward(files) {
		offset, found, err := lineFromEnd(f, n)
		if err != nil {
			return files, fmt.Errorf("read log: %w", err)
		}
		n -= found
		if n <= 0 || i == 0 {
			if _, err := f.Seek(offset, io.SeekStart); err != nil {
				return files, fmt.Errorf("read log: %w", err)
			}
			closeFiles(files[:i])
			return files[i:], nil
		}
	}
	return files, nil
}

// lineFromEnd finds the offset at which the last n lines of f begin, and how
// many of them there are. A last line without its newline does not count.
func lineFromEnd(f *os.File, n int) (offset int64, found int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	const block = 64 << 10
	buf := make([]byte, block)
	// The newline that ends the n-th last line's predecessor is the (n+1)-th.
	for end := info.Size(); end > 0; {
		start := max(end-block, 0)
		b := buf[:end-start]
		if _, err := f.ReadAt(b, start); err != nil {
			return 0, 0, err
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b[:i], '\n') {
			if found == n {
				return start + int64(i) + 1, n, nil
			}
			found++
		}
		end = start
	}
	return 0, found, nil
}
