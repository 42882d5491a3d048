package client

import (
	"context"

	"github.com/moby/moby/api/types/container"
)

// ExecCreate prepares a process in a running container and returns its id.
func (c *Client) ExecCreate(ctx context.Context, ref string, req *container.ExecCreateRequest) (string, error) {
	var out container.ExecCreateResponse
	err := c.call(ctx, Request{Method: "POST", Path: "/containers/" + ref + "/exec", Body: req}, &out)
	return out.ID, err
}

// ExecStart starts a prepared process and returns its stdio.
func (c *Client) ExecStart(ctx context.Context, id string, req *container.ExecStartRequest) (*Stream, error) {
	return c.upgrade(ctx, Request{Method: "POST", Path: "/exec/" + id + "/start", Body: req})
}

// ExecStartDetached starts a prepared process and leaves it to itself.
func (c *Client) ExecStartDetached(ctx context.Context, id string, req *container.ExecStartRequest) error {
	return c.call(ctx, Request{Method: "POST", Path: "/exec/" + id + "/start", Body: req}, nil)
}

// ExecInspect describes a process started by exec.
func (c *Client) ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error) {
	var out container.ExecInspectResponse
	err := c.call(ctx, Request{Method: "GET", Path: "/exec/" + id + "/json"}, &out)
	return out, err
}

// ExecResize sets the size of an exec's terminal, in characters.
func (c *Client) ExecResize(ctx context.Context, id string, height, width uint) error {
	return c.call(ctx, Request{Method: "POST", Path: "/exec/" + id + "/resize", Query: sizeQuery(height, width)}, nil)
}
