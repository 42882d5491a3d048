package client

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/moby/moby/api/types/volume"
)

// VolumeCreate makes a volume. An empty name lets the engine choose one.
func (c *Client) VolumeCreate(ctx context.Context, req *volume.CreateRequest) (volume.Volume, error) {
	var out volume.Volume
	err := c.call(ctx, Request{Method: "POST", Path: "/volumes/create", Body: req}, &out)
	return out, err
}

// VolumeList lists the volumes.
func (c *Client) VolumeList(ctx context.Context, f Filters) (volume.ListResponse, error) {
	q := url.Values{}
	f.set(q)
	var out volume.ListResponse
	err := c.call(ctx, Request{Method: "GET", Path: "/volumes", Query: q}, &out)
	return out, err
}

// VolumeInspect describes a volume, raw as the engine tells it.
func (c *Client) VolumeInspect(ctx context.Context, name string) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.call(ctx, Request{Method: "GET", Path: "/volumes/" + name}, &out)
	return out, err
}

// VolumeRemove removes a volume; with force one that is not there is fine.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	q := url.Values{}
	setTrue(q, "force", force)
	return c.call(ctx, Request{Method: "DELETE", Path: "/volumes/" + name, Query: q}, nil)
}

// VolumePrune removes the volumes no container uses.
func (c *Client) VolumePrune(ctx context.Context, f Filters) (volume.PruneReport, error) {
	q := url.Values{}
	f.set(q)
	var out volume.PruneReport
	err := c.call(ctx, Request{Method: "POST", Path: "/volumes/prune", Query: q}, &out)
	return out, err
}
