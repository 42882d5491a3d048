package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/berth-containers/berth/errdefs"
)

// OpenURL fetches what Import or Load may read from a web server. The caller
// closes it. The error is an errdefs.ErrInvalid for what is no http or https
// URL, ErrNotFound when the server does not have it, else ErrUnavailable.
func OpenURL(ctx context.Context, from string) (io.ReadCloser, error) {
	u, err := url.Parse(from)
	if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		err = errors.New("not a URL of a web server")
	}
	if err != nil {
		return nil, errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("source %q: %w", from, err)),
			"give a file, - for standard input, or a URL that begins with http:// or https://")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		class := errdefs.ErrUnavailable
		if resp.StatusCode == http.StatusNotFound {
			class = errdefs.ErrNotFound
		}
		return nil, errdefs.As(class, fmt.Errorf("%s answers %s", u.Redacted(), resp.Status))
	}
	return resp.Body, nil
}
