package image

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/berth-containers/berth/errdefs"
)

// dockerHub is what the domain docker.io is served by.
const dockerHub = "registry-1.docker.io"

// resolver returns a client for the registry of named. Loopback and configured
// registries are tried by HTTPS without looking at the certificate, then by
// plain HTTP, as Docker does.
func (s *Store) resolver(named reference.Named, auth *registry.AuthConfig) (remotes.Resolver, error) {
	creds, err := credentials(auth)
	if err != nil {
		return nil, err
	}
	hosts := func(domain string) ([]docker.RegistryHost, error) {
		host := domain
		if host == "docker.io" {
			host = dockerHub
		}
		insecure := s.insecure(domain)
		transport := docker.DefaultHTTPTransport(&tls.Config{InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12})
		transport.DialContext = stallGuard(transport.DialContext, s.opts.StallTimeout)
		client := &http.Client{Transport: transport}
		if insecure {
			client.Transport = docker.NewHTTPFallback(transport)
		}
		header := http.Header{}
		if auth != nil && auth.RegistryToken != "" {
			header.Set("Authorization", "Bearer "+auth.RegistryToken)
		}
		authorizer := docker.NewDockerAuthorizer(
			docker.WithAuthClient(client),
			docker.WithAuthCreds(func(asking string) (string, string, error) {
				if asking != host {
					return "", "", nil // a redirect's target gets no password
				}
				return creds.user, creds.secret, nil
			}))
		return []docker.RegistryHost{{
			Client: client, Authorizer: authorizer, Host: host, Scheme: "https", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve, Header: header,
		}}, nil
	}
	return docker.NewResolver(docker.ResolverOptions{
		Hosts:   hosts,
		Headers: http.Header{"User-Agent": {"berth"}},
	}), nil
}

// stallGuard makes every read from a connection time out that brings nothing
// for so long. Without it a registry that goes silent is waited for for ever.
func stallGuard(dial dialer, timeout time.Duration) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &guardedConn{Conn: conn, timeout: timeout}, nil
	}
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

type guardedConn struct {
	net.Conn
	timeout time.Duration
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

type userSecret struct{ user, secret string }

// credentials reads what a client sends: user and password, both of them in
// Auth, or an identity token, which the client library wants as a secret
// without a user.
func credentials(auth *registry.AuthConfig) (userSecret, error) {
	switch {
	case auth == nil:
		return userSecret{}, nil
	case auth.IdentityToken != "":
		return userSecret{secret: auth.IdentityToken}, nil
	case auth.Username != "" || auth.Auth == "":
		return userSecret{auth.Username, auth.Password}, nil
	}
	b, err := base64.StdEncoding.DecodeString(auth.Auth)
	if err != nil {
		return userSecret{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("read credentials: %w", err))
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return userSecret{}, errdefs.As(errdefs.ErrInvalid, errors.New("read credentials: no user in them"))
	}
	return userSecret{user, password}, nil
}

// insecure tells whether the registry may be spoken to without a valid
// certificate.
func (s *Store) insecure(domain string) bool {
	host, _, err := net.SplitHostPort(domain)
	if err != nil {
		host = strings.Trim(domain, "[]")
	}
	addr, addrErr := netip.ParseAddr(host)
	if host == "localhost" || addrErr == nil && addr.IsLoopback() {
		return true
	}
	for _, entry := range s.opts.InsecureRegistries {
		if entry == domain || entry == host {
			return true
		}
		if net, err := netip.ParsePrefix(entry); err == nil && addrErr == nil && net.Contains(addr) {
			return true
		}
	}
	return false
}

// resolve asks the registry what the name means now.
func resolve(ctx context.Context, r remotes.Resolver, named reference.Named) (*remote, error) {
	name, desc, err := r.Resolve(ctx, named.String())
	if err != nil {
		return nil, err
	}
	fetcher, err := r.Fetcher(ctx, name)
	if err != nil {
		return nil, err
	}
	return &remote{named: named, desc: desc, fetcher: fetcher}, nil
}
