package engine

import (
	"context"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"
)

// zeroTime is how Docker writes a time that has not come.
const zeroTime = "0001-01-01T00:00:00Z"

// ContainerInspect describes one container; size fills the sizes, which walks
// its files.
func (e *Engine) ContainerInspect(ctx context.Context, ref string, size bool) (*container.InspectResponse, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	rec := c.snapshot()
	driver, _ := e.images.Snapshotter()
	resp := &container.InspectResponse{
		ID: rec.ID, Name: "/" + rec.Name, Created: stamp(rec.Created), Path: rec.Path, Args: rec.Args,
		State: inspectState(&rec.State, c.shownHealth()), Image: rec.ImageID.String(), RestartCount: rec.RestartCount,
		Driver: driver, Platform: rec.Platform.OS, ImageManifestDescriptor: rec.Manifest,
		Config: rec.Config, HostConfig: rec.HostConfig, ExecIDs: c.execIDs(), Mounts: mountPoints(rec),
		Storage: &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: driver}}},
		NetworkSettings: &container.NetworkSettings{
			Ports: portMap(rec), Networks: e.endpointSettings(rec),
		},
	}
	resp.ProcessLabel, resp.MountLabel = rec.Labels.shown()
	resp.AppArmorProfile = e.appArmor.shown(rec, e.host)
	if resp.Args == nil {
		resp.Args = []string{}
	}
	if rec.HostConfig.LogConfig.Type == logJSONFile {
		resp.LogPath = c.logPath()
	}
	if rec.State.active() && rec.HostConfig.NetworkMode.IsBridge() {
		resp.NetworkSettings.SandboxID, resp.NetworkSettings.SandboxKey = rec.ID, e.netnsPath(rec.ID)
	}
	for name, to := range map[string]*string{
		fileHosts: &resp.HostsPath, fileHostname: &resp.HostnamePath, fileResolv: &resp.ResolvConfPath,
	} {
		if p := filepath.Join(c.dir, name); exists(p) {
			*to = p
		}
	}
	if size {
		rw, root, err := e.containerSizes(ctx, rec)
		if err != nil {
			return nil, err
		}
		resp.SizeRw, resp.SizeRootFs = &rw, &root
	}
	return resp, nil
}

// containerSizes are the bytes of the writable layer, and of it and the image.
func (e *Engine) containerSizes(ctx context.Context, rec *record) (rw, root int64, err error) {
	rw, _, err = e.images.Usage(ctx, rec.ID)
	if err != nil {
		return 0, 0, err
	}
	root = rw
	if img, err := e.images.Get(ctx, rec.ImageID.String()); err == nil {
		root += img.Size
	}
	return rw, root, nil
}

func inspectState(s *lifeState, h *container.Health) *container.State {
	return &container.State{
		Status:  s.shown(),
		Running: s.Status == stateRunning || s.Status == statePaused || s.Status == stateRestarting,
		Paused:  s.Status == statePaused, Restarting: s.Status == stateRestarting, Dead: s.Status == stateDead,
		OOMKilled: s.OOMKilled, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt), Health: h,
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return zeroTime
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func mountPoints(rec *record) []container.MountPoint {
	list := []container.MountPoint{}
	for i := range rec.Mounts {
		list = append(list, rec.Mounts[i].MountPoint)
	}
	return list
}
