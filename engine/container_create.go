package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/fault"
	"github.com/berth-containers/berth/image"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// ContainerCreate makes a container from an image. name may be empty (one is
// generated); platform may be nil (the host's).
func (e *Engine) ContainerCreate(ctx context.Context, name string, req *container.CreateRequest, platform *ocispec.Platform) (_ container.CreateResponse, err error) {
	ctx, end := e.observe(ctx, OpCreate, name)
	defer func() { end(err) }()
	none := container.CreateResponse{}
	if req == nil || req.Config == nil {
		return none, invalidf("config cannot be empty in order to create a container")
	}
	img, err := e.containerImage(ctx, req.Config.Image, platform)
	if err != nil {
		return none, err
	}
	rec, warnings, err := e.newRecord(req, img)
	if err != nil {
		return none, err
	}
	if rec.Name, err = e.containers.reserve(name, rec.ID); err != nil {
		return none, err
	}
	if err = e.assign(rec); err == nil {
		err = e.makeContainer(ctx, rec, img)
	}
	if err != nil {
		e.releaseAssigned(rec)
		e.containers.release(rec.Name, rec.ID)
		return none, fmt.Errorf("create container %s: %w", rec.Name, err)
	}
	e.emitContainer(rec, events.ActionCreate, nil)
	if warnings == nil {
		warnings = []string{}
	}
	return container.CreateResponse{ID: rec.ID, Warnings: warnings}, nil
}

// assign gives the container what no other may have: ids and labels.
func (e *Engine) assign(rec *record) error {
	if err := e.assignIDs(rec); err != nil {
		return err
	}
	sec, err := parseSecurityOpt(rec.HostConfig.SecurityOpt, e.host)
	if err != nil {
		return err
	}
	return e.assignLabels(rec, &sec)
}

// releaseAssigned gives it back.
func (e *Engine) releaseAssigned(rec *record) {
	e.ids.release(rec.ID)
	e.releaseLabels(rec)
}

// containerImage finds the image and checks that this host can run it.
func (e *Engine) containerImage(ctx context.Context, ref string, platform *ocispec.Platform) (*image.Image, error) {
	if ref == "" {
		return nil, invalidf("no image given")
	}
	img, err := e.images.Get(ctx, ref)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.WithHint(errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such image: %s", ref)), "pull, load or import it first")
		return nil, e.suggestImage(ctx, err, ref)
	}
	if err != nil {
		return nil, err
	}
	if p := platform; p != nil && (p.OS != "" && p.OS != img.Config.OS || p.Architecture != "" && p.Architecture != img.Config.Architecture) {
		return nil, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("image %s is for %s/%s, not for the requested %s/%s",
			ref, img.Config.OS, img.Config.Architecture, p.OS, p.Architecture))
	}
	return img, image.CheckPlatform(img)
}

// newRecord merges, completes and checks the request. Nothing is made yet.
func (e *Engine) newRecord(req *container.CreateRequest, img *image.Image) (*record, []string, error) {
	cfg, err := mergeConfig(req.Config, &img.Config.Config)
	if err != nil {
		return nil, nil, err
	}
	hc := e.defaultHostConfig(req.HostConfig)
	rec := &record{
		ID: newID(), Created: time.Now().UTC(), ImageID: img.ID, Platform: img.Config.Platform,
		Manifest: &img.Target, Config: cfg, HostConfig: hc,
		State: lifeState{Status: stateCreating},
	}
	if cfg.NetworkDisabled {
		hc.NetworkMode = network.NetworkNone
	}
	if err := checkConfig(cfg); err != nil {
		return nil, nil, err
	}
	if err := checkHostConfig(cfg, hc); err != nil {
		return nil, nil, err
	}
	if err := checkNetworkMode(cfg, hc, req.NetworkingConfig); err != nil {
		return nil, nil, err
	}
	if err := e.pinJoined(hc); err != nil {
		return nil, nil, err
	}
	if err := publishable(rec); err != nil {
		return nil, nil, err
	}
	rec.Endpoint = requestedEndpoint(req.NetworkingConfig, hc.NetworkMode)
	warnings, err := e.checkHost(rec)
	if err != nil {
		return nil, nil, err
	}
	inherited, err := e.inheritMounts(hc.VolumesFrom)
	if err != nil {
		return nil, nil, err
	}
	if rec.Mounts, err = parseMounts(cfg, hc, inherited); err != nil {
		return nil, nil, err
	}
	if rec.Path, rec.Args, err = commandLine(cfg); err != nil {
		return nil, nil, err
	}
	return rec, warnings, e.nameHost(cfg, hc, rec.ID)
}

// checkHost checks what depends on this host, and fits the host config to it.
func (e *Engine) checkHost(rec *record) (warnings []string, err error) {
	hc := rec.HostConfig
	warnings, err = checkResources(&hc.Resources, e.host, false)
	if err != nil {
		return nil, err
	}
	ulimits, more, err := e.host.checkUlimits(hc.Ulimits)
	if err != nil {
		return nil, err
	}
	hc.Ulimits, warnings = ulimits, append(warnings, more...)
	adj, warning := e.host.clampOOMScore(hc.OomScoreAdj)
	if warning != "" {
		hc.OomScoreAdj, warnings = adj, append(warnings, warning)
	}
	if _, err := capabilities(e.host.caps, hc.CapAdd, hc.CapDrop, hc.Privileged); err != nil {
		return nil, err
	}
	more, err = e.checkSecurity(hc)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, more...)
	if _, err := resolveDevices(hc.Devices); err != nil {
		return nil, err
	}
	if _, err := e.cdi.resolve(hc.DeviceRequests); err != nil {
		return nil, err
	}
	for _, r := range hc.DeviceCgroupRules {
		if _, err := parseDeviceRule(r); err != nil {
			return nil, err
		}
	}
	if err := e.checkStorage(hc); err != nil {
		return nil, err
	}
	if hc.NetworkMode.IsHost() && len(hc.PortBindings) > 0 {
		warnings = append(warnings, "published ports are discarded when using host network mode")
	}
	return warnings, nil
}

// checkSecurity checks what confines the container.
func (e *Engine) checkSecurity(hc *container.HostConfig) (warnings []string, err error) {
	sec, err := parseSecurityOpt(hc.SecurityOpt, e.host)
	if err != nil {
		return nil, err
	}
	if !e.host.seLinux && slices.ContainsFunc(sec.labels, func(o string) bool { return o != "disable" }) {
		warnings = append(warnings, "this host has no SELinux: the label options have no effect")
	}
	if sec.writableCgroups && (!e.host.unified || hc.CgroupnsMode.IsHost()) {
		return nil, errdefs.WithHint(errUnsupported("--security-opt writable-cgroups"), "it needs cgroup v2 and --cgroupns=private")
	}
	if err := checkSysctls(hc); err != nil {
		return nil, err
	}
	return warnings, checkLandlock(hc.Annotations, e.host)
}

// pinJoined replaces the names in container:NAME modes by ids, so that a
// rename does not redirect them.
func (e *Engine) pinJoined(hc *container.HostConfig) error {
	pin := func(ref string) (string, error) {
		c, err := e.containers.get(ref)
		if err != nil {
			// Not ErrNotFound: at a create, docker takes that for a missing image.
			return "", invalidf("join namespaces: %v", err)
		}
		return "container:" + c.id, nil
	}
	if hc.NetworkMode.IsContainer() {
		v, err := pin(hc.NetworkMode.ConnectedContainer())
		if err != nil {
			return err
		}
		hc.NetworkMode = container.NetworkMode(v)
	}
	if hc.PidMode.IsContainer() {
		v, err := pin(hc.PidMode.Container())
		if err != nil {
			return err
		}
		hc.PidMode = container.PidMode(v)
	}
	if hc.IpcMode.IsContainer() {
		v, err := pin(hc.IpcMode.Container())
		if err != nil {
			return err
		}
		hc.IpcMode = container.IpcMode(v)
		if err := e.checkShareable(hc.IpcMode); err != nil {
			return err
		}
	}
	return e.pinUserns(hc)
}

// checkShareable refuses to join the IPC of a container not made for it.
func (e *Engine) checkShareable(mode container.IpcMode) error {
	c, err := e.containers.get(mode.Container())
	if err != nil {
		return invalidf("join IPC namespace: %v", err)
	}
	if c.snapshot().HostConfig.IpcMode.IsShareable() {
		return nil
	}
	return errdefs.WithHint(invalidf("container %s does not share its IPC namespace", short(c.id)),
		"create that container with --ipc=shareable")
}

// requestedEndpoint is what the request says about the one network it uses.
func requestedEndpoint(nc *network.NetworkingConfig, mode container.NetworkMode) *network.EndpointSettings {
	if nc == nil {
		return nil
	}
	ep := nc.EndpointsConfig[string(mode)]
	if ep == nil && mode.IsBridge() {
		ep = nc.EndpointsConfig[network.NetworkDefault]
	}
	return ep.Copy()
}

// makeContainer makes the directory, the record, the snapshot and the volumes.
// The record comes first, as creating: were the engine killed here, the next
// Open would remove what it finds.
func (e *Engine) makeContainer(ctx context.Context, rec *record, img *image.Image) error {
	var undo cleanup
	defer undo.run()
	c := newCtr(e.containersDir(), rec)
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return err
	}
	undo.add(func() { os.RemoveAll(c.dir) })
	fault.Here(fault.CreateDir)
	if err := e.nameMounts(ctx, rec); err != nil {
		return err
	}
	if err := rec.save(c.dir); err != nil {
		return err
	}
	undo.add(func() { e.removeVolumes(rec, true) })
	fault.Here(fault.CreateRecord)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.prepareSnapshot(gctx, rec, img) })
	group.Go(func() error { return e.fillMounts(gctx, rec, img) })
	undo.add(func() { e.images.RemoveSnapshot(context.WithoutCancel(ctx), rec.ID) })
	if err := group.Wait(); err != nil {
		return err
	}
	fault.Here(fault.CreateMounts)
	err := c.update(func(r *record) {
		r.State.Status, r.Mounts = stateCreated, settledMounts(r.Mounts)
	})
	if err != nil {
		return err
	}
	fault.Here(fault.CreateDone)
	e.containers.add(c)
	undo.release()
	return nil
}

// prepareSnapshot makes the writable layer. What is removed at its end need
// not survive the host.
func (e *Engine) prepareSnapshot(ctx context.Context, rec *record, img *image.Image) error {
	size, err := storageSize(rec.HostConfig.StorageOpt)
	if err != nil {
		return err
	}
	err = e.images.PrepareWith(ctx, rec.ID, img, image.PrepareOptions{Volatile: rec.HostConfig.AutoRemove, Size: size})
	fault.Here(fault.CreateSnapshot)
	return err
}

func (e *Engine) containersDir() string { return filepath.Join(e.cfg.StateRoot, "containers") }
