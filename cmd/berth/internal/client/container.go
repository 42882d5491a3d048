package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"

	"github.com/moby/moby/api/types/container"
)

// Filters are list filters as the API takes them: name → set of values.
type Filters map[string]map[string]bool

// Add adds a value to a filter.
func (f Filters) Add(name, value string) {
	if f[name] == nil {
		f[name] = map[string]bool{}
	}
	f[name][value] = true
}

// set puts the filters into a query; none leave it as it is.
func (f Filters) set(q url.Values) {
	if len(f) == 0 {
		return
	}
	text, _ := json.Marshal(f) // a map of maps of bool cannot fail
	q.Set("filters", string(text))
}

func setTrue(q url.Values, name string, v bool) {
	if v {
		q.Set(name, "1")
	}
}

func setText(q url.Values, name, v string) {
	if v != "" {
		q.Set(name, v)
	}
}

// ContainerCreate makes a container. An empty name lets the engine choose one.
func (c *Client) ContainerCreate(ctx context.Context, name, platform string, req *container.CreateRequest) (container.CreateResponse, error) {
	q := url.Values{}
	setText(q, "name", name)
	setText(q, "platform", platform)
	var out container.CreateResponse
	err := c.call(ctx, Request{Method: "POST", Path: "/containers/create", Query: q, Body: req}, &out)
	return out, err
}

// ContainerStart starts a container.
func (c *Client) ContainerStart(ctx context.Context, ref string) error {
	return c.post(ctx, ref, "start", nil)
}

// post sends a POST for an act on a container that answers with nothing.
func (c *Client) post(ctx context.Context, ref, act string, q url.Values) error {
	return c.call(ctx, Request{Method: "POST", Path: "/containers/" + ref + "/" + act, Query: q}, nil)
}

// ContainerStop stops a container: signal may be empty, timeout (in seconds) nil for the
// container's own.
func (c *Client) ContainerStop(ctx context.Context, ref, signal string, timeout *int) error {
	return c.post(ctx, ref, "stop", stopQuery(signal, timeout))
}

// ContainerRestart stops and starts a container; as ContainerStop.
func (c *Client) ContainerRestart(ctx context.Context, ref, signal string, timeout *int) error {
	return c.post(ctx, ref, "restart", stopQuery(signal, timeout))
}

func stopQuery(signal string, timeout *int) url.Values {
	q := url.Values{}
	setText(q, "signal", signal)
	if timeout != nil {
		q.Set("t", strconv.Itoa(*timeout))
	}
	return q
}

// ContainerKill sends a signal, empty for SIGKILL.
func (c *Client) ContainerKill(ctx context.Context, ref, signal string) error {
	q := url.Values{}
	setText(q, "signal", signal)
	return c.post(ctx, ref, "kill", q)
}

// ContainerPause freezes a container.
func (c *Client) ContainerPause(ctx context.Context, ref string) error {
	return c.post(ctx, ref, "pause", nil)
}

// ContainerUnpause thaws a container.
func (c *Client) ContainerUnpause(ctx context.Context, ref string) error {
	return c.post(ctx, ref, "unpause", nil)
}

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, ref, name string) error {
	return c.post(ctx, ref, "rename", url.Values{"name": {name}})
}

// ContainerResize sets the size of a container's terminal, in characters.
func (c *Client) ContainerResize(ctx context.Context, ref string, height, width uint) error {
	return c.post(ctx, ref, "resize", sizeQuery(height, width))
}

func sizeQuery(height, width uint) url.Values {
	return url.Values{"h": {strconv.FormatUint(uint64(height), 10)}, "w": {strconv.FormatUint(uint64(width), 10)}}
}

// ContainerUpdate changes limits and the restart policy of a container.
func (c *Client) ContainerUpdate(ctx context.Context, ref string, upd *container.UpdateConfig) (container.UpdateResponse, error) {
	var out container.UpdateResponse
	err := c.call(ctx, Request{Method: "POST", Path: "/containers/" + ref + "/update", Body: upd}, &out)
	return out, err
}

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, ref string, force, volumes, link bool) error {
	q := url.Values{}
	setTrue(q, "force", force)
	setTrue(q, "v", volumes)
	setTrue(q, "link", link)
	return c.call(ctx, Request{Method: "DELETE", Path: "/containers/" + ref, Query: q}, nil)
}

// ContainerInspect describes a container, raw as the engine tells it.
func (c *Client) ContainerInspect(ctx context.Context, ref string, size bool) (json.RawMessage, error) {
	q := url.Values{}
	setTrue(q, "size", size)
	var out json.RawMessage
	err := c.call(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/json", Query: q}, &out)
	return out, err
}

// ContainerDescribe describes a container.
func (c *Client) ContainerDescribe(ctx context.Context, ref string) (*container.InspectResponse, error) {
	var out container.InspectResponse
	err := c.call(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/json"}, &out)
	return &out, err
}

// ListOptions selects containers.
type ListOptions struct {
	// All includes those that do not run.
	All bool
	// Limit, when positive, is the number of newest containers, whatever their state.
	Limit int
	// Size asks for the (expensive) sizes.
	Size    bool
	Filters Filters
}

// ContainerList lists containers.
func (c *Client) ContainerList(ctx context.Context, opt ListOptions) ([]container.Summary, error) {
	q := url.Values{}
	setTrue(q, "all", opt.All)
	setTrue(q, "size", opt.Size)
	if opt.Limit > 0 {
		q.Set("limit", strconv.Itoa(opt.Limit))
	}
	opt.Filters.set(q)
	var out []container.Summary
	err := c.call(ctx, Request{Method: "GET", Path: "/containers/json", Query: q}, &out)
	return out, err
}

// ContainerTop lists a container's processes; args are ps' arguments.
func (c *Client) ContainerTop(ctx context.Context, ref, args string) (container.TopResponse, error) {
	q := url.Values{}
	setText(q, "ps_args", args)
	var out container.TopResponse
	err := c.call(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/top", Query: q}, &out)
	return out, err
}

// LogsOptions selects what of a container's log is read.
type LogsOptions struct {
	Follow, Timestamps, Details bool
	// Since, Until: seconds since the epoch with fraction; empty does not bound.
	Since, Until string
	// Tail is a number of lines or "all".
	Tail string
}

// ContainerLogs reads a container's log.
func (c *Client) ContainerLogs(ctx context.Context, ref string, opt LogsOptions) (*Output, error) {
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}}
	setTrue(q, "follow", opt.Follow)
	setTrue(q, "timestamps", opt.Timestamps)
	setTrue(q, "details", opt.Details)
	setText(q, "since", opt.Since)
	setText(q, "until", opt.Until)
	setText(q, "tail", opt.Tail)
	resp, err := c.Do(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/logs", Query: q})
	if err != nil {
		return nil, err
	}
	return resp.output(), nil
}

// AttachOptions says which of a container's streams are attached.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	// Logs sends what the log has so far first.
	Logs bool
	// DetachKeys is the sequence the engine takes for a detach; empty for its own.
	DetachKeys string
}

// AttachRequest is the request that attaches to a container: [Client.Send] it,
// then take [Response.Stream] of its answer.
func AttachRequest(ref string, opt AttachOptions) Request {
	q := url.Values{"stream": {"1"}}
	setTrue(q, "stdin", opt.Stdin)
	setTrue(q, "stdout", opt.Stdout)
	setTrue(q, "stderr", opt.Stderr)
	setTrue(q, "logs", opt.Logs)
	setText(q, "detachKeys", opt.DetachKeys)
	return Request{Method: "POST", Path: "/containers/" + ref + "/attach", Query: q, Upgrade: true}
}

// WaitRequest is the request that waits for a container: [Client.Send] it. Its
// answer's head comes once the engine watches, its body ([WaitResult]) at the end.
func WaitRequest(ref string, cond container.WaitCondition) Request {
	q := url.Values{}
	setText(q, "condition", string(cond))
	return Request{Method: "POST", Path: "/containers/" + ref + "/wait", Query: q}
}

// WaitResult reads the answer to a [WaitRequest].
func WaitResult(resp *Response) (container.WaitResponse, error) {
	var out container.WaitResponse
	err := resp.decode(&out)
	return out, err
}

// ContainerWait waits until a container does not run and returns its exit code.
func (c *Client) ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (container.WaitResponse, error) {
	resp, err := c.Do(ctx, WaitRequest(ref, cond))
	if err != nil {
		return container.WaitResponse{}, err
	}
	return WaitResult(resp)
}

// ContainerStats samples a container's resource usage: once, or when stream is
// set about once a second until fn returns an error.
func (c *Client) ContainerStats(ctx context.Context, ref string, stream bool, fn func(*container.StatsResponse) error) error {
	q := url.Values{"stream": {"0"}}
	setTrue(q, "stream", stream)
	resp, err := c.Do(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/stats", Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return Records(resp.Body, fn)
}

// ContainerExport writes a container's file system as a tar.
func (c *Client) ContainerExport(ctx context.Context, ref string) (io.ReadCloser, error) {
	resp, err := c.Do(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/export"})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ContainerPrune removes the containers that do not run.
func (c *Client) ContainerPrune(ctx context.Context, f Filters) (container.PruneReport, error) {
	q := url.Values{}
	f.set(q)
	var out container.PruneReport
	err := c.call(ctx, Request{Method: "POST", Path: "/containers/prune", Query: q}, &out)
	return out, err
}

// CommitOptions says what image is made of a container.
type CommitOptions struct {
	// Repo and Tag name the image; empty leaves it without a name.
	Repo, Tag       string
	Author, Comment string
	// Changes are Dockerfile instructions.
	Changes []string
	// NoPause leaves the container running meanwhile.
	NoPause bool
}

// ContainerCommit makes an image of a container and returns its id.
func (c *Client) ContainerCommit(ctx context.Context, ref string, opt CommitOptions) (string, error) {
	q := url.Values{"container": {ref}}
	setText(q, "repo", opt.Repo)
	setText(q, "tag", opt.Tag)
	setText(q, "author", opt.Author)
	setText(q, "comment", opt.Comment)
	for _, change := range opt.Changes {
		q.Add("changes", change)
	}
	if opt.NoPause {
		q.Set("pause", "0")
	}
	var out container.CommitResponse
	err := c.call(ctx, Request{Method: "POST", Path: "/commit", Query: q}, &out)
	return out.ID, err
}
