package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/volume"
	"github.com/moby/moby/api/types/events"
	volumetypes "github.com/moby/moby/api/types/volume"
)

func (e *Engine) volumesDir() string { return filepath.Join(e.cfg.StateRoot, "volumes") }

// VolumeCreate makes a volume, or returns the one of that name. Without a name
// it gets one like a container's id, and counts as anonymous.
func (e *Engine) VolumeCreate(ctx context.Context, req *volumetypes.CreateRequest) (*volumetypes.Volume, error) {
	if req.ClusterVolumeSpec != nil {
		return nil, errUnsupported("cluster volumes")
	}
	opt := volume.CreateOptions{Name: req.Name, Driver: req.Driver, Options: req.DriverOpts, Labels: req.Labels}
	if opt.Name == "" {
		opt.Name, opt.Labels = newID(), anonymousLabels(req.Labels)
	}
	v, made, err := e.volumes.Create(ctx, opt)
	if err != nil {
		return nil, explainFullDisk(err, e.volumesDir())
	}
	if made {
		e.emitVolume(events.ActionCreate, v.Name, nil)
	}
	return describeVolume(&v), nil
}

// anonymousLabels adds Docker's mark of a volume nobody named.
func anonymousLabels(labels map[string]string) map[string]string {
	marked := map[string]string{volume.AnonymousLabel: ""}
	for k, v := range labels {
		marked[k] = v
	}
	return marked
}

func describeVolume(v *volume.Volume) *volumetypes.Volume {
	return &volumetypes.Volume{
		Name: v.Name, Driver: volume.DriverLocal, Mountpoint: v.Path, CreatedAt: v.Created.Format(time.RFC3339),
		Labels: v.Labels, Options: v.Options, Scope: "local",
	}
}

// VolumeInspect describes one volume.
func (e *Engine) VolumeInspect(_ context.Context, name string) (*volumetypes.Volume, error) {
	v, err := e.volumes.Get(name)
	if err != nil {
		return nil, err
	}
	return describeVolume(&v), nil
}

// VolumeList lists volumes by name. Filters: dangling, driver, label, name.
func (e *Engine) VolumeList(_ context.Context, f Filters) ([]volumetypes.Volume, error) {
	if err := f.only("dangling", "driver", "label", "label!", "name"); err != nil {
		return nil, err
	}
	dangling, err := f.boolean("dangling", false)
	if err != nil {
		return nil, err
	}
	list := []volumetypes.Volume{}
	for _, v := range e.volumes.List() {
		unused := len(e.volumes.Holders(v.Name)) == 0
		if len(f.values("dangling")) > 0 && dangling != unused ||
			!f.exact("driver", volume.DriverLocal) || !f.match("name", v.Name) || !f.labels(v.Labels) {
			continue
		}
		list = append(list, *describeVolume(&v))
	}
	return list, nil
}

// VolumeRemove removes a volume that no container uses. With force one that
// does not exist is fine.
func (e *Engine) VolumeRemove(_ context.Context, name string, force bool) error {
	err := e.removeVolume(name)
	if force && errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// removeVolume removes a volume and tells of it. One in use is a conflict that
// names the containers.
func (e *Engine) removeVolume(name string) error {
	err := e.volumes.Remove(name)
	var use *volume.InUseError
	if errors.As(err, &use) {
		for i, id := range use.Holders {
			if c, err := e.containers.get(id); err == nil {
				use.Holders[i] = c.snapshot().Name
			}
		}
		return errdefs.WithHint(err, "remove the containers first; stopped ones use their volumes too")
	}
	if err != nil {
		return err
	}
	e.emitVolume(events.ActionDestroy, name, nil)
	return nil
}

// VolumePrune removes the volumes no container uses: anonymous ones, with the
// filter all=true named ones as well. Further filters: label, label!.
func (e *Engine) VolumePrune(ctx context.Context, f Filters) (*volumetypes.PruneReport, error) {
	if err := f.only("all", "label", "label!"); err != nil {
		return nil, err
	}
	all, err := f.boolean("all", false)
	if err != nil {
		return nil, err
	}
	report := &volumetypes.PruneReport{VolumesDeleted: []string{}}
	for _, v := range e.volumes.List() {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		if !all && !v.Anonymous() || !f.labels(v.Labels) || len(e.volumes.Holders(v.Name)) > 0 {
			continue
		}
		size, err := e.volumes.Usage(ctx, v.Name)
		if err != nil {
			size = 0 // a damaged one; it is removed all the same
		}
		err = e.removeVolume(v.Name)
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrConflict) {
			continue // removed, or taken into use, meanwhile
		}
		if err != nil {
			return report, err
		}
		report.VolumesDeleted = append(report.VolumesDeleted, v.Name)
		report.SpaceReclaimed += uint64(max(size, 0))
	}
	e.events.emit(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, nil
}

// volumeUsage sums up what volumes take on disk. A file system that is mounted
// as a volume does not count.
func (e *Engine) volumeUsage(ctx context.Context) (*volumetypes.DiskUsage, error) {
	u := &volumetypes.DiskUsage{Items: []volumetypes.Volume{}}
	for _, v := range e.volumes.List() {
		size, err := e.volumes.Usage(ctx, v.Name)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		item := describeVolume(&v)
		item.UsageData = &volumetypes.UsageData{Size: size, RefCount: int64(len(e.volumes.Holders(v.Name)))}
		u.Items = append(u.Items, *item)
		u.TotalCount++
		u.TotalSize += max(size, 0)
		if item.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(size, 0)
		}
	}
	return u, nil
}
