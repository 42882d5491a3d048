package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/pelletier/go-toml/v2"

	"github.com/berth-containers/berth/errdefs"
)

// Where a registry is reached and whom to trust there may be configured in a
// directory named for it, below one of Options.RegistryDirs: containerd's
// hosts.toml, or certificates by Docker's names (*.crt; NAME.cert with
// NAME.key). containerd's own code reads them, but falls silently back to the
// registry itself when hosts.toml is not what it should be: what the file says
// is checked here first.

// registryDir is a registry's directory.
type registryDir struct {
	// path is "" when there is none.
	path string
	// shared: it is not the registry's own but "_default".
	shared bool
	// server is the host that hosts.toml names as the registry itself, "" for
	// none.
	server string
}

const hostsFile = "hosts.toml"

// registryDir finds the directory of a registry: HOST:PORT, HOST_PORT_ or
// HOST, and _default for all that have none, in this order.
func (s *Store) registryDir(domain string) (registryDir, error) {
	names := []string{domain}
	if i := strings.LastIndex(domain, ":"); i > 0 {
		names = append(names, domain[:i]+"_"+domain[i+1:]+"_")
	}
	if host := hostOf(domain); host != domain {
		names = append(names, host)
	}
	for _, root := range s.opts.RegistryDirs {
		for _, name := range append(slices.Clone(names), "_default") {
			dir := registryDir{path: filepath.Join(root, name), shared: name == "_default"}
			_, err := os.Stat(dir.path)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				continue
			}
			if err != nil {
				return dir, err
			}
			dir.server, err = checkHostsFile(filepath.Join(dir.path, hostsFile))
			return dir, err
		}
	}
	return registryDir{}, nil
}

// hostsHost is a host of hosts.toml, by containerd's documentation.
type hostsHost struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

type hostsConfig struct {
	hostsHost
	Server string               `toml:"server"`
	Host   map[string]hostsHost `toml:"host"`
}

// checkHostsFile reads a hosts.toml and returns the host of its server. A file
// that is not there is no error.
func checkHostsFile(path string) (server string, err error) {
	defer func() {
		if err != nil {
			err = errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: %w", path, err)),
				"the file says where a registry is reached; correct it or move it away")
		}
	}()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var c hostsConfig
	if err := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields().Decode(&c); err != nil {
		return "", tomlError(err)
	}
	if err := c.hostsHost.check(); err != nil {
		return "", err
	}
	for name, host := range c.Host {
		if _, err := parseServer(name); err != nil {
			return "", fmt.Errorf("host %q: %w", name, err)
		}
		if err := host.check(); err != nil {
			return "", fmt.Errorf("host %q: %w", name, err)
		}
	}
	if c.Server == "" {
		return "", nil
	}
	u, err := parseServer(c.Server)
	if err != nil {
		return "", fmt.Errorf("server %q: %w", c.Server, err)
	}
	return u.Host, nil
}

func (h *hostsHost) check() error {
	for _, c := range h.Capabilities {
		switch strings.ToLower(c) {
		case "pull", "resolve", "push", "referrers":
		default:
			return fmt.Errorf("capability %q: want pull, resolve, push or referrers", c)
		}
	}
	return nil
}

// parseServer reads an address as containerd does: HTTPS unless it says
// otherwise.
func parseServer(address string) (*url.URL, error) {
	if !strings.HasPrefix(address, "http") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		err = errors.New("want http://HOST[:PORT] or https://HOST[:PORT]")
	}
	return u, err
}

// tomlError puts the line into the text of a TOML error.
func tomlError(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		line, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %q", line, strings.Join(unknown.Errors[0].Key(), "."))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, _ := wrong.Position()
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return err
}

// configuredHosts returns the mirrors and the registry of c's domain as its
// directory has them. A registry of this host, and one listed as insecure, is
// tried by HTTPS without looking at the certificate, then by plain HTTP, as
// Docker does; a directory of its own speaks instead for one of this host.
func (s *Store) configuredHosts(c *client, dir registryDir, creds func(string) (string, string, error)) ([]docker.RegistryHost, error) {
	o := config.HostOptions{
		HostDir:       func(string) (string, error) { return dir.path, nil },
		Credentials:   creds,
		DefaultScheme: "https",
		UpdateClient:  c.guard(s.opts.StallTimeout),
	}
	if c.onToken != nil {
		o.AuthorizerOpts = append(o.AuthorizerOpts, docker.WithFetchRefreshToken(c.onToken))
	}
	if s.insecure(c.domain) || loopback(c.domain) && (dir.path == "" || dir.shared) {
		o.DefaultScheme, o.DefaultTLS = "http", &tls.Config{InsecureSkipVerify: true}
	}
	hosts, err := config.ConfigureHosts(quiet(context.Background()), o)(c.domain)
	if err != nil {
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("configuration of registry %s in %s: %w", c.domain, dir.path, err)),
			"correct the files there or move them away")
	}
	return hosts, nil
}
