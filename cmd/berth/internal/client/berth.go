package client

import (
	"context"
	"encoding/json"
)

// What Docker's API has no words for is asked below /berth/.

// Explanation is what an engine explains of a container, as far as it is shown.
type Explanation struct {
	ID, Name, Image, Status string
	Program                 struct{ Listing, Problem string }
	Text                    []struct {
		Question string
		Answers  []string
	}
}

// ContainerExplain explains a container, raw as the engine tells it.
func (c *Client) ContainerExplain(ctx context.Context, ref string) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.call(ctx, Request{Method: "GET", Path: "/berth/containers/" + ref + "/explain"}, &out)
	return out, err
}
