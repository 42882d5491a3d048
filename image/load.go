package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	cerrdefs "github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// onlyTag matches an OCI reference name that is a tag without a repository.
var onlyTag = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)

// LoadOptions say what to take from an archive.
type LoadOptions struct {
	// Platform is "os/arch[/variant]"; every image must be for it. "" takes, of
	// an image for several, what is for this host, and else what there is.
	Platform string
	// Progress is told what goes on; nil means nobody.
	Progress func(ProgressEvent)
}

// Load reads an archive of images: what `docker save`, `podman save` and
// `skopeo copy docker-archive:` write, or a tar of an OCI layout; plain or
// compressed by gzip, zstd, xz or bzip2. It returns the images in the archive's
// order, and tells progress "Loaded image: NAME" as Docker's stream does.
// After an error no image of the archive is kept that was not there before.
// The error is an errdefs.ErrInvalid when it is no such archive or damaged, an
// ErrNotFound when an image in it is not there for the platform.
func (s *Store) Load(ctx context.Context, r io.Reader, opts LoadOptions) (loaded []*Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("load images: %w", s.explain(err))
		}
	}()
	ctx = quiet(ctx)
	c := s.begin()
	defer c.finish(ctx, &err)
	files, err := readArchiveFiles(ctx, c, r)
	if err != nil {
		return nil, damaged(err)
	}
	defer files.close()
	entries, err := files.images(ctx, opts.Platform)
	if err != nil {
		return nil, damaged(err)
	}
	p := newProgress(opts.Progress)
	var drafts []*draft
	for _, e := range entries {
		d, err := readDraft(ctx, files, e.target)
		if err == nil {
			err = d.isFor(opts.Platform)
		}
		if err == nil && !s.has(d.id) {
			err = files.unpack(ctx, d, p)
		}
		if err != nil {
			return nil, damaged(err)
		}
		drafts = append(drafts, d)
	}
	for i, d := range drafts {
		img, err := s.catalogue.addNames(d.id, entries[i].names, nil)
		if err == nil && img == nil { // it is new, or was removed meanwhile
			if err = files.unpack(ctx, d, p); err == nil {
				img, err = s.record(ctx, d, entries[i].names, nil)
			}
		}
		if err != nil {
			return nil, damaged(err)
		}
		loaded = append(loaded, img)
		announce(p, img, entries[i].names)
	}
	return loaded, nil
}

// has tells whether an image is in the store.
func (s *Store) has(id digest.Digest) (there bool) {
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) { _, there = st.Images[id] })
	return there
}

// unpack brings an image's blobs into the store, those that are not there, and
// unpacks each while the next one is read. What is there already is not read at
// all.
func (a *archiveFiles) unpack(ctx context.Context, d *draft, p *progress) error {
	u := &unpacking{
		s: a.c.s, c: a.c, d: d, verified: true,
		open: func(i int) blob { return a.open(d.descs[i]) },
		done: func(ctx context.Context, i int, _ bool) error { return a.keep(ctx, d.descs[i]) },
		progress: func(i int, n int64) {
			l := d.layers[i]
			p.count(ProgressEvent{ID: short(l.DiffID), Status: statusLoading, Current: n, Total: l.BlobSize})
		},
	}
	return u.run(ctx)
}

func announce(p *progress, img *Image, names []string) {
	for _, n := range names {
		p.send(ProgressEvent{Stream: "Loaded image: " + familiar(n) + "\n"})
	}
	if len(names) == 0 {
		p.send(ProgressEvent{Stream: "Loaded image ID: " + img.ID.String() + "\n"})
	}
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
	if err == nil || isDiskFull(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errdefs.Hint(err) != "" {
		return err
	}
	if cerrdefs.IsNotFound(err) {
		err = fmt.Errorf("the archive is incomplete: %w", err)
	}
	return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err),
		"load takes what `docker save`, `podman save` or an OCI layout tar hold; a tar of a root file system is for import")
}
