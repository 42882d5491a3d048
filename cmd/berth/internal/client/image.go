package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/moby/moby/api/types/image"
)

// ImageListOptions selects images.
type ImageListOptions struct {
	// All includes intermediate images.
	All bool
	// SharedSize asks for the sizes shared with other images.
	SharedSize bool
	// Manifests asks for what there is by platform.
	Manifests bool
	Filters   Filters
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, opt ImageListOptions) ([]image.Summary, error) {
	q := url.Values{}
	setTrue(q, "all", opt.All)
	setTrue(q, "shared-size", opt.SharedSize)
	setTrue(q, "manifests", opt.Manifests)
	opt.Filters.set(q)
	var out []image.Summary
	err := c.call(ctx, Request{Method: "GET", Path: "/images/json", Query: q}, &out)
	return out, err
}

// ImageInspect describes an image, raw as the engine tells it.
func (c *Client) ImageInspect(ctx context.Context, ref string) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.call(ctx, Request{Method: "GET", Path: "/images/" + ref + "/json"}, &out)
	return out, err
}

// ImageHistory lists the steps an image was made by, newest first.
func (c *Client) ImageHistory(ctx context.Context, ref string) ([]image.HistoryResponseItem, error) {
	var out []image.HistoryResponseItem
	err := c.call(ctx, Request{Method: "GET", Path: "/images/" + ref + "/history"}, &out)
	return out, err
}

// ImageTag gives an image a further name.
func (c *Client) ImageTag(ctx context.Context, ref, repo, tag string) error {
	q := url.Values{"repo": {repo}}
	setText(q, "tag", tag)
	return c.call(ctx, Request{Method: "POST", Path: "/images/" + ref + "/tag", Query: q}, nil)
}

// ImageRemove removes an image's name, and the image when it was its last.
func (c *Client) ImageRemove(ctx context.Context, ref string, force, noPrune bool) ([]image.DeleteResponse, error) {
	q := url.Values{}
	setTrue(q, "force", force)
	setTrue(q, "noprune", noPrune)
	var out []image.DeleteResponse
	err := c.call(ctx, Request{Method: "DELETE", Path: "/images/" + ref, Query: q}, &out)
	return out, err
}

// ImagePrune removes images that no container uses.
func (c *Client) ImagePrune(ctx context.Context, f Filters) (image.PruneReport, error) {
	q := url.Values{}
	f.set(q)
	var out image.PruneReport
	err := c.call(ctx, Request{Method: "POST", Path: "/images/prune", Query: q}, &out)
	return out, err
}

// PullOptions says what is pulled. An empty tag pulls all tags.
type PullOptions struct{ Repo, Tag, Platform, Auth string }

// ImagePull pulls an image; the answer is a stream of progress records
// (jsonstream.Message) that ends when the image is there.
func (c *Client) ImagePull(ctx context.Context, opt PullOptions) (io.ReadCloser, error) {
	q := url.Values{"fromImage": {opt.Repo}}
	setText(q, "tag", opt.Tag)
	setText(q, "platform", opt.Platform)
	return c.progress(ctx, withAuth(Request{Method: "POST", Path: "/images/create", Query: q}, opt.Auth))
}

// ImportOptions says what image is made of a root file system's tar.
type ImportOptions struct {
	// Source is a URL the engine fetches; empty sends Data.
	Source string
	Data   io.Reader
	// Ref names the image; empty leaves it without a name.
	Ref, Platform, Message string
	// Changes are Dockerfile instructions.
	Changes []string
}

// ImageImport makes an image of a root file system; the answer is as of [Client.ImagePull],
// the last status being the image's id.
func (c *Client) ImageImport(ctx context.Context, opt ImportOptions) (io.ReadCloser, error) {
	req := Request{Method: "POST", Path: "/images/create"}
	if opt.Source == "" {
		opt.Source = "-"
		req.Stream, req.Length = opt.Data, -1
	}
	req.Query = url.Values{"fromSrc": {opt.Source}}
	setText(req.Query, "repo", opt.Ref)
	setText(req.Query, "platform", opt.Platform)
	setText(req.Query, "message", opt.Message)
	for _, change := range opt.Changes {
		req.Query.Add("changes", change)
	}
	return c.progress(ctx, req)
}

// ImageLoad loads images from an archive; length is its size, -1 when not
// known. The answer is as of [Client.ImagePull].
func (c *Client) ImageLoad(ctx context.Context, archive io.Reader, length int64, quiet bool, platform string) (io.ReadCloser, error) {
	q := url.Values{"quiet": {"0"}}
	setTrue(q, "quiet", quiet)
	setPlatform(q, platform)
	if f, ok := archive.(*os.File); ok && length >= 0 {
		body, err := c.imageLoadFile(ctx, f, q)
		if !errors.Is(err, errNotOffered) {
			return body, err
		}
	}
	return c.progress(ctx, Request{Method: "POST", Path: "/images/load", Query: q, Stream: archive, Length: length})
}

// ImageSave writes images as an archive of the format, "" for the engine's own
// choice.
func (c *Client) ImageSave(ctx context.Context, refs []string, platform, format string) (io.ReadCloser, error) {
	q := url.Values{"names": refs}
	setPlatform(q, platform)
	setText(q, "format", format)
	return c.progress(ctx, Request{Method: "GET", Path: "/images/get", Query: q})
}

// setPlatform sets a platform, OS[/ARCH[/VARIANT]], as the requests about
// archives want it: in JSON.
func setPlatform(q url.Values, text string) {
	if text == "" {
		return
	}
	p := map[string]string{}
	for i, part := range strings.SplitN(text, "/", 3) {
		p[[...]string{"os", "architecture", "variant"}[i]] = part
	}
	value, _ := json.Marshal(p) // a map of strings cannot fail
	q.Set("platform", string(value))
}

func (c *Client) progress(ctx context.Context, req Request) (io.ReadCloser, error) {
	resp, err := c.Do(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
