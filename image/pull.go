package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// fetchAttempts is how often a manifest or config is asked for before Pull gives
// up; an attempt goes on where the one before ended. The client library
// reconnects on its own as well, but only when a connection ends early.
const fetchAttempts = 3

// PullOptions say what to take from a registry. The zero value pulls anonymously
// and for this host.
type PullOptions struct {
	// Platform is "os/arch[/variant]"; "" means this host's.
	Platform string
	// Auth is what the registry is shown when it asks; nil means nothing.
	Auth *registry.AuthConfig
	// Progress is called from several goroutines, never at once; nil: not at all.
	Progress func(ProgressEvent)
}

// Pull fetches an image by name from its registry ("busybox" means
// docker.io/library/busybox:latest), unpacks it and names it. After an error
// nothing of it is kept. Errors are errdefs.ErrNotFound (no such image, or not
// for the platform), ErrPermission (the registry refuses), ErrUnavailable (it
// cannot be reached), ErrInvalid (a bad name, or content that is not what its
// digest says), ErrUnsupported (not a container image).
func (s *Store) Pull(ctx context.Context, ref string, opts PullOptions) (img *Image, err error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	platform, err := parsePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("pull %s: %w", reference.FamiliarString(named), s.explainRegistry(named, err))
		}
	}()
	client := &client{domain: reference.Domain(named)}
	defer client.close()
	if err := client.open(s, opts.Auth); err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	p := &pull{s: s, c: s.begin(), client: client, progress: newProgress(opts.Progress), platform: platform}
	defer p.c.finish(ctx, &err)
	if p.remote, err = resolve(ctx, client, named); err != nil {
		return nil, err
	}
	return p.run(ctx)
}

// pull is one running Pull.
type pull struct {
	s        *Store
	c        *session
	client   *client
	remote   *remote
	progress *progress
	platform ocispec.Platform
}

func (p *pull) run(ctx context.Context) (*Image, error) {
	named := p.remote.named
	version := p.remote.desc.Digest.String()
	var names []string
	if t, ok := named.(reference.Tagged); ok {
		version, names = t.Tag(), []string{named.String()}
	}
	p.progress.send(ProgressEvent{ID: version, Status: "Pulling from " + reference.Path(named)})
	target, err := p.manifest(ctx, p.remote.desc)
	if err != nil {
		return nil, err
	}
	d, err := p.describe(ctx, target)
	if err != nil {
		return nil, err
	}
	digests := []string{named.Name() + "@" + p.remote.desc.Digest.String()}
	before, _ := p.s.Get(ctx, named.String())
	img, err := p.reuse(d, names, digests)
	if err == nil && img == nil {
		if err = p.layers(ctx, d); err == nil {
			img, err = p.s.record(ctx, d, names, digests)
		}
	}
	if err != nil {
		return nil, err
	}
	p.progress.line("Digest: " + p.remote.desc.Digest.String())
	verdict := "Downloaded newer image for "
	if before != nil && before.ID == img.ID {
		verdict = "Image is up to date for "
	}
	p.progress.line("Status: " + verdict + reference.FamiliarString(named))
	return img, nil
}

// manifest fetches what desc says and, from an index, the manifest for the
// platform; it returns the manifest's descriptor.
func (p *pull) manifest(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	for range 3 { // an index may hold an index; nobody nests deeper
		if images.IsManifestType(desc.MediaType) {
			return desc, p.fetch(ctx, desc)
		}
		if !images.IsIndexType(desc.MediaType) {
			return desc, errdefs.As(errdefs.ErrUnsupported, fmt.Errorf("%s is not a container image: its type is %q", desc.Digest, desc.MediaType))
		}
		if err := p.fetch(ctx, desc); err != nil {
			return desc, err
		}
		b, err := readMetadata(ctx, p.c, desc)
		if err != nil {
			return desc, err
		}
		var index ocispec.Index
		if err := json.Unmarshal(b, &index); err != nil {
			return desc, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("index %s: %w", desc.Digest, err))
		}
		if desc, err = choose(index.Manifests, p.platform); err != nil {
			return desc, err
		}
	}
	return desc, errdefs.As(errdefs.ErrInvalid, errors.New("indexes are nested too deep"))
}

// describe fetches the config and checks that the image runs on the platform.
func (p *pull) describe(ctx context.Context, target ocispec.Descriptor) (*draft, error) {
	m, err := readManifest(ctx, p.c, target)
	if err != nil {
		return nil, err
	}
	if err := p.fetch(ctx, m.Config); err != nil {
		return nil, err
	}
	d, err := readDraft(ctx, p.c, target)
	if err != nil {
		return nil, err
	}
	has := d.config.Platform
	if has.Architecture != "" && has.OS != "" && !platforms.Only(p.platform).Match(platforms.Normalize(has)) {
		return nil, wrongPlatform(errdefs.ErrNotFound, []ocispec.Platform{has}, p.platform)
	}
	return d, nil
}

// reuse names the image if the store has it already, perhaps by another way
// and with other blobs; nil means it has not.
func (p *pull) reuse(d *draft, names, digests []string) (*Image, error) {
	img, err := p.s.catalogue.addNames(d.id, names, digests)
	if err != nil || img == nil {
		return nil, err
	}
	for _, l := range d.layers {
		p.progress.layer(l.Digest, statusExists)
	}
	return img, nil
}

// fetch brings a manifest or config into the store unless it is there. What arrives is
// hashed on its way and compared with the digest; a mismatch is fetched once
// more from its beginning, a broken transfer goes on where it broke.
func (p *pull) fetch(ctx context.Context, desc ocispec.Descriptor) (err error) {
	kind := kindOf(desc)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", kind, desc.Digest, err)
		}
	}()
	unlock, err := p.s.busy.lock(ctx, "blob "+desc.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	if desc.Size > maxMetadata {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%d bytes are too many", desc.Size))
	}
	desc.URLs = nil // the registry serves it, or nobody does
	for attempt := 1; ; attempt++ {
		err := remotes.Fetch(ctx, p.c, p.remote.fetcher, desc)
		switch {
		case err == nil || cerrdefs.IsAlreadyExists(err):
			return nil
		case isCorrupt(err):
			if aerr := p.c.Abort(ctx, remotes.MakeRefKey(ctx, desc)); aerr != nil {
				return aerr
			}
			if attempt >= 2 {
				return errWrongContent
			}
		case cerrdefs.IsNotFound(err):
			return errIncomplete
		case attempt >= fetchAttempts || ctx.Err() != nil || !isTransient(err):
			return err
		}
	}
}

// errIncomplete: an image refers to what its registry does not have.
var errIncomplete = errdefs.WithHint(
	errdefs.As(errdefs.ErrNotFound, errors.New("the registry does not have it")),
	"the image is incomplete at the registry; it has to be pushed again")

// parsePlatform reads "os/arch[/variant]"; "" is this host.
func parsePlatform(s string) (ocispec.Platform, error) {
	if s == "" {
		return platforms.DefaultSpec(), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return p, errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("platform %q: %w", s, err)),
			"a platform looks like linux/amd64 or linux/arm/v7")
	}
	return platforms.Normalize(p), nil
}

// choose picks the manifest for the platform, the best one when several would
// run. Manifests without a platform are taken when there is nothing better.
func choose(list []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	matcher := platforms.Only(want)
	var best *ocispec.Descriptor
	var has []ocispec.Platform
	for i, m := range list {
		if m.Platform == nil || m.Platform.OS == "unknown" || m.Platform.Architecture == "unknown" {
			continue // an attestation, or nothing known
		}
		has = append(has, *m.Platform)
		if matcher.Match(platforms.Normalize(*m.Platform)) && (best == nil || matcher.Less(*m.Platform, *best.Platform)) {
			best = &list[i]
		}
	}
	if best == nil && len(has) == 0 && len(list) == 1 {
		best = &list[0]
	}
	if best == nil {
		return ocispec.Descriptor{}, wrongPlatform(errdefs.ErrNotFound, has, want)
	}
	return *best, nil
}

func wrongPlatform(class error, has []ocispec.Platform, want ocispec.Platform) error {
	var names []string
	for _, p := range has {
		names = append(names, platforms.Format(platforms.Normalize(p)))
	}
	list := strings.Join(names, ", ")
	if list == "" {
		list = "no platform at all"
	}
	who := "the platform asked for is "
	if want.OS == runtime.GOOS && want.Architecture == runtime.GOARCH {
		who = "this host is "
	}
	return errdefs.WithHint(
		errdefs.As(class, fmt.Errorf("the image is for %s; %s%s", list, who, platforms.Format(want))),
		"look for a tag of this image that is built for "+platforms.Format(want))
}

// CheckPlatform returns an errdefs.ErrUnsupported that names both sides when the image was built
// for another kind of machine than this host.
func CheckPlatform(img *Image) error {
	has := img.Config.Platform
	if has.Architecture == "" || platforms.Only(platforms.DefaultSpec()).Match(platforms.Normalize(has)) {
		return nil
	}
	return wrongPlatform(errdefs.ErrUnsupported, []ocispec.Platform{has}, platforms.DefaultSpec())
}
