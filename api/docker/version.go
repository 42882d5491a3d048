package docker

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// version is the minor number of an API version; the major one is always 1.
type version int

const (
	// currentVersion is the version of the moby/moby/api types this door uses.
	currentVersion version = 56
	// minimumVersion is the oldest version answered; it is dockerd's own floor.
	minimumVersion version = 24
)

func (v version) String() string { return "1." + strconv.Itoa(int(v)) }

// versionKey is the context key of a request's version.
type versionKey struct{}

func withVersion(ctx context.Context, v version) context.Context {
	return context.WithValue(ctx, versionKey{}, v)
}

// versionOf returns the version the request was made in.
func versionOf(ctx context.Context) version {
	if v, ok := ctx.Value(versionKey{}).(version); ok {
		return v
	}
	return currentVersion
}

// splitVersion takes a leading /v1.NN off the request's path. A path without
// one is in the current version.
func splitVersion(r *http.Request) (version, *http.Request, error) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	major, minor, ok := parseVersion(first)
	if !ok {
		return currentVersion, r, nil
	}
	switch {
	case major > 1 || version(minor) > currentVersion:
		return 0, r, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("client version %s is too new. Maximum supported API version is %s", first[1:], currentVersion))
	case major < 1 || version(minor) < minimumVersion:
		return 0, r, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", first[1:], minimumVersion))
	}
	trimmed := *r
	trimmed.URL = new(url.URL)
	*trimmed.URL = *r.URL
	trimmed.URL.Path = "/" + rest
	if r.URL.RawPath != "" {
		_, raw, _ := strings.Cut(strings.TrimPrefix(r.URL.RawPath, "/"), "/")
		trimmed.URL.RawPath = "/" + raw
	}
	return version(minor), &trimmed, nil
}

// parseVersion reads "v1.43".
func parseVersion(s string) (major, minor int, ok bool) {
	digits, ok := strings.CutPrefix(s, "v")
	if !ok {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(digits, ".")
	if !ok {
		return 0, 0, false
	}
	major, errA := strconv.Atoi(a)
	minor, errB := strconv.Atoi(b)
	return major, minor, errA == nil && errB == nil
}
