package engine

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/berth-containers/berth/image"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImagePull pulls an image, or all of a repository, and describes it, or the
// last one.
func (e *Engine) ImagePull(ctx context.Context, ref string, opt ImagePullOptions) (_ *imagetypes.InspectResponse, err error) {
	ctx, end := e.observe(ctx, OpPull, ref)
	defer func() { end(err) }()
	how := image.PullOptions{Platform: platformText(opt.Platform), Auth: opt.Auth, Progress: reporting(ctx, opt.Progress)}
	if opt.AllTags {
		return e.pullAll(ctx, ref, how)
	}
	img, err := e.images.Pull(ctx, ref, how)
	if err != nil {
		return nil, err
	}
	name := familiar(ref)
	e.events.emit(events.ImageEventType, events.ActionPull, name, map[string]string{"name": withoutTag(name)})
	return e.inspectImage(img), nil
}

func (e *Engine) pullAll(ctx context.Context, ref string, how image.PullOptions) (last *imagetypes.InspectResponse, err error) {
	images, err := e.images.PullAll(ctx, ref, how)
	for _, img := range images {
		last = e.inspectImage(img)
	}
	if last != nil {
		name := withoutTag(familiar(ref))
		e.events.emit(events.ImageEventType, events.ActionPull, name, map[string]string{"name": name})
	}
	return last, err
}

func platformText(p *ocispec.Platform) string {
	if p == nil {
		return ""
	}
	return strings.TrimRight(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// ImageLoad loads a docker-archive or OCI layout tar and returns the names
// (or, untagged, the ids) of what it held.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, opt ImageLoadOptions) (_ []string, err error) {
	ctx, end := e.observe(ctx, OpLoad, "")
	defer func() { end(err) }()
	list, err := e.images.Load(ctx, r, image.LoadOptions{Platform: platformText(opt.Platform), Progress: opt.Progress})
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, img := range list {
		if len(img.RepoTags) == 0 {
			names = append(names, img.ID.String())
		}
		names = append(names, img.RepoTags...)
		e.emitImage(events.ActionLoad, img.ID.String(), firstOf(img.RepoTags, img.ID.String()))
	}
	return names, nil
}

// ImageImport makes an image of a root file system tar and returns its id.
func (e *Engine) ImageImport(ctx context.Context, r io.Reader, opt ImageImportOptions) (string, error) {
	if opt.Source != "" {
		body, err := image.OpenURL(ctx, opt.Source)
		if err != nil {
			return "", err
		}
		defer body.Close()
		r = body
	}
	img, err := e.images.Import(ctx, r, image.ImportOptions{
		Ref: opt.Ref, Message: opt.Message, Changes: opt.Changes, Platform: platformText(opt.Platform),
	})
	if err != nil {
		return "", err
	}
	e.emitImage(events.ActionImport, img.ID.String(), firstOf(img.RepoTags, img.ID.String()))
	return img.ID.String(), nil
}

// ImageSave writes images as a tar that both ImageLoad and docker load read.
func (e *Engine) ImageSave(ctx context.Context, opt ImageSaveOptions, w io.Writer) error {
	err := e.images.Save(ctx, opt.Names, w, image.SaveOptions{Format: opt.Format, Platform: platformText(opt.Platform)})
	if err != nil {
		return err
	}
	for _, name := range opt.Names {
		if img, err := e.images.Get(ctx, name); err == nil {
			e.emitImage(events.ActionSave, img.ID.String(), img.ID.String())
		}
	}
	return nil
}

// ImageInspect describes one image.
func (e *Engine) ImageInspect(ctx context.Context, ref string) (*imagetypes.InspectResponse, error) {
	img, err := e.images.Get(ctx, ref)
	if err != nil {
		return nil, e.suggestImage(ctx, err, ref)
	}
	resp := e.inspectImage(img)
	resp.Manifests, err = e.imageManifests(img)
	return resp, err
}

func (e *Engine) inspectImage(img *image.Image) *imagetypes.InspectResponse {
	cfg := img.Config.Config
	driver, _ := e.images.Snapshotter()
	resp := &imagetypes.InspectResponse{
		ID: img.ID.String(), RepoTags: orEmpty(img.RepoTags), RepoDigests: orEmpty(img.RepoDigests),
		Author: img.Config.Author, Config: &cfg, Architecture: img.Config.Architecture, Variant: img.Config.Variant,
		Os: img.Config.OS, OsVersion: img.Config.OSVersion, Size: img.Size,
		RootFS: imagetypes.RootFS{Type: img.Config.RootFS.Type}, Metadata: imagetypes.Metadata{LastTagTime: img.LastTagged},
		Descriptor: &img.Target, GraphDriver: &storage.DriverData{Name: driver, Data: map[string]string{}},
	}
	if !img.Created.IsZero() {
		resp.Created = img.Created.UTC().Format(time.RFC3339Nano)
	}
	for _, id := range img.Config.RootFS.DiffIDs {
		resp.RootFS.Layers = append(resp.RootFS.Layers, id.String())
	}
	if n := len(img.Config.History); n > 0 {
		resp.Comment = img.Config.History[n-1].Comment
	}
	return resp
}

// ImageHistory lists the steps an image was made by, newest first.
func (e *Engine) ImageHistory(ctx context.Context, ref string) ([]imagetypes.HistoryResponseItem, error) {
	steps, err := e.images.History(ctx, ref)
	if err != nil {
		return nil, err
	}
	items := []imagetypes.HistoryResponseItem{}
	for _, h := range steps {
		id := "<missing>"
		if h.ID != "" {
			id = h.ID.String()
		}
		var created int64
		if !h.Created.IsZero() {
			created = h.Created.Unix()
		}
		items = append(items, imagetypes.HistoryResponseItem{
			ID: id, Created: created, CreatedBy: h.CreatedBy, Comment: h.Comment, Size: h.Size, Tags: h.Tags,
		})
	}
	return items, nil
}

// ImageTag gives an image another name.
func (e *Engine) ImageTag(ctx context.Context, src, dst string) error {
	img, err := e.images.Get(ctx, src)
	if err != nil {
		return e.suggestImage(ctx, err, src)
	}
	if err := e.images.Tag(ctx, src, dst); err != nil {
		return err
	}
	e.emitImage(events.ActionTag, img.ID.String(), familiar(dst))
	return nil
}

// ImageRemove removes a name, and the image when it was the last one.
func (e *Engine) ImageRemove(ctx context.Context, ref string, opt ImageRemoveOptions) ([]imagetypes.DeleteResponse, error) {
	id := ""
	if img, err := e.images.Get(ctx, ref); err == nil {
		id = img.ID.String()
	}
	removed, err := e.images.Remove(ctx, ref, image.RemoveOptions{Force: opt.Force, NoPrune: opt.NoPrune})
	return e.reportRemoved(id, removed), e.suggestImage(ctx, err, ref)
}

// reportRemoved tells of removals, as an answer and as events. id is the image
// the names belonged to.
func (e *Engine) reportRemoved(id string, removed []image.Removed) []imagetypes.DeleteResponse {
	list := []imagetypes.DeleteResponse{}
	for _, r := range removed {
		if r.Untagged != "" {
			list = append(list, imagetypes.DeleteResponse{Untagged: r.Untagged})
			e.emitImage(events.ActionUnTag, firstNonEmpty(id, r.Untagged), r.Untagged)
			continue
		}
		list = append(list, imagetypes.DeleteResponse{Deleted: r.Deleted.String()})
		e.emitImage(events.ActionDelete, r.Deleted.String(), r.Deleted.String())
	}
	return list
}

// ImagePrune removes images no container uses: untagged ones, with the filter
// dangling=false all; of them those made before until, with the labels.
func (e *Engine) ImagePrune(ctx context.Context, f Filters) (*imagetypes.PruneReport, error) {
	if err := f.only("dangling", "until", "label", "label!"); err != nil {
		return nil, err
	}
	dangling, err := f.boolean("dangling", true)
	if err != nil {
		return nil, err
	}
	until, err := f.until(time.Now())
	if err != nil {
		return nil, err
	}
	removed, reclaimed, err := e.images.Prune(ctx, image.PruneOptions{All: !dangling, Keep: func(img *image.Image) bool {
		return !until.IsZero() && !img.Created.Before(until) || !f.labels(img.Config.Config.Labels)
	}})
	return &imagetypes.PruneReport{ImagesDeleted: e.reportRemoved("", removed), SpaceReclaimed: uint64(max(reclaimed, 0))}, err
}

// imageUsers tells the image store which containers use an image.
func (e *Engine) imageUsers(id digest.Digest) []image.User {
	var users []image.User
	for _, c := range e.containers.all() {
		if rec := c.snapshot(); rec.ImageID == id || mountsImage(rec, id) {
			users = append(users, image.User{ContainerID: c.id, Running: rec.State.active()})
		}
	}
	return users
}

// imageNames is the set of "ID NAME" of all images, to see whether a name
// still means the image it did.
func (e *Engine) imageNames(ctx context.Context) map[string]bool {
	names := map[string]bool{}
	list, err := e.images.List(ctx)
	if err != nil {
		return names
	}
	for _, img := range list {
		for _, name := range slices.Concat(img.RepoTags, img.RepoDigests) {
			names[img.ID.String()+" "+name] = true
		}
	}
	return names
}

// familiar is a reference as people write it, with its tag.
func familiar(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(reference.TagNameOnly(named))
}

func firstOf(list []string, otherwise string) string {
	if len(list) > 0 {
		return list[0]
	}
	return otherwise
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
