package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// onlyTag matches an OCI reference name that is a tag without a repository.
var onlyTag = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)

// Load reads an archive of images: what `docker save`, `podman save` and
// `skopeo copy docker-archive:` write, or a tar of an OCI layout; plain or
// compressed by gzip, zstd or bzip2. It returns the images in the archive's
// order, and tells progress "Loaded image: NAME" as Docker's stream does.
// After an error no image of the archive is kept that was not there before.
// The error is an errdefs.ErrInvalid when it is no such archive or damaged.
func (s *Store) Load(ctx context.Context, r io.Reader, progress func(ProgressEvent)) (loaded []*Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("load images: %w", s.explain(err))
		}
	}()
	plain, err := decompress(contextReader{ctx, r})
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	ctx = quiet(ctx)
	c := s.begin()
	defer c.finish(ctx, &err)
	entries, err := readArchive(ctx, c, plain)
	if err != nil {
		return nil, err
	}
	p := newProgress(progress)
	var drafts []*draft
	for _, e := range entries {
		d, err := readDraft(ctx, c, e.target)
		if err == nil {
			err = s.unpackAll(ctx, c, d, p)
		}
		if err != nil {
			return nil, damaged(err)
		}
		drafts = append(drafts, d)
	}
	for i, d := range drafts {
		img, err := s.record(ctx, d, entries[i].names, nil)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, img)
		announce(p, img, entries[i].names)
	}
	return loaded, nil
}

func announce(p *progress, img *Image, names []string) {
	for _, n := range names {
		p.send(ProgressEvent{Stream: "Loaded image: " + familiar(n) + "\n"})
	}
	if len(names) == 0 {
		p.send(ProgressEvent{Stream: "Loaded image ID: " + img.ID.String() + "\n"})
	}
}

// archived is one image of an archive, with full names.
type archived struct {
	target ocispec.Descriptor
	names  []string
}

// readArchive brings the archive's blobs into the store and lists its images.
func readArchive(ctx context.Context, c *session, r io.Reader) ([]archived, error) {
	top, err := archive.ImportIndex(ctx, c, r)
	if err != nil {
		return nil, damaged(err)
	}
	// The tar reader stops at the archive's end; the sender has not.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, damaged(err)
	}
	manifests, err := readIndex(ctx, c, top)
	if err != nil {
		return nil, damaged(err)
	}
	var list []archived
	for _, desc := range manifests {
		name := archivedName(desc)
		if images.IsIndexType(desc.MediaType) {
			children, err := readIndex(ctx, c, desc)
			if err != nil {
				return nil, damaged(err)
			}
			if desc, err = choose(children, platforms.DefaultSpec()); err != nil {
				return nil, err
			}
		}
		i := slices.IndexFunc(list, func(a archived) bool { return a.target.Digest == desc.Digest })
		if i < 0 {
			list, i = append(list, archived{target: desc}), len(list)
		}
		if name != "" && !slices.Contains(list[i].names, name) {
			list[i].names = append(list[i].names, name)
		}
	}
	if len(list) == 0 {
		return nil, errdefs.As(errdefs.ErrInvalid, errors.New("the archive holds no image"))
	}
	return list, nil
}

func readIndex(ctx context.Context, blobs content.Provider, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	b, err := readMetadata(ctx, blobs, desc)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	return index.Manifests, nil
}

// archivedName is the name an index gives one of its entries, "" for none.
// Docker and containerd write the full name into one annotation, Podman into
// another, where the OCI layout says only a tag need be and where others put
// tags and IDs.
func archivedName(desc ocispec.Descriptor) string {
	name := desc.Annotations[images.AnnotationImageName]
	if name == "" {
		name = desc.Annotations[ocispec.AnnotationRefName]
		if onlyTag.MatchString(name) {
			return ""
		}
	}
	full, err := parseTag(name)
	if err != nil {
		return ""
	}
	return full
}

// damaged marks an error of reading an archive as the archive's fault, unless
// it is the disk's or the caller's.
func damaged(err error) error {
	if isDiskFull(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errdefs.Hint(err) != "" {
		return err
	}
	if cerrdefs.IsNotFound(err) {
		err = fmt.Errorf("the archive is incomplete: %w", err)
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err),
		"load takes what `docker save`, `podman save` or an OCI layout tar hold; a tar of a root file system is for import")
}
