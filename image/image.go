package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// maxMetadata bounds a manifest or config that is read into memory. Registries
// refuse manifests of more than 4 MiB; 8 leaves room for configs with long
// histories.
const maxMetadata = 8 << 20

// Image is an image of the store at the moment of the call. Its Config is
// shared: read it, do not change it.
type Image struct {
	// ID is the digest of the config blob, as Docker has it.
	ID digest.Digest
	// RepoTags and RepoDigests are the names people use ("busybox:latest"),
	// sorted; both are empty for a dangling image.
	RepoTags, RepoDigests []string
	// Target is the descriptor of the image's manifest.
	Target ocispec.Descriptor
	// Parent is the image this one was committed from, "" when it is not here
	// (any more). Children tells that another was committed from this one.
	Parent   digest.Digest
	Children bool
	// Config is the config blob, parsed, with Docker's additions.
	Config dockerspec.DockerOCIImage
	// Layers, lowest first.
	Layers []Layer
	// ChainID names the unpacked layers together, "" when there are none.
	ChainID digest.Digest
	// Size is what the unpacked layers take on disk, in bytes.
	Size int64
	// Created is when the image was built, by its own config; zero if it does
	// not say. Added is when it came into this store. LastTagged is when a name
	// was last given to it here, zero for never.
	Created, Added, LastTagged time.Time
}

// Layer is one layer of an image.
type Layer struct {
	// Digest and MediaType are those of the blob, as the manifest has them.
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	// DiffID is the digest of the uncompressed tar.
	DiffID digest.Digest `json:"diffID"`
	// ChainID names this layer on top of those below it.
	ChainID digest.Digest `json:"chainID"`
	// BlobSize is the size of the blob, Size what it takes unpacked, in bytes.
	BlobSize int64 `json:"blobSize"`
	Size     int64 `json:"size"`
}

// HistoryItem is a line of an image's history.
type HistoryItem struct {
	// ID is the image's for the newest line, "" otherwise: intermediate images
	// are not kept.
	ID        digest.Digest
	Created   time.Time
	CreatedBy string
	Author    string
	Comment   string
	// Tags are the image's, on the newest line only.
	Tags []string
	// Size is the layer's, zero for a line that made none.
	Size int64
}

// Get finds an image by name (tag "latest" when none is given), name@digest,
// ID, or a beginning of the ID that is unique. The error is an
// errdefs.ErrNotFound, ErrConflict (ambiguous) or ErrInvalid.
func (s *Store) Get(_ context.Context, ref string) (img *Image, err error) {
	s.catalogue.read(func(st catalogueState, configs map[digest.Digest]*dockerspec.DockerOCIImage) {
		var f found
		if f, err = st.lookup(ref); err == nil {
			img = st.image(f.id, configs[f.id])
		}
	})
	return img, err
}

// List returns all images, newest first.
func (s *Store) List(context.Context) ([]*Image, error) {
	var list []*Image
	s.catalogue.read(func(st catalogueState, configs map[digest.Digest]*dockerspec.DockerOCIImage) {
		for id := range st.Images {
			list = append(list, st.image(id, configs[id]))
		}
	})
	slices.SortFunc(list, func(a, b *Image) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return list, nil
}

// History returns the image's history, newest first.
func (s *Store) History(ctx context.Context, ref string) ([]HistoryItem, error) {
	img, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	var items []HistoryItem
	layers := img.Layers
	// A config may lack history for some layers: the oldest ones, since
	// whoever adds a layer adds a line.
	for range len(layers) - layerLines(img.Config.History) {
		items = append(items, HistoryItem{Size: layers[0].Size})
		layers = layers[1:]
	}
	for _, h := range img.Config.History {
		item := HistoryItem{CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment}
		if h.Created != nil {
			item.Created = *h.Created
		}
		if !h.EmptyLayer && len(layers) > 0 {
			item.Size, layers = layers[0].Size, layers[1:]
		}
		items = append(items, item)
	}
	slices.Reverse(items)
	if len(items) > 0 {
		items[0].ID, items[0].Tags = img.ID, img.RepoTags
	}
	return items, nil
}

// layerLines counts the lines of a history that made a layer.
func layerLines(history []ocispec.History) int {
	n := 0
	for _, h := range history {
		if !h.EmptyLayer {
			n++
		}
	}
	return n
}

// draft is an image whose manifest and config are in the content store.
type draft struct {
	id     digest.Digest
	target ocispec.Descriptor
	config *dockerspec.DockerOCIImage
	layers []Layer
	descs  []ocispec.Descriptor // of the layers
	parent digest.Digest        // what it is committed from
}

// readDraft reads and checks the manifest target and its config.
func readDraft(ctx context.Context, blobs content.Provider, target ocispec.Descriptor) (*draft, error) {
	manifest, err := readManifest(ctx, blobs, target)
	if err != nil {
		return nil, err
	}
	d := &draft{
		id:     manifest.Config.Digest,
		target: ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size},
		config: &dockerspec.DockerOCIImage{},
		descs:  manifest.Layers,
	}
	b, err := readMetadata(ctx, blobs, manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", manifest.Config.Digest, err)
	}
	if err := json.Unmarshal(b, d.config); err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("config %s: %w", manifest.Config.Digest, err))
	}
	diffIDs := d.config.RootFS.DiffIDs
	if len(diffIDs) != len(d.descs) {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf(
			"manifest %s has %d layers, its config %d", target.Digest, len(d.descs), len(diffIDs)))
	}
	chains := identity.ChainIDs(slices.Clone(diffIDs))
	for i, l := range d.descs {
		if err := diffIDs[i].Validate(); err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("config %s: layer %d: %w", d.id, i+1, err))
		}
		d.layers = append(d.layers, Layer{
			Digest: l.Digest, MediaType: l.MediaType, BlobSize: l.Size,
			DiffID: diffIDs[i], ChainID: chains[i],
		})
	}
	return d, nil
}

// readManifest reads an image manifest and refuses what is none.
func readManifest(ctx context.Context, blobs content.Provider, target ocispec.Descriptor) (*ocispec.Manifest, error) {
	b, err := readMetadata(ctx, blobs, target)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", target.Digest, err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("manifest %s: %w", target.Digest, err))
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return nil, errdefs.As(errdefs.ErrUnsupported, fmt.Errorf(
			"manifest %s is not a container image: its config is %q", target.Digest, m.Config.MediaType))
	}
	for _, desc := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := desc.Digest.Validate(); err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("manifest %s: %q: %w", target.Digest, desc.Digest, err))
		}
	}
	for _, l := range m.Layers {
		if !images.IsLayerType(l.MediaType) || images.IsNonDistributable(l.MediaType) {
			return nil, errdefs.As(errdefs.ErrUnsupported, fmt.Errorf(
				"layer %s has the media type %q", l.Digest, l.MediaType))
		}
	}
	return &m, nil
}

// readMetadata reads a small blob.
func readMetadata(ctx context.Context, blobs content.Provider, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxMetadata {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%d bytes are more than a manifest or config may have", desc.Size))
	}
	desc.Data = nil // what is stored is what was verified
	return content.ReadBlob(ctx, blobs, desc)
}

// verifyImages parses the config of every recorded image and unpacks layers
// that are missing. A record whose blobs cannot be read is dropped: there is
// nothing left to run, save or inspect.
func (s *Store) verifyImages(ctx context.Context) error {
	var state catalogueState
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) { state = st })
	var broken []digest.Digest
	for id, rec := range state.Images {
		d, err := readDraft(ctx, s.blobs, rec.Target)
		if err == nil {
			err = s.restoreLayers(ctx, d)
		}
		if err != nil {
			if isDiskFull(err) || errors.Is(err, context.Canceled) {
				return err
			}
			s.log.Warn("image store: drop image that cannot be read", "id", id, "names", namesOf(state.Names, id), "err", err)
			broken = append(broken, id)
			continue
		}
		s.catalogue.remember(id, d.config)
	}
	if len(broken) == 0 {
		return nil
	}
	return s.catalogue.update(func(st *catalogueState) error {
		for _, id := range broken {
			st.remove(id)
		}
		return nil
	})
}

// remove takes an image and all its names out of the state.
func (st catalogueState) remove(id digest.Digest) {
	delete(st.Images, id)
	for _, names := range []map[string]digest.Digest{st.Names, st.Digests} {
		for n, d := range names {
			if d == id {
				delete(names, n)
			}
		}
	}
}
