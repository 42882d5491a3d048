package engine

import (
	"context"
	"path"
	"slices"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/image"
	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
)

// ImageList lists images, newest first.
func (e *Engine) ImageList(ctx context.Context, opt ImageListOptions) ([]imagetypes.Summary, error) {
	q, err := e.newImageQuery(ctx, opt.Filters)
	if err != nil {
		return nil, err
	}
	images, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var usage image.Usage
	if opt.SharedSize {
		if usage, err = e.images.DiskUsage(ctx); err != nil {
			return nil, err
		}
	}
	list := []imagetypes.Summary{}
	for _, img := range images {
		tags, ok := q.wants(img)
		if !ok || intermediate(img) && !opt.All {
			continue
		}
		s := imagetypes.Summary{
			ID: img.ID.String(), RepoTags: orEmpty(tags), RepoDigests: orEmpty(img.RepoDigests),
			Labels: img.Config.Config.Labels, Size: img.Size, SharedSize: -1, Containers: -1, Descriptor: &img.Target,
			ParentID: img.Parent.String(),
		}
		if opt.SharedSize {
			s.SharedSize = usage.Shared[img.ID]
		}
		if opt.Manifests {
			if s.Manifests, err = e.imageManifests(img); err != nil {
				return nil, err
			}
		}
		if !img.Created.IsZero() {
			s.Created = img.Created.Unix()
		}
		if opt.ContainerCount {
			s.Containers = int64(len(e.imageUsers(img.ID)))
		}
		list = append(list, s)
	}
	return list, nil
}

// imageQuery is an image list's filters, read.
type imageQuery struct {
	f             Filters
	before, since time.Time
	until         time.Time
	dangling      *bool
}

func (e *Engine) newImageQuery(ctx context.Context, f Filters) (*imageQuery, error) {
	if err := f.only("before", "dangling", "label", "label!", "reference", "since", "until"); err != nil {
		return nil, err
	}
	q := &imageQuery{f: f}
	for name, to := range map[string]*time.Time{"before": &q.before, "since": &q.since} {
		for _, ref := range f.values(name) {
			img, err := e.images.Get(ctx, ref)
			if err != nil {
				return nil, err
			}
			*to = img.Created
		}
	}
	if len(f.values("dangling")) > 0 {
		v, err := f.boolean("dangling", false)
		if err != nil {
			return nil, err
		}
		q.dangling = &v
	}
	for _, pattern := range f.values("reference") {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, badFilterValue("reference", pattern, errdefs.As(errdefs.ErrInvalid, err))
		}
	}
	until, err := f.until(time.Now())
	q.until = until
	return q, err
}

// wants returns the tags to show and whether the image passes at all.
func (q *imageQuery) wants(img *image.Image) (tags []string, ok bool) {
	switch {
	case !q.before.IsZero() && !img.Created.Before(q.before),
		!q.since.IsZero() && !img.Created.After(q.since),
		!q.until.IsZero() && !img.Created.Before(q.until),
		q.dangling != nil && *q.dangling != (len(img.RepoTags)+len(img.RepoDigests) == 0 && !img.Children),
		!q.f.labels(img.Config.Config.Labels):
		return nil, false
	}
	patterns := q.f.values("reference")
	if len(patterns) == 0 {
		return img.RepoTags, true
	}
	for _, tag := range img.RepoTags {
		named, err := reference.ParseNormalizedNamed(tag)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(patterns, func(p string) bool { m, _ := reference.FamiliarMatch(p, named); return m }) {
			tags = append(tags, tag)
		}
	}
	return tags, len(tags) > 0
}

// intermediate images have no name and are there for the images made from them.
func intermediate(img *image.Image) bool {
	return img.Children && len(img.RepoTags)+len(img.RepoDigests) == 0
}
