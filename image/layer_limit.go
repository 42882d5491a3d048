package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// Defaults of Options: far above what real layers have (the largest public ones
// hold some ten gigabytes and a few hundred thousand files), far below what a
// few megabytes of gzip can claim to be.
const (
	defaultLayerSize  = 100 << 30
	defaultLayerFiles = 4_000_000
)

// layerLimit bounds what one layer may become: a gzip bomb has a thousandfold
// and more of its size, a sparse entry of a tar needs no bytes at all to claim a
// tebibyte, and empty files cost inodes.
type layerLimit struct {
	size, files int64
	// read, written and entries are what there was so far: bytes of the plain
	// tar stream, bytes of files by their headers, entries.
	read, written, entries int64
}

func (s *Store) newLayerLimit() *layerLimit {
	return &layerLimit{size: s.opts.MaxLayerSize, files: s.opts.MaxLayerFiles}
}

// reader counts the plain stream. Headers and padding are a part of it, so it
// may be a little longer than the files are.
func (l *layerLimit) reader(r io.Reader) io.Reader { return &limitedLayer{r: r, l: l} }

type limitedLayer struct {
	r io.Reader
	l *layerLimit
}

func (r *limitedLayer) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.l.read += int64(n)
	if r.l.read > r.l.size {
		return n, r.l.tooLarge()
	}
	return n, err
}

// entry counts a file before it is written.
func (l *layerLimit) entry(hdr *tar.Header) error {
	l.entries++
	if l.entries > l.files {
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrInvalid, fmt.Errorf("it has more than the %d files a layer may have", l.files)),
			"if you trust the image, raise max-layer-files in berthd.toml")
	}
	if hdr.Size > l.size-l.written {
		return fmt.Errorf("%q: %w", hdr.Name, l.tooLarge())
	}
	l.written += hdr.Size
	return nil
}

func (l *layerLimit) tooLarge() error {
	return errdefs.WithHint(
		errdefs.As(errdefs.ErrInvalid, fmt.Errorf("it unpacks to more than the %s a layer may have", units.BytesSize(float64(l.size)))),
		"if you trust the image, raise max-layer-size in berthd.toml")
}

// admit is what every entry of a layer goes through before it is written.
func (l *layerLimit) admit(hdr *tar.Header) (bool, error) {
	if err := l.entry(hdr); err != nil {
		return false, err
	}
	if ofAufs(hdr.Name) {
		return false, nil
	}
	maps.DeleteFunc(hdr.PAXRecords, func(k, _ string) bool {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		return ok && !layerAttribute(name)
	})
	return true, nil
}

// layerAttribute tells which extended attributes a layer may bring: what
// belongs to files (notes of users, access lists, file capabilities). The other
// ones are the host's: trusted.* would steer overlayfs (redirects, opaque marks,
// whiteouts) or pass for a record of ours, and security.* decides for its
// security modules (SELinux labels, Smack, IMA and EVM signatures).
func layerAttribute(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// layerError is what was wrong with a layer's content. It speaks of the layer's
// files, not of where the store puts them, and stays short whatever their names.
type layerError struct {
	dir string
	err error
}

const maxLayerError = 400

func (e *layerError) Error() string {
	text := strings.ReplaceAll(e.err.Error(), e.dir, "")
	if len(text) > maxLayerError {
		text = text[:maxLayerError/2] + "[…]" + text[len(text)-maxLayerError/2:]
	}
	return text
}

func (e *layerError) Unwrap() error { return e.err }

// malformed marks what is wrong with the layer itself, and not with the disk or
// the caller: entries that are no tar, or that no file system can have.
func malformed(dir string, err error) error {
	var link *os.LinkError // EPERM is for a directory there
	switch {
	case errors.As(err, &link) && !isDiskFull(err):
	case isDiskFull(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errdefs.ErrInvalid),
		errors.Is(err, unix.EIO), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return err
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("not a whole tar archive: %w", err)
	}
	return errdefs.As(errdefs.ErrInvalid, &layerError{dir, err})
}
