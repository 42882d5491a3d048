package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// dockerHub is what the domain docker.io is served by.
const dockerHub = "registry-1.docker.io"

// client speaks to the registry of one domain, and to its mirrors, for one
// operation.
type client struct {
	domain string
	// hosts are tried in this order; the domain's own registry is the last one.
	hosts      []docker.RegistryHost
	transports []*http.Transport
	// onToken, when set, asks for an identity token with the credentials, and
	// is given it.
	onToken docker.OnFetchRefreshToken
}

// open finds c's hosts. The caller closes c, also after an error.
func (c *client) open(s *Store, auth *registry.AuthConfig) error {
	creds, err := credentials(auth)
	if err != nil {
		return err
	}
	dir, err := s.registryDir(c.domain)
	if err != nil {
		return err
	}
	own := []string{c.domain, dir.server}
	if c.domain == "docker.io" {
		own = append(own, dockerHub)
	}
	c.hosts, err = s.configuredHosts(c, dir, func(asking string) (string, string, error) {
		if !slices.Contains(own, asking) {
			return "", "", nil // a mirror, or a redirect's target, gets no password
		}
		return creds.user, creds.secret, nil
	})
	if err != nil {
		return err
	}
	if auth != nil && auth.RegistryToken != "" {
		for i, h := range c.hosts {
			if slices.Contains(own, h.Host) {
				c.hosts[i].Header = h.Header.Clone()
				if c.hosts[i].Header == nil {
					c.hosts[i].Header = http.Header{}
				}
				c.hosts[i].Header.Set("Authorization", "Bearer "+auth.RegistryToken)
			}
		}
	}
	return nil
}

// close closes the connections that are idle.
func (c *client) close() {
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// resolver is containerd's client for the same hosts. The tracker is for
// pushing and may be nil.
func (c *client) resolver(tracker docker.StatusTracker) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return slices.Clone(c.hosts), nil },
		Headers: http.Header{"User-Agent": {userAgent}},
		Tracker: tracker,
	})
}

const userAgent = "berth"

// guard prepares a client's transport: no read waits for ever, and the
// connections of a parallel transfer are kept for each other's next request.
func (c *client) guard(timeout time.Duration) func(*http.Client) error {
	return func(hc *http.Client) error {
		t, ok := hc.Transport.(*http.Transport)
		if !ok || slices.Contains(c.transports, t) {
			return nil
		}
		t.DialContext = stallGuard(t.DialContext, timeout)
		t.MaxIdleConnsPerHost = t.MaxIdleConns
		c.transports = append(c.transports, t)
		return nil
	}
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

// Read sets the deadline anew. net/http reads ahead from a connection whose
// request is still being sent, so that Write puts it off too: an upload that
// goes on is not a silent registry.
func (c *guardedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *guardedConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
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

// SetInsecureRegistries replaces Options.InsecureRegistries.
func (s *Store) SetInsecureRegistries(list []string) {
	list = slices.Clone(list)
	s.insecureRegistries.Store(&list)
}

// insecure tells whether the registry is listed as one that may be spoken to
// without a valid certificate.
func (s *Store) insecure(domain string) bool {
	host := hostOf(domain)
	addr, addrErr := netip.ParseAddr(host)
	for _, entry := range *s.insecureRegistries.Load() {
		if entry == domain || entry == host {
			return true
		}
		if net, err := netip.ParsePrefix(entry); err == nil && addrErr == nil && net.Contains(addr) {
			return true
		}
	}
	return false
}

// loopback tells whether the registry runs on this host, by its name.
func loopback(domain string) bool {
	host := hostOf(domain)
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func hostOf(domain string) string {
	host, _, err := net.SplitHostPort(domain)
	if err != nil {
		return strings.Trim(domain, "[]")
	}
	return host
}

// remote is a name resolved at its registry.
type remote struct {
	named   reference.Named
	desc    ocispec.Descriptor
	fetcher remotes.Fetcher
}

// resolve asks the registry what the name means now.
func resolve(ctx context.Context, c *client, named reference.Named) (*remote, error) {
	r := c.resolver(nil)
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
