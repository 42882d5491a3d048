package engine

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-containers/berth/keeper"
	"golang.org/x/sys/unix"
)

// compressEvery is how often rotated log files are looked for that are to be
// compressed.
const compressEvery = 30 * time.Second

// gzSuffix is put behind the name of a rotated file when it is compressed.
const gzSuffix = ".gz"

// compressLogs compresses rotated log files until the engine closes. It is the
// engine's to do and not the keeper's, which stays small: while there is no
// engine, files are rotated as they are.
func (e *Engine) compressLogs() {
	ticker := time.NewTicker(compressEvery)
	defer ticker.Stop()
	for {
		for _, c := range e.containers.all() {
			if err := c.compressLog(e.ctx); err != nil && e.ctx.Err() == nil && !c.gone() {
				e.log.Error("compress log", "container", c.id, "err", err)
			}
		}
		select {
		case <-ticker.C:
		case <-e.ctx.Done():
			return
		}
	}
}

// compressLog compresses a container's rotated files, if its log is to be.
func (c *ctr) compressLog(ctx context.Context) error {
	bounds, err := logLimits(c.snapshot().HostConfig.LogConfig)
	if err != nil || !bounds.compress {
		return err
	}
	l := &logFiles{path: c.logPath(), max: bounds.files}
	for i := 1; i < l.max; i++ {
		f, err := os.Open(l.name(i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = l.compress(ctx, f)
			f.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compress puts a compressed file in the place of f, wherever f has been
// rotated to by then.
func (l *logFiles) compress(ctx context.Context, f *os.File) error {
	origin, err := originOf(f)
	if err != nil {
		return err
	}
	small := l.path + gzSuffix + ".new"
	defer os.Remove(small)
	if err := writeGzip(ctx, small, f, origin); err != nil {
		return err
	}
	lock, err := os.OpenFile(keeper.LogLock(l.path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return os.NewSyscallError("flock", err)
	}
	at := l.index(f)
	if at < 1 {
		return nil // rotated away meanwhile
	}
	// First the one, then the other: a reader finds it under one name or both.
	if err := os.Rename(small, l.name(at)+gzSuffix); err != nil {
		return err
	}
	return os.Remove(l.name(at))
}

func writeGzip(ctx context.Context, path string, from *os.File, origin string) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w.Comment = origin
	if _, err := io.Copy(w, &cancellable{ctx, from}); err != nil {
		return err
	}
	return w.Close()
}

// cancellable is a reader that ends with its context.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// originOf tells a rotated file from others, also when it has been compressed: by
// its inode and its first entry, for inodes are used again.
func originOf(f *os.File) (string, error) {
	inode, err := inodeOf(f)
	if err != nil {
		return "", err
	}
	head := make([]byte, 4096)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line, _, _ := bytes.Cut(head[:n], []byte{'\n'})
	h := fnv.New64a()
	h.Write(line)
	return fmt.Sprintf("berth %d %x", inode, h.Sum64()), nil
}

// inode is that of an opened file before it was compressed.
func (l *logFiles) inode(f *os.File) (inode uint64, err error) {
	if origin, ok := l.origins[f]; ok {
		_, err = fmt.Sscanf(origin, "berth %d", &inode)
		return inode, err
	}
	return inodeOf(f)
}

// openGzip unpacks a compressed file into one without a name, and tells what it
// was.
func openGzip(path string) (f *os.File, origin string, err error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer in.Close()
	z, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	f, err = os.OpenFile(filepath.Dir(path), os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return nil, "", err
	}
	if _, err = io.Copy(f, z); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return f, z.Comment, nil
}

// gzipOrigin tells what a compressed file was; "" when it is not there.
func gzipOrigin(path string) string {
	in, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer in.Close()
	z, err := gzip.NewReader(bufio.NewReaderSize(in, 512))
	if err != nil {
		return ""
	}
	return z.Comment
}
