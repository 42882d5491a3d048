package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Decompress returns the plain stream of what is gzip, zstd, xz, bzip2 or not
// compressed at all.
func Decompress(r io.Reader) (io.ReadCloser, error) { return decompress(r) }

// decompress returns the plain stream of what is gzip, zstd, xz, bzip2 or not
// compressed at all. containerd's own function would start an unpigz or igzip
// process wherever one is installed; klauspost's reader needs none.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, err := b.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case compression.DetectCompression(head) == compression.Gzip:
		return gzip.NewReader(b)
	case compression.DetectCompression(head) == compression.Zstd:
		d, err := zstd.NewReader(b)
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte(bzip2Magic)):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, []byte(xzMagic)):
		return newXZ(b)
	}
	return io.NopCloser(b), nil
}

// headSize bytes tell how a stream is compressed.
const (
	headSize   = 10
	bzip2Magic = "BZh"
	xzMagic    = "\xfd7zXZ\x00"
)

// packed tells whether a stream that begins with head is compressed.
func packed(head []byte) bool {
	return compression.DetectCompression(head) != compression.Uncompressed ||
		bytes.HasPrefix(head, []byte(bzip2Magic)) || bytes.HasPrefix(head, []byte(xzMagic))
}

// countingReader reports how far it has come.
type countingReader struct {
	r      io.Reader
	n      int64
	report func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.report(c.n)
	return n, err
}

// readAhead reads, and so decompresses, and hashes in a goroutine of its own
// while its consumer writes files: the two halves of unpacking on two CPUs.
type readAhead struct {
	full, free chan []byte
	stop       chan struct{}
	ended      chan struct{}
	digester   digest.Digester // nil: nobody asks
	err        error           // of the source, valid once full is closed

	cur, buf []byte
}

const (
	aheadChunk  = 256 << 10
	aheadChunks = 8
)

// newReadAhead begins to read; hashed: for the sake of Digest, too.
func newReadAhead(r io.Reader, hashed bool) *readAhead {
	a := &readAhead{
		full:  make(chan []byte, aheadChunks),
		free:  make(chan []byte, aheadChunks),
		stop:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	if hashed {
		a.digester = digest.Canonical.Digester()
	}
	for range aheadChunks {
		a.free <- make([]byte, aheadChunk)
	}
	go a.fill(r)
	return a
}

func (a *readAhead) fill(r io.Reader) {
	defer close(a.ended)
	defer close(a.full)
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.stop:
			a.err = io.ErrClosedPipe
			return
		}
		n, err := 0, error(nil)
		for n < aheadChunk && err == nil {
			var m int
			m, err = r.Read(buf[n:aheadChunk])
			n += m
		}
		if a.digester != nil {
			a.digester.Hash().Write(buf[:n])
		}
		a.full <- buf[:n] // never blocks: there are no more buffers than room
		if err != nil {
			a.err = err
			return
		}
	}
}

func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.cur) == 0 {
		if a.buf != nil {
			a.free <- a.buf
			a.buf = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.cur, a.buf = buf, buf
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// Digest is that of everything read; ask after Read has returned io.EOF.
func (a *readAhead) Digest() digest.Digest { return a.digester.Digest() }

// Close ends the goroutine and waits for it. The source must not block for ever.
func (a *readAhead) Close() error {
	close(a.stop)
	<-a.ended
	return nil
}
