package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/container"
)

// ContainerStatPath describes a file in a container.
func (c *Client) ContainerStatPath(ctx context.Context, ref, path string) (container.PathStat, error) {
	resp, err := c.Do(ctx, Request{Method: "HEAD", Path: "/containers/" + ref + "/archive", Query: url.Values{"path": {path}}})
	if err != nil {
		return container.PathStat{}, err
	}
	defer resp.Body.Close()
	return pathStat(resp.Header)
}

func pathStat(h map[string]string) (st container.PathStat, err error) {
	text, err := base64.StdEncoding.DecodeString(h["x-docker-container-path-stat"])
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		return st, fmt.Errorf("read the description of the file: %w", err)
	}
	return st, nil
}

// CopyFromContainer returns a tar of a file or directory, and its description.
// The caller closes it.
func (c *Client) CopyFromContainer(ctx context.Context, ref, path string) (io.ReadCloser, container.PathStat, error) {
	resp, err := c.Do(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/archive", Query: url.Values{"path": {path}}})
	if err != nil {
		return nil, container.PathStat{}, err
	}
	st, err := pathStat(resp.Header)
	if err != nil {
		return nil, st, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, st, nil
}

// CopyToContainer unpacks a tar in a directory of a container; owner gives the
// files to the container's user.
func (c *Client) CopyToContainer(ctx context.Context, ref, path string, owner bool, content io.Reader) error {
	q := url.Values{"path": {path}, "noOverwriteDirNonDir": {"true"}}
	setTrue(q, "copyUIDGID", owner)
	return c.call(ctx, Request{Method: "PUT", Path: "/containers/" + ref + "/archive", Query: q, Stream: content, Length: -1}, nil)
}

// ContainerChanges lists what differs from the container's image.
func (c *Client) ContainerChanges(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	var out []container.FilesystemChange
	err := c.call(ctx, Request{Method: "GET", Path: "/containers/" + ref + "/changes"}, &out)
	return out, err
}
