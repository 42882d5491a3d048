package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berth-containers/berth/errdefs"
)

// maxUploads is how many layers one Push sends at once; Docker's number too.
const maxUploads = 5

// pushAttempts is how often a blob is sent before Push gives up: an upload
// begins anew each time.
const pushAttempts = 3

// PushOptions say how an image is sent to its registry.
type PushOptions struct {
	// Auth is what the registry is shown when it asks; nil means nothing.
	Auth *registry.AuthConfig
	// Platform, when set, is "os/arch[/variant]" the image must be for.
	Platform string
	// AllTags pushes every tag of the repository that ref names, without a tag.
	AllTags bool
	// Progress is called from several goroutines, never at once; nil: not at all.
	Progress func(ProgressEvent)
}

// Push sends the image that has the name ref to the registry the name says,
// layers first, the manifest last: what is there is not sent again, and what
// another repository of the registry is known to have is mounted from there.
// Layers the store holds uncompressed are compressed first, and stay so in the
// store. The image is then known by the registry's digest, too. It returns the
// full names that were pushed. Errors are errdefs.ErrNotFound (no such image
// here), ErrInvalid (a name that cannot be pushed), ErrPermission (the registry
// refuses), ErrUnavailable (it cannot be reached).
func (s *Store) Push(ctx context.Context, ref string, opts PushOptions) (pushed []string, err error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, invalidName(ref, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("push %s: %w", reference.FamiliarString(named), s.explainRegistry(named, err))
		}
	}()
	names, err := s.pushNames(named, opts.AllTags)
	if err != nil {
		return nil, err
	}
	client := &client{domain: reference.Domain(named)}
	defer client.close()
	if err := client.open(s, opts.Auth); err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	p := &push{
		s: s, named: reference.TrimNamed(named), client: client, opts: opts,
		progress: newProgress(opts.Progress), tracker: docker.NewInMemoryTracker(),
		sent: map[digest.Digest]string{},
	}
	p.progress.line(fmt.Sprintf("The push refers to repository [%s]", p.named.Name()))
	for _, name := range names {
		if err := p.tag(ctx, name); err != nil {
			return pushed, err
		}
		pushed = append(pushed, name.String())
	}
	return pushed, nil
}

// pushNames are the names to push: the one given, or all of its repository.
func (s *Store) pushNames(named reference.Named, all bool) ([]reference.NamedTagged, error) {
	if _, ok := named.(reference.Digested); ok {
		return nil, errdefs.As(errdefs.ErrInvalid, errors.New("cannot push a digest reference"))
	}
	if !all {
		return []reference.NamedTagged{reference.TagNameOnly(named).(reference.NamedTagged)}, nil
	}
	if !reference.IsNameOnly(named) {
		return nil, errdefs.As(errdefs.ErrInvalid, errors.New("all tags are asked for, and one is given"))
	}
	var names []reference.NamedTagged
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		for _, tag := range st.repositoryTags(named.String()) {
			if n, err := reference.ParseNormalizedNamed(tag); err == nil {
				names = append(names, n.(reference.NamedTagged))
			}
		}
	})
	if len(names) == 0 {
		return nil, noLocalImage(named.String())
	}
	return names, nil
}

func noLocalImage(name string) error {
	return errdefs.WithHint(
		errdefs.As(errdefs.ErrNotFound, fmt.Errorf("an image does not exist locally with the tag: %s", familiar(name))),
		"give the image the name first: berth tag IMAGE "+familiar(name))
}

// push is one running Push.
type push struct {
	s        *Store
	named    reference.Named // the repository
	client   *client
	opts     PushOptions
	progress *progress
	tracker  docker.StatusTracker
	// sent holds how each layer came to be in the repository, in Docker's words,
	// for further tags of this push.
	sent map[digest.Digest]string
}

// tag pushes one name.
func (p *push) tag(ctx context.Context, name reference.NamedTagged) (err error) {
	c := p.s.begin()
	defer c.finish(ctx, &err)
	d, err := p.image(ctx, c, name)
	if err != nil {
		return err
	}
	for _, l := range d.layers {
		p.progress.layer(l.DiffID, statusPreparing)
	}
	if d, err = p.compress(ctx, c, d); err != nil {
		return err
	}
	if err := p.layers(ctx, d); err != nil {
		return err
	}
	// A tracker of its own: one that has seen the manifest under another tag
	// would not send it again.
	pusher, err := p.client.resolver(docker.NewInMemoryTracker()).Pusher(ctx, name.String())
	if err != nil {
		return err
	}
	manifest, err := readManifest(ctx, c, d.target)
	if err != nil {
		return err
	}
	for _, desc := range []ocispec.Descriptor{manifest.Config, d.target} {
		if _, err := p.send(ctx, pusher, c, desc, nil); err != nil {
			return err
		}
	}
	if err := p.s.pushed(d, name.Name()+"@"+d.target.Digest.String()); err != nil {
		return err
	}
	p.progress.line(fmt.Sprintf("%s: digest: %s size: %d", name.Tag(), d.target.Digest, d.target.Size))
	p.progress.send(ProgressEvent{Pushed: &Pushed{Tag: name.Tag(), Digest: d.target.Digest, Size: d.target.Size}})
	return nil
}

// image reads what the name means and keeps it from being collected.
func (p *push) image(ctx context.Context, c *session, name reference.NamedTagged) (*draft, error) {
	img, err := p.s.Get(ctx, name.String())
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, noLocalImage(name.String())
	}
	if err != nil {
		return nil, err
	}
	if p.opts.Platform != "" {
		want, err := parsePlatform(p.opts.Platform)
		if err != nil {
			return nil, err
		}
		if has := img.Config.Platform; !platforms.OnlyStrict(want).Match(platforms.Normalize(has)) {
			return nil, wrongPlatform(errdefs.ErrNotFound, []ocispec.Platform{has}, want)
		}
	}
	c.pin(img.Target.Digest.String())
	c.pin(img.ID.String())
	for _, l := range img.Layers {
		c.pin(l.Digest.String())
	}
	d, err := readDraft(ctx, c, img.Target)
	if cerrdefs.IsNotFound(err) {
		err = noLocalImage(name.String()) // removed between Get and pin
	}
	return d, err
}

// layers sends what the repository does not have.
func (p *push) layers(ctx context.Context, d *draft) error {
	pusher, err := p.client.resolver(p.tracker).Pusher(ctx, p.named.String())
	if err != nil {
		return err
	}
	mounts := p.s.mountSources(p.named, d.layers)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(maxUploads)
	results := make([]string, len(d.layers))
	for i, l := range d.layers {
		if status, ok := p.sent[l.Digest]; ok {
			p.progress.layer(l.DiffID, status)
			continue
		}
		if slices.ContainsFunc(d.layers[:i], func(o Layer) bool { return o.Digest == l.Digest }) {
			continue // the same layer twice, as an empty one may be
		}
		p.progress.layer(l.DiffID, statusWaiting)
		group.Go(func() (err error) {
			desc := d.descs[i]
			if from := mounts[l.Digest]; len(from) > 0 {
				desc.Annotations = map[string]string{
					labels.LabelDistributionSource + "." + hostOf(reference.Domain(p.named)): strings.Join(from, ","),
				}
			}
			results[i], err = p.send(gctx, pusher, p.s.blobs, desc, func(n int64) {
				p.progress.count(ProgressEvent{ID: short(l.DiffID), Status: statusPushing, Current: n, Total: desc.Size})
			})
			if err == nil {
				p.progress.layer(l.DiffID, results[i])
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, l := range d.layers {
		if results[i] != "" {
			p.sent[l.Digest] = results[i]
		}
	}
	return nil
}

// send brings one blob or manifest to the registry and says how it came there.
func (p *push) send(ctx context.Context, pusher remotes.Pusher, blobs content.Provider, desc ocispec.Descriptor, progress func(int64)) (how string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", kindOf(desc), desc.Digest, err)
		}
	}()
	for attempt := 1; ; attempt++ {
		w, err := pusher.Push(ctx, desc)
		if cerrdefs.IsAlreadyExists(err) {
			return p.found(ctx, desc), nil
		}
		if err == nil {
			err = upload(ctx, w, blobs, desc, progress)
		}
		if err == nil {
			return statusPushed, nil
		}
		if ctx.Err() != nil || attempt >= pushAttempts || final(err) {
			return "", err
		}
		if err := pause(ctx, attempt); err != nil {
			return "", err
		}
	}
}

// found says why a blob need not be sent.
func (p *push) found(ctx context.Context, desc ocispec.Descriptor) string {
	status, err := p.tracker.GetStatus(remotes.MakeRefKey(ctx, desc))
	if err == nil && status.MountedFrom != "" {
		_, repository, _ := strings.Cut(status.MountedFrom, "/")
		return "Mounted from " + repository
	}
	return statusLayerExists
}

// upload writes a blob into a registry's upload. The writer wants to know of an
// error by being closed, and must be closed either way.
func upload(ctx context.Context, w content.Writer, blobs content.Provider, desc ocispec.Descriptor, progress func(int64)) error {
	defer w.Close()
	ra, err := blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size})
	if err != nil {
		return err
	}
	defer ra.Close()
	r := content.NewReader(ra)
	if progress != nil {
		r = &countingReader{r: r, report: progress}
	}
	if _, err := io.CopyBuffer(w, contextReader{ctx, r}, make([]byte, 256<<10)); err != nil {
		return err
	}
	return w.Commit(ctx, desc.Size, desc.Digest)
}

// mountSources lists, for each layer, further repositories of the same registry
// that are known to have it: images of them that were pulled or pushed.
func (s *Store) mountSources(named reference.Named, layers []Layer) map[digest.Digest][]string {
	wanted := map[digest.Digest]bool{}
	for _, l := range layers {
		wanted[l.Digest] = true
	}
	sources := map[digest.Digest][]string{}
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		for full, id := range st.Digests {
			n, err := reference.ParseNormalizedNamed(full)
			if err != nil || reference.Domain(n) != reference.Domain(named) || reference.Path(n) == reference.Path(named) {
				continue
			}
			for _, l := range st.Images[id].Layers {
				if wanted[l.Digest] && !slices.Contains(sources[l.Digest], reference.Path(n)) {
					sources[l.Digest] = append(sources[l.Digest], reference.Path(n))
				}
			}
		}
	})
	return sources
}

// pushed records the digest name of what was pushed, and the form in which: d
// may have layers that were compressed for it.
func (s *Store) pushed(d *draft, digestName string) error {
	return s.catalogue.update(func(st *catalogueState) error {
		rec, ok := st.Images[d.id]
		if !ok {
			return nil // removed meanwhile
		}
		if rec.Target.Digest != d.target.Digest {
			rec.Target = d.target
			rec.Layers = slices.Clone(rec.Layers)
			for i, l := range d.layers {
				rec.Layers[i].Digest, rec.Layers[i].MediaType, rec.Layers[i].BlobSize = l.Digest, l.MediaType, l.BlobSize
			}
			st.Images[d.id] = rec
		}
		st.Digests[digestName] = d.id
		return nil
	})
}

// kindOf is what people call a blob.
func kindOf(desc ocispec.Descriptor) string {
	switch {
	case images.IsManifestType(desc.MediaType), images.IsIndexType(desc.MediaType):
		return "manifest"
	case images.IsConfigType(desc.MediaType):
		return "config"
	}
	return "layer"
}
