package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/image"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerCommit makes an image of a container and returns the image's id.
// While its files are read the container does not change state.
func (e *Engine) ContainerCommit(ctx context.Context, opt CommitOptions) (string, error) {
	c, err := e.containers.get(opt.Container)
	if err != nil {
		return "", err
	}
	if err := c.lock(ctx); err != nil {
		return "", err
	}
	defer c.unlock()
	switch st := c.rec.State.Status; st {
	case stateRemoving, stateDead, stateCreating:
		return "", conflictf("cannot commit container %s, which is %s", c.rec.Name, st)
	}
	img, err := e.commit(ctx, c, &opt)
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", c.rec.Name, err)
	}
	id := img.ID.String()
	e.emitContainer(c.rec, events.ActionCommit, map[string]string{"comment": opt.Comment, "imageID": id, "imageRef": opt.Ref})
	return id, nil
}

// commit pauses a running container when asked to and makes the image. The
// caller holds act.
func (e *Engine) commit(ctx context.Context, c *ctr, opt *CommitOptions) (img *image.Image, err error) {
	parent, err := e.images.Get(ctx, c.rec.ImageID.String())
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, errdefs.WithHint(conflictf("its image %s has been removed", c.rec.ImageID),
			"export the container instead")
	}
	if err != nil {
		return nil, err
	}
	if opt.Pause && c.rec.State.Status == stateRunning {
		if err := e.pause(c, true); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, e.thaw(c)) }()
	}
	return e.images.Commit(ctx, c.id, parent, image.CommitOptions{
		Ref: opt.Ref, Author: opt.Author, Message: opt.Comment, Changes: opt.Changes,
		CreatedBy: strings.Join(append([]string{c.rec.Path}, c.rec.Args...), " "),
		Config:    imageConfig(opt.Config, c.rec.Config),
	})
}

// imageConfig is the container's config as an image's, with what over (nil:
// nothing) says in its place.
func imageConfig(over, own *container.Config) *dockerspec.DockerOCIImageConfig {
	cfg := own
	if over != nil {
		merged, err := mergeConfig(over, configToImage(own))
		if err == nil { // only an image's port texts could fail, and these are parsed
			cfg = merged
		}
	}
	return configToImage(cfg)
}

// configToImage leaves out what is the container's alone, such as its name.
func configToImage(cfg *container.Config) *dockerspec.DockerOCIImageConfig {
	img := &dockerspec.DockerOCIImageConfig{}
	img.User, img.WorkingDir, img.StopSignal = cfg.User, cfg.WorkingDir, cfg.StopSignal
	img.Env, img.Entrypoint, img.Cmd = slices.Clone(cfg.Env), slices.Clone(cfg.Entrypoint), slices.Clone(cfg.Cmd)
	img.Volumes, img.Labels = maps.Clone(cfg.Volumes), maps.Clone(cfg.Labels)
	img.Healthcheck, img.OnBuild, img.Shell = cfg.Healthcheck, slices.Clone(cfg.OnBuild), slices.Clone(cfg.Shell)
	for p := range cfg.ExposedPorts {
		if img.ExposedPorts == nil {
			img.ExposedPorts = map[string]struct{}{}
		}
		img.ExposedPorts[p.String()] = struct{}{}
	}
	return img
}
