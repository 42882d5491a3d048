package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
)

// ingested is content whose digest is known and which is on its way to the disk:
// it is read, and unpacked, meanwhile.
type ingested struct {
	desc ocispec.Descriptor // of no media type
	file *os.File           // to read it from
	kept chan struct{}      // closed when it is a blob, or cannot be
	err  error              // valid once kept is closed
}

const (
	ingestChunk = 256 << 10
	// ingestFlush is how much is written before it is sent to the disk: at the end
	// there is then little left to wait for.
	ingestFlush = 8 << 20
)

// ingest copies size bytes into the store. It returns when their digest is known
// and is the expected one, if there is one; [ingested.keep] waits until they are a
// blob. The session's pin keeps that until the session ends.
func (c *session) ingest(ctx context.Context, r io.Reader, size int64, expected digest.Digest) (_ *ingested, err error) {
	file, err := os.CreateTemp(filepath.Join(c.s.root, "content", "ingest"), c.prefix)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		}
	}()
	got, err := copyHashed(ctx, file, r, size)
	if err != nil {
		return nil, err
	}
	if expected != "" && got != expected {
		return nil, wrongDigest(got)
	}
	in := &ingested{desc: ocispec.Descriptor{Digest: got, Size: size}, file: file, kept: make(chan struct{})}
	there, err := c.blobThere(ctx, in.desc)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(in.kept)
		if there {
			in.err = os.Remove(file.Name())
			return
		}
		if in.err = file.Sync(); in.err == nil {
			in.err = c.s.adopt(file.Name(), got)
		}
		fault.Here(fault.BlobCommitted)
	}()
	return in, nil
}

func wrongDigest(got digest.Digest) error {
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("its content is %s", got))
}

// copyHashed copies size bytes into a file and returns their digest.
func copyHashed(ctx context.Context, to *os.File, r io.Reader, size int64) (digest.Digest, error) {
	digester := digest.Canonical.Digester()
	buf := make([]byte, min(ingestChunk, size))
	for at, flushed := int64(0), int64(0); at < size; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		if err != nil {
			return "", unexpectedEnd(err)
		}
		digester.Hash().Write(buf[:n])
		if _, err := to.Write(buf[:n]); err != nil {
			return "", err
		}
		if at += int64(n); at-flushed >= ingestFlush {
			_ = unix.SyncFileRange(int(to.Fd()), flushed, at-flushed, unix.SYNC_FILE_RANGE_WRITE)
			flushed = at
		}
	}
	return digester.Digest(), nil
}

// open reads the content from its beginning.
func (in *ingested) open() io.ReadCloser {
	return io.NopCloser(io.NewSectionReader(in.file, 0, in.desc.Size))
}

// keep returns when the content is a blob of the store.
func (in *ingested) keep(ctx context.Context) error {
	select {
	case <-in.kept:
		return in.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close gives the file up, and the content that could not become a blob.
func (in *ingested) close() {
	<-in.kept
	if in.err != nil {
		_ = os.Remove(in.file.Name()) // or the next Open does
	}
	in.file.Close()
}

// blobThere tells whether the store has a blob. It then keeps it until the
// session ends.
func (c *session) blobThere(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	c.pin(desc.Digest.String())
	info, err := c.Info(ctx, desc.Digest)
	if cerrdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil && info.Size == desc.Size, err
}
