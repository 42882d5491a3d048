package keeper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// streamKind is a stream's number in the frames of attached clients.
type streamKind byte

const (
	streamStdout streamKind = 1
	streamStderr streamKind = 2
)

const (
	// frameHeaderSize is the size of the header that precedes each piece of
	// output when there is no terminal: the stream's number, three zero bytes
	// and the length, 32 bits big endian. Docker calls the format stdcopy.
	frameHeaderSize = 8
	chunkSize       = 32 << 10
)

// chunk is room for a frame: what is read goes behind the header's place.
type chunk [frameHeaderSize + chunkSize]byte

func (c *chunk) payload(n int) []byte { return c[frameHeaderSize : frameHeaderSize+n] }

// frame completes the header for n bytes of payload.
func (c *chunk) frame(kind streamKind, n int) []byte {
	*(*[frameHeaderSize]byte)(c[:]) = [frameHeaderSize]byte{0: byte(kind)}
	binary.BigEndian.PutUint32(c[4:], uint32(n))
	return c[:frameHeaderSize+n]
}

// buffers are shared by all streams of all containers: a stream has one only
// while it has something to read, so an idle container holds none.
type buffers struct {
	chunks  sync.Pool // of *chunk
	entries sync.Pool // of *bytes.Buffer, for log entries
}

func newBuffers() *buffers {
	return &buffers{
		chunks:  sync.Pool{New: func() any { return new(chunk) }},
		entries: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
}

func (b *buffers) put(c *chunk) { b.chunks.Put(c) }

// read waits until raw is readable and reads once. Without an error n is
// positive and the chunk is the caller's to put back. The end is [io.EOF].
func (b *buffers) read(raw syscall.RawConn) (c *chunk, n int, err error) {
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		c, n, inner = b.readOnce(fd)
		return !errors.Is(inner, unix.EAGAIN)
	})
	if err == nil {
		err = inner
	}
	return c, n, err
}

// readOnce reads what is there; the error is EAGAIN when there is nothing.
func (b *buffers) readOnce(fd uintptr) (*chunk, int, error) {
	c := b.chunks.Get().(*chunk)
	n, err := unix.Read(int(fd), c[frameHeaderSize:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(int(fd), c[frameHeaderSize:])
	}
	if n > 0 {
		return c, n, nil
	}
	b.chunks.Put(c)
	if err == nil || errors.Is(err, unix.EIO) { // EIO: a terminal that nobody has open
		err = io.EOF
	}
	return nil, 0, err
}
