package docker

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registryEngine pushes, logs in and inspects.
type registryEngine struct {
	Engine
	ref  string
	push engine.ImagePushOptions
	auth *registry.AuthConfig
}

func (e *registryEngine) ImagePush(_ context.Context, ref string, opt engine.ImagePushOptions) error {
	e.ref, e.push, e.auth = ref, opt, opt.Auth
	opt.Progress(engine.ProgressEvent{ID: "l1", Status: "Pushed"})
	opt.Progress(engine.ProgressEvent{Pushed: &engine.Pushed{Tag: "v1", Digest: "sha256:aa", Size: 5}})
	return nil
}

func (e *registryEngine) RegistryLogin(_ context.Context, auth *registry.AuthConfig) (*registry.AuthResponse, error) {
	e.auth = auth
	if auth.Password != "secret" {
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrPermission, errors.New("unauthorized: incorrect username or password")), "try again")
	}
	return &registry.AuthResponse{Status: "Login Succeeded", IdentityToken: "token"}, nil
}

func (e *registryEngine) DistributionInspect(_ context.Context, ref string, auth *registry.AuthConfig) (*registry.DistributionInspect, error) {
	e.ref, e.auth = ref, auth
	return &registry.DistributionInspect{
		Descriptor: ocispec.Descriptor{Digest: "sha256:aa", Size: 5}, Platforms: []ocispec.Platform{{OS: "linux", Architecture: "arm64"}},
	}, nil
}

// userAuth is X-Registry-Auth for the user "user".
const userAuth = "eyJ1c2VybmFtZSI6InVzZXIifQ=="

// TestPush: one tag or all, and the last message for programs.
func TestPush(t *testing.T) {
	e := &registryEngine{}
	socket, _ := serve(t, e)
	c := mobyClient(t, socket, "1.50")
	out, err := c.ImagePush(t.Context(), "127.0.0.1:5000/a/b:v1", client.ImagePushOptions{
		RegistryAuth: userAuth, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := messages(t, out)
	out.Close()
	if len(all) != 2 || all[0].Status != "Pushed" || all[1].Aux == nil || string(*all[1].Aux) != `{"Tag":"v1","Digest":"sha256:aa","Size":5}` {
		t.Errorf("messages %+v", all)
	}
	if e.ref != "127.0.0.1:5000/a/b:v1" || e.push.AllTags || e.auth.Username != "user" || e.push.Platform.Architecture != "arm64" {
		t.Errorf("engine pushed %q, %+v", e.ref, e.push)
	}
	if resp, body := send(t, httpClient(t, socket), http.MethodPost, "/images/127.0.0.1:5000/a/b/push", ""); resp.StatusCode != 200 || !e.push.AllTags {
		t.Errorf("all tags: %s %s, %+v", resp.Status, body, e.push)
	}
	if resp, body := send(t, httpClient(t, socket), http.MethodPost, "/images/UPPER/push?tag=x", ""); resp.StatusCode != 400 {
		t.Errorf("a bad name: %s %s", resp.Status, body)
	}
}

// TestLogin: a registry's no is 401, by which clients ask again.
func TestLogin(t *testing.T) {
	e := &registryEngine{}
	socket, _ := serve(t, e)
	c := mobyClient(t, socket, "")
	answer, err := c.RegistryLogin(t.Context(), client.RegistryLoginOptions{Username: "me", Password: "secret", ServerAddress: "127.0.0.1:5000"})
	if err != nil || answer.Auth.IdentityToken != "token" || e.auth.ServerAddress != "127.0.0.1:5000" {
		t.Errorf("%+v, %v, engine got %+v", answer, err, e.auth)
	}
	resp, body := send(t, httpClient(t, socket), http.MethodPost, "/auth", `{"username":"me","password":"guess"}`)
	if resp.StatusCode != 401 || !strings.Contains(body, "incorrect username or password") || resp.Header.Get(hintHeader) != "try again" {
		t.Errorf("%s %s", resp.Status, body)
	}
}

func TestDistribution(t *testing.T) {
	e := &registryEngine{}
	socket, _ := serve(t, e)
	found, err := mobyClient(t, socket, "").DistributionInspect(t.Context(), "127.0.0.1:5000/a/b:v1", client.DistributionInspectOptions{EncodedRegistryAuth: userAuth})
	if err != nil || found.Descriptor.Digest != "sha256:aa" || len(found.Platforms) != 1 || e.auth.Username != "user" {
		t.Errorf("%+v, %v, engine got %+v", found, err, e.auth)
	}
	if !strings.HasSuffix(e.ref, "127.0.0.1:5000/a/b:v1") {
		t.Errorf("engine asked for %q", e.ref)
	}
}
