package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/moby/moby/api/types/registry"

	"github.com/berth-containers/berth/errdefs"
)

// DefaultIndex is the address by which Docker's clients call docker.io.
const DefaultIndex = "https://index.docker.io/v1/"

// Login asks the registry auth.ServerAddress ("" or [DefaultIndex] for
// docker.io) whether it takes the credentials. It returns an identity token, to
// be used instead of the password, when the registry gives one. The error is an
// errdefs.ErrPermission when it refuses.
func (s *Store) Login(ctx context.Context, auth *registry.AuthConfig) (identityToken string, err error) {
	domain, err := registryDomain(auth.ServerAddress)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("log in to %s: %w", domain, s.explainLogin(domain, err))
		}
	}()
	c := &client{domain: domain, onToken: func(_ context.Context, token string, _ *http.Request) { identityToken = token }}
	defer c.close()
	if err := c.open(s, auth); err != nil {
		return "", err
	}
	if len(c.hosts) == 0 {
		return "", errdefs.As(errdefs.ErrUnavailable, errors.New("no host is configured for it"))
	}
	// Mirrors come first and get no password: the registry itself is the last.
	return identityToken, c.hello(quiet(ctx), c.hosts[len(c.hosts)-1])
}

// registryDomain reads what people and Docker's clients call a registry.
func registryDomain(address string) (string, error) {
	domain := address
	if _, after, ok := strings.Cut(address, "://"); ok {
		domain = after
	}
	domain, _, _ = strings.Cut(domain, "/")
	switch domain {
	case "", "index.docker.io", dockerHub, "docker.io":
		if address != "" && domain == "" {
			break
		}
		return "docker.io", nil
	}
	if u, err := url.Parse("https://" + domain); err != nil || u.Host != domain || domain == "" {
		return "", errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("registry %q is not a host", address)),
			"a registry is called HOST[:PORT], without a path")
	}
	return domain, nil
}

// hello asks for the API's root, which needs the credentials to be right.
func (c *client) hello(ctx context.Context, host docker.RegistryHost) error {
	resp, err := c.request(ctx, host, host.Scheme+"://"+host.Host+host.Path+"/", nil)
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode >= http.StatusBadRequest {
		return remoteerrors.NewUnexpectedStatusErr(resp)
	}
	return nil
}

// drain reads the little that is left of an answer, so that its connection can
// be used again, and closes it.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// explainLogin gives an error of a login its class, a short text and a hint.
func (s *Store) explainLogin(domain string, err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.Is(err, docker.ErrInvalidAuthorization) || strings.Contains(err.Error(), "missing username or secret") ||
		errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) {
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrPermission, errors.New("unauthorized: incorrect username or password")),
			"some registries want an access token in place of the password")
	}
	if errors.As(err, &status) {
		return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%s answers %s", domain, status.Status))
	}
	return unreachable(domain, err)
}
