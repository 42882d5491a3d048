package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"time"
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

// Overview is what all containers use at one moment; counters run since each
// one's start. See the engine's Overview.
type Overview struct {
	Time                         time.Time
	CPUs                         int
	SystemCPU                    uint64
	MemoryTotal, MemoryAvailable uint64
	Containers                   []ContainerUse
}

// ContainerUse is a container's line of an overview.
type ContainerUse struct {
	ID, Name, Image, Status, Health         string
	ExitCode, Restarts                      int
	StartedAt, FinishedAt                   time.Time
	CPU                                     uint64
	CPUs                                    float64
	Throttled                               uint64
	Memory, MemoryLimit                     uint64
	ReadBytes, WriteBytes, RxBytes, TxBytes uint64
	Pids, PidsLimit                         uint64
	CPUPressure, MemoryPressure, IOPressure float64
}

// Watch calls fn with an overview every so many seconds, until fn returns an
// error or the engine is gone.
func (c *Client) Watch(ctx context.Context, seconds float64, fn func(*Overview) error) error {
	// Closing the body of an answer without an end would wait for more of it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := url.Values{"interval": {strconv.FormatFloat(seconds, 'g', -1, 64)}}
	resp, err := c.Do(ctx, Request{Method: "GET", Path: "/berth/top", Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return Records(resp.Body, func(o *Overview) error {
		err := fn(o)
		if err != nil {
			cancel()
		}
		return err
	})
}
