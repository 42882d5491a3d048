package engine

import (
	"context"

	"github.com/berth-containers/berth/image"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImagePushOptions says how an image is pushed.
type ImagePushOptions struct {
	// AllTags pushes every tag of the repository.
	AllTags bool
	// Platform, when not nil, is what the image must be for.
	Platform *ocispec.Platform
	// Auth is the registry's credentials. Nil: anonymous.
	Auth *registry.AuthConfig
	// Progress, when not nil, is called from one goroutine at a time.
	Progress func(ProgressEvent)
}

// ImagePush sends the image named ref to the registry in its name.
func (e *Engine) ImagePush(ctx context.Context, ref string, opt ImagePushOptions) error {
	names, err := e.images.Push(ctx, ref, image.PushOptions{
		AllTags: opt.AllTags, Platform: platformText(opt.Platform), Auth: opt.Auth, Progress: opt.Progress,
	})
	for _, name := range names {
		name = familiar(name)
		e.events.emit(events.ImageEventType, events.ActionPush, name, map[string]string{"name": withoutTag(name)})
	}
	return err
}

// RegistryLogin asks a registry whether it takes the credentials.
func (e *Engine) RegistryLogin(ctx context.Context, auth *registry.AuthConfig) (*registry.AuthResponse, error) {
	token, err := e.images.Login(ctx, auth)
	if err != nil {
		return nil, err
	}
	return &registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token}, nil
}

// DistributionInspect says what the registry has under a name.
func (e *Engine) DistributionInspect(ctx context.Context, ref string, auth *registry.AuthConfig) (*registry.DistributionInspect, error) {
	found, err := e.images.Inspect(ctx, ref, auth)
	if err != nil {
		return nil, err
	}
	platforms := found.Platforms
	if platforms == nil {
		platforms = []ocispec.Platform{}
	}
	return &registry.DistributionInspect{Descriptor: found.Target, Platforms: platforms}, nil
}
