package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	cref "github.com/containerd/containerd/v2/pkg/reference"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// blobSource fetches blobs of a repository, in ranges: containerd's client can
// go on at an offset, but not end before the blob does.
type blobSource struct {
	*client
	named reference.Named
	// answers is the index of the host that had something last.
	answers atomic.Int32
}

// get implements source. Hosts are asked in their order until one has it.
func (b *blobSource) get(ctx context.Context, desc ocispec.Descriptor, from, end int64) (body io.ReadCloser, ranged bool, err error) {
	spec, err := cref.Parse(b.named.Name() + "@" + desc.Digest.String())
	if err != nil {
		return nil, false, err
	}
	if ctx, err = docker.ContextWithRepositoryScope(ctx, spec, false); err != nil {
		return nil, false, err
	}
	err = errdefs.As(errdefs.ErrUnavailable, errors.New("no host is configured to pull from"))
	for i := int(b.answers.Load()); i < len(b.hosts); i++ {
		host := b.hosts[i]
		if !host.Capabilities.Has(docker.HostCapabilityPull) {
			continue
		}
		body, ranged, err = b.ask(ctx, host, desc, from, end)
		if err == nil {
			b.answers.Store(int32(i))
			return body, ranged, nil
		}
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
	}
	b.answers.Store(0)
	return nil, false, err
}

// ask sends one request, twice when the registry first wants to know who asks.
func (b *blobSource) ask(ctx context.Context, host docker.RegistryHost, desc ocispec.Descriptor, from, end int64) (io.ReadCloser, bool, error) {
	u := url.URL{
		Scheme: host.Scheme, Host: host.Host,
		Path: path.Join("/", host.Path, reference.Path(b.named), "blobs", desc.Digest.String()),
	}
	if host.Host != b.domain && (b.domain != "docker.io" || host.Host != dockerHub) {
		u.RawQuery = url.Values{"ns": {b.domain}}.Encode() // a mirror of several registries
	}
	part := from > 0 || end < desc.Size
	resp, err := b.request(ctx, host, u.String(), func(req *http.Request) {
		// Compressed for the way, ranges would be of something else.
		req.Header.Set("Accept-Encoding", "identity")
		if part {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, end-1))
		}
	})
	if err != nil {
		return nil, false, err
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return resp.Body, false, nil
	case resp.StatusCode == http.StatusPartialContent && part:
		var first, last, total int64
		n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total)
		if n >= 2 && first == from && (n == 2 || total == desc.Size) {
			return resp.Body, true, nil
		}
		err = fmt.Errorf("%s answers with the range %q: %w", host.Host, resp.Header.Get("Content-Range"), errWrongContent)
	case resp.StatusCode == http.StatusNotFound:
		err = fmt.Errorf("%s: %w", desc.Digest, cerrdefs.ErrNotFound)
	default:
		err = remoteerrors.NewUnexpectedStatusErr(resp)
	}
	drain(resp)
	return nil, false, err
}

// request asks host, and once more with credentials when it wants some.
func (c *client) request(ctx context.Context, host docker.RegistryHost, url string, prepare func(*http.Request)) (*http.Response, error) {
	var refused []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		if host.Header != nil {
			req.Header = host.Header.Clone()
		}
		req.Header.Set("User-Agent", userAgent)
		if prepare != nil {
			prepare(req)
		}
		if err := host.Authorizer.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := host.Client.Do(req)
		if err != nil {
			return nil, err
		}
		// A token may have expired, and the answer to that is refused once, too.
		if resp.StatusCode != http.StatusUnauthorized || len(refused) == 2 {
			return resp, nil
		}
		drain(resp)
		refused = append(refused, resp)
		if err := host.Authorizer.AddResponses(ctx, refused); err != nil {
			return nil, err
		}
	}
}

// final tells whether asking again for a blob is of no use: everything else
// that may go wrong with a registry that has just answered may pass.
func final(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	var local *fs.PathError
	switch {
	case errors.As(err, &status):
		return status.StatusCode < 500 && status.StatusCode != http.StatusTooManyRequests && status.StatusCode != http.StatusRequestTimeout
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return true
	}
	return isDiskFull(err) || errors.As(err, &local) || errors.Is(err, errWrongContent) || cerrdefs.IsNotFound(err) ||
		errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.Hint(err) != ""
}
