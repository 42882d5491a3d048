package client

import (
	"context"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/registry"
)

// authHeader is the field that carries credentials for a registry.
const authHeader = "X-Registry-Auth"

// withAuth adds credentials, as credentials.Header encodes them, to a request.
func withAuth(req Request, auth string) Request {
	if auth != "" {
		req.Header = map[string]string{authHeader: auth}
	}
	return req
}

// PushOptions says what is pushed. An empty tag pushes all tags.
type PushOptions struct{ Repo, Tag, Platform, Auth string }

// ImagePush pushes an image; the answer is as of [Client.ImagePull].
func (c *Client) ImagePush(ctx context.Context, opt PushOptions) (io.ReadCloser, error) {
	q := url.Values{}
	setText(q, "tag", opt.Tag)
	setPlatform(q, opt.Platform)
	return c.progress(ctx, withAuth(Request{Method: "POST", Path: "/images/" + opt.Repo + "/push", Query: q}, opt.Auth))
}

// Login asks a registry, through the engine, whether it takes the credentials.
func (c *Client) Login(ctx context.Context, auth *registry.AuthConfig) (registry.AuthResponse, error) {
	var out registry.AuthResponse
	err := c.call(ctx, Request{Method: "POST", Path: "/auth", Body: auth}, &out)
	return out, err
}
