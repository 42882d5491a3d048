package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	cref "github.com/containerd/containerd/v2/pkg/reference"
	"github.com/distribution/reference"

	"github.com/berth-containers/berth/errdefs"
)

// maxTagPages bounds how long a registry's list of tags may be: pages of what
// it thinks fit, usually 100 to 1000 tags.
const maxTagPages = 1000

// PullAll pulls every tag of the repository ref, which has neither tag nor
// digest. After an error the images pulled before stay.
func (s *Store) PullAll(ctx context.Context, ref string, opts PullOptions) (pulled []*Image, err error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, invalidName(ref, err)
	}
	tags, err := s.remoteTags(ctx, named, opts)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), s.explainRegistry(named, err))
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			return pulled, invalidName(ref+":"+tag, err)
		}
		img, err := s.Pull(ctx, tagged.String(), opts)
		if err != nil {
			return pulled, err
		}
		pulled = append(pulled, img)
	}
	return pulled, nil
}

// remoteTags asks the registry which tags a repository has.
func (s *Store) remoteTags(ctx context.Context, named reference.Named, opts PullOptions) ([]string, error) {
	c := &client{domain: reference.Domain(named)}
	defer c.close()
	if err := c.open(s, opts.Auth); err != nil {
		return nil, err
	}
	spec, err := cref.Parse(named.Name())
	if err != nil {
		return nil, err
	}
	if ctx, err = docker.ContextWithRepositoryScope(quiet(ctx), spec, false); err != nil {
		return nil, err
	}
	err = errdefs.As(errdefs.ErrUnavailable, errors.New("no host is configured that knows tags"))
	for _, host := range c.hosts {
		if !host.Capabilities.Has(docker.HostCapabilityResolve) {
			continue
		}
		var tags []string
		if tags, err = c.tags(ctx, host, reference.Path(named)); err == nil {
			return tags, nil
		}
	}
	return nil, err
}

// tags reads all pages of a list.
func (c *client) tags(ctx context.Context, host docker.RegistryHost, repository string) (tags []string, err error) {
	page := &url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + "/" + repository + "/tags/list"}
	for range maxTagPages {
		var list struct{ Tags []string }
		next, err := c.readJSON(ctx, host, page.String(), &list)
		if err != nil {
			return nil, err
		}
		tags = append(tags, list.Tags...)
		if next == "" {
			return tags, nil
		}
		following, err := page.Parse(next)
		if err != nil || following.Host != page.Host {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s goes on with its list of tags at %q", host.Host, next))
		}
		page.Path, page.RawQuery = following.Path, following.RawQuery
	}
	return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s has no end of tags", host.Host))
}

// readJSON reads one answer and returns the address of the next page, by the
// Link field (RFC 5988), "" for none.
func (c *client) readJSON(ctx context.Context, host docker.RegistryHost, url string, into any) (next string, err error) {
	resp, err := c.request(ctx, host, url, nil)
	if err != nil {
		return "", err
	}
	defer drain(resp)
	if resp.StatusCode >= http.StatusBadRequest {
		return "", remoteerrors.NewUnexpectedStatusErr(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMetadata)).Decode(into); err != nil {
		return "", errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: list of tags: %w", host.Host, err))
	}
	address, rest, ok := strings.Cut(resp.Header.Get("Link"), ">")
	if ok && strings.Contains(rest, `rel="next"`) {
		next = strings.TrimPrefix(strings.TrimSpace(address), "<")
	}
	return next, nil
}
