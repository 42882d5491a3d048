package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveFile is a file of an archive of images. It becomes a blob of the store
// when somebody wants it to: what the store has already, and what no image is made
// of, is never written. Where the archive can be read anywhere the file stays in
// it until then; of a stream, small files wait in memory and others are taken in
// as they come.
type archiveFile struct {
	c    *session
	name string
	// said is the digest the name says it has, "" for none.
	said digest.Digest
	size int64
	// content is nil when the store had it already and it was passed over.
	content io.ReaderAt

	// mu is held by who brings it in; the next one finds it there.
	mu  sync.Mutex
	got *ingested
}

// Files of a stream wait in memory when they have at most smallFile bytes, as long
// as they are not more than smallFiles together.
const (
	smallFile  = 64 << 10
	smallFiles = 16 << 20
)

// plainFile returns what is not read yet of a stream that is a file, and nil for
// another one. A compressed one cannot be read anywhere, either.
func plainFile(r io.Reader) (*io.SectionReader, error) {
	f, ok := r.(*os.File)
	if !ok {
		return nil, nil
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	rest := io.NewSectionReader(f, at, info.Size()-at)
	head, err := headOf(rest)
	if err != nil || packed(head) {
		return nil, err
	}
	return rest, nil
}

// headOf reads as much of the beginning as tells how it is compressed.
func headOf(r io.ReaderAt) ([]byte, error) {
	b := make([]byte, headSize)
	n, err := r.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// file makes an entry of the archive a file that can be had later.
func (a *archiveFiles) file(ctx context.Context, name string, hdr *tar.Header, r io.Reader) (f *archiveFile, err error) {
	f = &archiveFile{c: a.c, name: name, size: hdr.Size}
	f.said, _ = digestOfPath(name)
	if a.whole != nil && !sparse(hdr) {
		at, err := a.whole.Seek(0, io.SeekCurrent) // the tar reader reads no further than it must
		f.content = io.NewSectionReader(a.whole, at, hdr.Size)
		return f, err
	}
	if known := firstDigest(f.said, digestOfTar(name)); known != "" {
		if there, err := a.c.blobThere(ctx, ocispec.Descriptor{Digest: known, Size: f.size}); err != nil || there {
			f.said = known
			return f, err
		}
	}
	if f.size > smallFile || a.small+f.size > smallFiles {
		if f.got, err = a.c.ingest(ctx, r, f.size, f.said); err == nil {
			f.content = f.got.file
		}
		return f, err
	}
	a.small += f.size
	b := make([]byte, f.size)
	_, err = io.ReadFull(r, b)
	f.content = bytes.NewReader(b)
	return f, err
}

// sparse tells whether an entry's content is not what lies in the archive.
func sparse(hdr *tar.Header) bool {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func firstDigest(list ...digest.Digest) digest.Digest {
	for _, d := range list {
		if d != "" {
			return d
		}
	}
	return ""
}

// digestOfTar reads the names that Podman and skopeo give layers: "HEX.tar" of
// its content.
func digestOfTar(name string) digest.Digest {
	d := digest.NewDigestFromEncoded(digest.Canonical, strings.TrimSuffix(name, ".tar"))
	if !strings.HasSuffix(name, ".tar") || d.Validate() != nil {
		return ""
	}
	return d
}

// bring takes the file into the store, once, and compares it with the digest that
// is expected, unless that is "".
func (f *archiveFile) bring(ctx context.Context, expected digest.Digest) (in *ingested, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.got == nil:
		f.got, err = f.c.ingest(ctx, io.NewSectionReader(f.content, 0, f.size), f.size, expected)
	case expected != "" && expected != f.got.desc.Digest: // two images say of one file what it is
		err = wrongDigest(f.got.desc.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("%.100q: %w", f.name, err)
	}
	return f.got, nil
}

// head reads the file's beginning.
func (f *archiveFile) head(ctx context.Context) ([]byte, error) {
	if f.content != nil {
		return headOf(io.NewSectionReader(f.content, 0, f.size))
	}
	ra, err := f.c.ReaderAt(ctx, ocispec.Descriptor{Digest: f.said, Size: f.size})
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	return headOf(ra)
}

// close gives up what did not become a blob.
func (f *archiveFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.got != nil {
		f.got.close()
	}
}

// close gives up what did not become a blob.
func (a *archiveFiles) close() {
	for _, f := range a.all {
		f.close()
	}
}

// lacking returns the file a blob is to be made of, and nil when the store has it,
// or nobody.
func (a *archiveFiles) lacking(ctx context.Context, desc ocispec.Descriptor) (*archiveFile, error) {
	f := a.blobs[desc.Digest]
	if f == nil || f.content == nil {
		return nil, nil
	}
	if there, err := a.c.blobThere(ctx, desc); err != nil || there {
		return nil, err
	}
	return f, nil
}

// open implements what an unpacking opens. What it gives is what its digest says.
func (a *archiveFiles) open(desc ocispec.Descriptor) blob {
	return func(ctx context.Context) (io.ReadCloser, error) {
		f, err := a.lacking(ctx, desc)
		if err != nil {
			return nil, err
		}
		if f == nil {
			return a.c.s.blob(desc)(ctx)
		}
		in, err := f.bring(ctx, desc.Digest)
		if err != nil {
			return nil, err
		}
		return in.open(), nil
	}
}

// keep returns when the store has a blob, and it is on the disk.
func (a *archiveFiles) keep(ctx context.Context, desc ocispec.Descriptor) error {
	f, err := a.lacking(ctx, desc)
	if err != nil {
		return err
	}
	if f == nil {
		_, err = a.c.Info(ctx, desc.Digest)
		return err
	}
	in, err := f.bring(ctx, desc.Digest)
	if err != nil {
		return err
	}
	return in.keep(ctx)
}

// ReaderAt implements [content.Provider] for the manifests and configs of the
// archive, which become blobs by being read.
func (a *archiveFiles) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	a.c.pin(desc.Digest.String())
	if f := a.blobs[desc.Digest]; f != nil {
		if err := a.keep(ctx, ocispec.Descriptor{Digest: desc.Digest, Size: f.size}); err != nil {
			return nil, err
		}
	}
	return a.c.ReaderAt(ctx, desc)
}
