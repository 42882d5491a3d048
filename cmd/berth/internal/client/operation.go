package client

import (
	"context"
	"time"
)

// Operation is something the engine is at work on.
type Operation struct {
	ID           string
	Kind, Object string
	Since        time.Time
	// WaitingFor is "" while it works.
	WaitingFor                 string
	WaitingSince, WaitingUntil time.Time
	Cancelled                  bool
}

// Operations lists what is under way, the oldest first.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	var out []Operation
	err := c.call(ctx, Request{Method: "GET", Path: "/berth/operations"}, &out)
	return out, err
}

// OperationCancel tells an operation to end.
func (c *Client) OperationCancel(ctx context.Context, id string) error {
	return c.call(ctx, Request{Method: "DELETE", Path: "/berth/operations/" + id}, nil)
}
