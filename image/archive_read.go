package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// maxArchiveFiles is how many files an archive of images may have. One image has
// at most 127 layers; thousands of images are no longer an archive.
const maxArchiveFiles = 100_000

// dockerManifest is the name of a docker-archive's list of images, and
// dockerImage an entry of it.
// https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
const dockerManifest = "manifest.json"

type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// archiveFiles is an archive that was read to its end.
type archiveFiles struct {
	c *session
	// whole is the archive when it can be read anywhere, else nil.
	whole *io.SectionReader
	// layout, index and docker are the files that say what the others are; nil
	// when there is none.
	layout, index, docker []byte
	files                 map[string]*archiveFile        // by cleaned name
	links                 map[string]string              // symbolic and hard links, cleaned
	blobs                 map[digest.Digest]*archiveFile // as far as their digests are known
	all                   []*archiveFile
	small                 int64 // bytes that wait in memory
	count                 int
}

// readArchiveFiles reads a tar to its end. The order of the files is anybody's:
// what describes them comes last in some archives. The caller closes what it gets.
func readArchiveFiles(ctx context.Context, c *session, r io.Reader) (_ *archiveFiles, err error) {
	a := &archiveFiles{c: c, files: map[string]*archiveFile{}, links: map[string]string{}, blobs: map[digest.Digest]*archiveFile{}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.whole, err = plainFile(r); err != nil {
		return nil, err
	}
	if a.whole != nil {
		return a, a.read(ctx, a.whole)
	}
	plain, err := decompress(contextReader{ctx, r})
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	if err := a.read(ctx, plain); err != nil {
		return nil, err
	}
	// The tar reader stops at the archive's end; the sender has not.
	_, err = io.Copy(io.Discard, plain)
	return a, err
}

// read lists the tar's files.
func (a *archiveFiles) read(ctx context.Context, r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = a.take(ctx, hdr, tr)
		}
		if err != nil {
			return err
		}
	}
}

// take lists one file.
func (a *archiveFiles) take(ctx context.Context, hdr *tar.Header, r io.Reader) (err error) {
	if a.count++; a.count > maxArchiveFiles {
		return fmt.Errorf("it has more than %d files", maxArchiveFiles)
	}
	name := path.Clean(hdr.Name)
	switch hdr.Typeflag {
	case tar.TypeReg:
	case tar.TypeSymlink:
		a.links[name] = path.Join(path.Dir(name), hdr.Linkname)
		return nil
	case tar.TypeLink:
		a.links[name] = path.Clean(hdr.Linkname)
		return nil
	default:
		return nil
	}
	small := map[string]*[]byte{ocispec.ImageLayoutFile: &a.layout, ocispec.ImageIndexFile: &a.index, dockerManifest: &a.docker}
	if to := small[name]; to != nil {
		if hdr.Size > maxMetadata {
			return fmt.Errorf("%s: %d bytes are too many", name, hdr.Size)
		}
		*to, err = io.ReadAll(r)
		return err
	}
	if limit := a.c.s.opts.MaxLayerSize; hdr.Size > limit {
		return fmt.Errorf("%.100q: %w", name, a.c.s.newLayerLimit().tooLarge())
	}
	f, err := a.file(ctx, name, hdr, r)
	if err != nil {
		return fmt.Errorf("%.100q: %w", name, err)
	}
	a.files[name], a.all = f, append(a.all, f)
	if f.said != "" {
		a.blobs[f.said] = f
	}
	return nil
}

// digestOfPath reads "blobs/sha256/HEX".
func digestOfPath(name string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(name, ocispec.ImageBlobsDir+"/")
	if !ok {
		return "", false
	}
	d := digest.Digest(strings.Replace(rest, "/", ":", 1))
	return d, d.Validate() == nil && d.Algorithm() == digest.Canonical
}

// find returns the file of a name in the archive, through links.
func (a *archiveFiles) find(name string) (*archiveFile, error) {
	at := path.Clean(name)
	for range 10 {
		if f, ok := a.files[at]; ok {
			return f, nil
		}
		next, ok := a.links[at]
		if !ok {
			break
		}
		at = next
	}
	return nil, fmt.Errorf("the archive is incomplete: %.200q is not in it", name)
}

// manifests lists the manifests and indexes the archive says it has. An OCI
// layout is preferred to a docker-archive's list: it names media types.
func (a *archiveFiles) manifests(ctx context.Context) ([]ocispec.Descriptor, error) {
	switch {
	case a.layout != nil:
		return a.fromLayout()
	case a.docker != nil:
		return a.fromDocker(ctx)
	}
	return nil, errors.New("unrecognized image format: the archive has neither an oci-layout nor a manifest.json")
}

func (a *archiveFiles) fromLayout() ([]ocispec.Descriptor, error) {
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(a.layout, &layout); err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageLayoutFile, err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return nil, errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("it is an OCI layout of version %.20q", layout.Version))
	}
	if a.index == nil {
		return nil, fmt.Errorf("the archive is incomplete: %s is not in it", ocispec.ImageIndexFile)
	}
	var index ocispec.Index
	if err := json.Unmarshal(a.index, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	return index.Manifests, nil
}

// fromDocker writes the manifests a docker-archive does not have.
func (a *archiveFiles) fromDocker(ctx context.Context) ([]ocispec.Descriptor, error) {
	var list []dockerImage
	if err := json.Unmarshal(a.docker, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", dockerManifest, err)
	}
	var out []ocispec.Descriptor
	for _, img := range list {
		desc, err := a.dockerManifest(ctx, img)
		if err != nil {
			return nil, err
		}
		for _, tag := range img.RepoTags {
			if _, err := parseTag(tag); err != nil {
				return nil, err
			}
			named := desc
			named.Annotations = map[string]string{images.AnnotationImageName: tag}
			out = append(out, named)
		}
		if len(img.RepoTags) == 0 {
			out = append(out, desc)
		}
	}
	return out, nil
}

func (a *archiveFiles) dockerManifest(ctx context.Context, img dockerImage) (ocispec.Descriptor, error) {
	config, rootfs, err := a.dockerConfig(ctx, img.Config)
	if err != nil {
		return config, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: images.MediaTypeDockerSchema2Manifest,
		Config: config, Layers: []ocispec.Descriptor{},
	}
	for i, name := range img.Layers {
		var diffID digest.Digest
		if i < len(rootfs.DiffIDs) {
			diffID = rootfs.DiffIDs[i]
		}
		layer, err := a.dockerLayer(ctx, name, diffID)
		if err != nil {
			return layer, err
		}
		m.Layers = append(m.Layers, layer)
	}
	return writeJSON(ctx, a.c, m.MediaType, m)
}

// dockerConfig makes an image's config a blob and reads which layers it names.
func (a *archiveFiles) dockerConfig(ctx context.Context, name string) (desc ocispec.Descriptor, rootfs ocispec.RootFS, err error) {
	f, err := a.find(name)
	if err != nil {
		return desc, rootfs, err
	}
	if desc, err = a.describe(ctx, f, ""); err != nil {
		return desc, rootfs, err
	}
	desc.MediaType = images.MediaTypeDockerSchema2Config
	b, err := readMetadata(ctx, a, desc)
	if err != nil {
		return desc, rootfs, fmt.Errorf("%.200q: %w", name, err)
	}
	var config struct{ RootFS ocispec.RootFS }
	if err := json.Unmarshal(b, &config); err != nil {
		return desc, rootfs, fmt.Errorf("%.200q: %w", name, err)
	}
	return desc, config.RootFS, nil
}

// dockerLayer describes a layer the config knows by a digest, which is that of
// the blob when it is not compressed. Docker-archives hold plain ones, by custom,
// and compressed ones all the same: the first bytes tell.
func (a *archiveFiles) dockerLayer(ctx context.Context, name string, diffID digest.Digest) (layer ocispec.Descriptor, err error) {
	f, err := a.find(name)
	if err != nil {
		return layer, err
	}
	head, err := f.head(ctx)
	if err != nil {
		return layer, fmt.Errorf("%.200q: %w", name, err)
	}
	mediaType := images.MediaTypeDockerSchema2Layer
	switch compression.DetectCompression(head) {
	case compression.Gzip:
		mediaType, diffID = images.MediaTypeDockerSchema2LayerGzip, ""
	case compression.Zstd:
		mediaType, diffID = images.MediaTypeDockerSchema2LayerZstd, ""
	}
	if diffID.Validate() != nil || diffID.Algorithm() != digest.Canonical {
		diffID = ""
	}
	layer, err = a.describe(ctx, f, diffID)
	layer.MediaType = mediaType
	return layer, err
}

// describe finds out a file's digest: the one it is said to have, which is compared
// when it is brought into the store, else by bringing it in.
func (a *archiveFiles) describe(ctx context.Context, f *archiveFile, said digest.Digest) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{Digest: firstDigest(f.said, said), Size: f.size}
	if f.got != nil || desc.Digest == "" {
		in, err := f.bring(ctx, "")
		if err != nil {
			return desc, err
		}
		desc = in.desc
	}
	if a.blobs[desc.Digest] == nil {
		a.blobs[desc.Digest] = f
	}
	return desc, nil
}

// archived is one image of an archive, with full names.
type archived struct {
	target ocispec.Descriptor
	names  []string
}

// images lists the archive's images, in its order; see [LoadOptions] for what
// the platform says.
func (a *archiveFiles) images(ctx context.Context, platform string) ([]archived, error) {
	want, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	manifests, err := a.manifests(ctx)
	if err != nil {
		return nil, err
	}
	var list []archived
	for _, group := range sameName(manifests) {
		desc, err := a.pick(ctx, group, want, platform != "")
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(a archived) bool { return a.target.Digest == desc.Digest })
		if i < 0 {
			list, i = append(list, archived{target: desc}), len(list)
		}
		if name := archivedName(group[0]); name != "" && !slices.Contains(list[i].names, name) {
			list[i].names = append(list[i].names, name)
		}
	}
	if len(list) == 0 {
		return nil, errdefs.As(errdefs.ErrInvalid, errors.New("the archive holds no image"))
	}
	return list, nil
}

// sameName puts together the manifests that are one image for several
// platforms: those of one name. What has none is an image of its own.
func sameName(manifests []ocispec.Descriptor) [][]ocispec.Descriptor {
	var groups [][]ocispec.Descriptor
	at := map[string]int{}
	for _, desc := range manifests {
		if desc.Platform != nil && desc.Platform.OS == "unknown" {
			continue // an attestation of another
		}
		name := archivedName(desc)
		if i, ok := at[name]; ok && name != "" {
			groups[i] = append(groups[i], desc)
			continue
		}
		at[name] = len(groups)
		groups = append(groups, []ocispec.Descriptor{desc})
	}
	return groups
}

// pick goes down to one manifest. Unless the platform was asked for, the only
// one there is will do.
func (a *archiveFiles) pick(ctx context.Context, list []ocispec.Descriptor, want ocispec.Platform, strict bool) (desc ocispec.Descriptor, err error) {
	for range 4 { // nobody nests deeper
		if len(list) == 1 {
			desc = list[0]
		} else if desc, err = choose(list, want); err != nil {
			return desc, err
		}
		if !images.IsIndexType(desc.MediaType) {
			return desc, nil
		}
		if list, err = readIndex(ctx, a, desc); err != nil {
			return desc, err
		}
		list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.Platform != nil && d.Platform.OS == "unknown" })
		if strict || len(list) != 1 {
			if desc, err = choose(list, want); err != nil {
				return desc, err
			}
			list = []ocispec.Descriptor{desc}
		}
	}
	return desc, errors.New("indexes are nested too deep")
}

// isFor checks that the image is for a platform that was asked for.
func (d *draft) isFor(platform string) error {
	if platform == "" {
		return nil
	}
	want, err := parsePlatform(platform)
	if err != nil {
		return err
	}
	if !platforms.OnlyStrict(want).Match(platforms.Normalize(d.config.Platform)) {
		return wrongPlatform(errdefs.ErrNotFound, []ocispec.Platform{d.config.Platform}, want)
	}
	return nil
}
