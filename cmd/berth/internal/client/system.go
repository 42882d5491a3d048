package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// NetworkList lists the networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) ([]network.Summary, error) {
	q := url.Values{}
	f.set(q)
	var out []network.Summary
	err := c.call(ctx, Request{Method: "GET", Path: "/networks", Query: q}, &out)
	return out, err
}

// NetworkInspect describes a network, raw as the engine tells it.
func (c *Client) NetworkInspect(ctx context.Context, ref string, verbose bool) (json.RawMessage, error) {
	q := url.Values{}
	if verbose {
		q.Set("verbose", "true")
	}
	var out json.RawMessage
	err := c.call(ctx, Request{Method: "GET", Path: "/networks/" + ref, Query: q}, &out)
	return out, err
}

// NetworkPrune removes the networks no container uses.
func (c *Client) NetworkPrune(ctx context.Context, f Filters) (network.PruneReport, error) {
	q := url.Values{}
	f.set(q)
	var out network.PruneReport
	err := c.call(ctx, Request{Method: "POST", Path: "/networks/prune", Query: q}, &out)
	return out, err
}

// Info describes the engine and its host, raw as the engine tells it.
func (c *Client) Info(ctx context.Context) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.call(ctx, Request{Method: "GET", Path: "/info"}, &out)
	return out, err
}

// Version describes the engine's build.
func (c *Client) Version(ctx context.Context) (system.VersionResponse, error) {
	var out system.VersionResponse
	err := c.call(ctx, Request{Method: "GET", Path: "/version"}, &out)
	return out, err
}

// Events follows the events that pass the filters, from since to until
// (seconds since the epoch; empty: from now on, without end). It returns when
// the engine has begun to watch.
func (c *Client) Events(ctx context.Context, f Filters, since, until string) (*EventStream, error) {
	q := url.Values{}
	setText(q, "since", since)
	setText(q, "until", until)
	f.set(q)
	resp, err := c.Do(ctx, Request{Method: "GET", Path: "/events", Query: q})
	if err != nil {
		return nil, err
	}
	return &EventStream{body: resp.Body}, nil
}

// EventStream are events as they come.
type EventStream struct{ body io.ReadCloser }

// Each calls fn with each event until it returns an error or the stream ends,
// and closes the stream.
func (s *EventStream) Each(fn func(*events.Message) error) error {
	defer s.body.Close()
	return Records(s.body, fn)
}

// DiskUsage is what images, containers and volumes take on disk.
type DiskUsage struct {
	system.DiskUsage
	// The fields engines before API 1.52 answer with.
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
}

// DiskUsage sums up what images and containers take on disk; verbose asks for
// the single ones.
func (c *Client) DiskUsage(ctx context.Context, verbose bool) (*DiskUsage, error) {
	q := url.Values{}
	setTrue(q, "verbose", verbose)
	var out DiskUsage
	err := c.call(ctx, Request{Method: "GET", Path: "/system/df", Query: q}, &out)
	return &out, err
}
