package docker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// invalid makes an error of class ErrInvalid.
func invalid(format string, args ...any) error {
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf(format, args...))
}

// boolean reads a flag as dockerd does: absent, 0, no, false and none are
// false, all else true.
func (r *request) boolean(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// booleanOr reads a flag that is def when absent.
func (r *request) booleanOr(name string, def bool) bool {
	if !r.URL.Query().Has(name) {
		return def
	}
	return r.boolean(name)
}

// value returns a query parameter, "" when absent.
func (r *request) value(name string) string { return r.URL.Query().Get(name) }

// integer reads a number; absent is nil.
func (r *request) integer(name string) (*int, error) {
	text := r.value(name)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, invalid("invalid value %q for %s: not a number", text, name)
	}
	return &n, nil
}

// dimension reads a terminal's height or width.
func (r *request) dimension(name string) (uint, error) {
	n, err := strconv.ParseUint(r.value(name), 10, 16)
	if err != nil {
		return 0, invalid("invalid value %q for %s: not a terminal size", r.value(name), name)
	}
	return uint(n), nil
}

// filters reads the filters parameter, in today's form ({"a":{"b":true}}) or
// the one from before API 1.22 that some libraries still send ({"a":["b"]}).
func (r *request) filters() (engine.Filters, error) {
	text := r.value("filters")
	if text == "" {
		return nil, nil
	}
	var sets engine.Filters
	if json.Unmarshal([]byte(text), &sets) == nil {
		return sets, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(text), &lists); err != nil {
		return nil, invalid("invalid filters: %w", err)
	}
	sets = make(engine.Filters, len(lists))
	for name, values := range lists {
		sets[name] = make(map[string]bool, len(values))
		for _, v := range values {
			sets[name][v] = true
		}
	}
	return sets, nil
}

// time reads a Unix time, in seconds with up to nine decimals ("12.000000345"),
// or in RFC 3339. Absent and 0 are the zero time.
func (r *request) time(name string) (time.Time, error) {
	text := r.value(name)
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(fraction) > 9 {
		return time.Time{}, invalid("invalid value %q for %s: not a time", text, name)
	}
	nanos := int64(0)
	if fraction != "" {
		n, err := strconv.ParseUint(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
		if err != nil || n > math.MaxInt32 {
			return time.Time{}, invalid("invalid value %q for %s: not a time", text, name)
		}
		nanos = int64(n)
	}
	if strings.HasPrefix(whole, "-") {
		nanos = -nanos
	}
	return time.Unix(seconds, nanos), nil
}

// platform reads the platform parameter, os[/arch[/variant]] or, as newer
// routes send it, a JSON object. Absent is nil.
func (r *request) platform() (*ocispec.Platform, error) {
	text := r.value("platform")
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "{") {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, invalid("invalid platform: %w", err)
		}
		return &p, nil
	}
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return nil, invalid("invalid platform %q: want os/arch or os/arch/variant", text)
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// body decodes the JSON body into v. An absent body is an error.
func (r *request) body(v any) error {
	found, err := r.optionalBody(v)
	if err == nil && !found {
		return invalid("invalid JSON: got EOF while reading request body")
	}
	return err
}

// optionalBody decodes the JSON body into v and says whether there was one. A
// body must be declared as JSON: that a web page cannot do without asking.
func (r *request) optionalBody(v any) (bool, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return false, nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return false, invalid("unsupported Content-Type header (%s): must be 'application/json'", r.Header.Get("Content-Type"))
	}
	decoder := json.NewDecoder(r.Body)
	if err := decoder.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, invalid("invalid JSON: %w", err)
	}
	if decoder.More() {
		return false, invalid("unexpected content after JSON")
	}
	return true, nil
}

// registryAuth decodes the X-Registry-Auth header: base64url of JSON. Absent
// and empty are nil, that is anonymous.
func (r *request) registryAuth() (*registry.AuthConfig, error) {
	text := r.Header.Get(registry.AuthHeader)
	if text == "" {
		return nil, nil
	}
	raw, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(text)
	}
	if err != nil {
		return nil, invalid("invalid %s header: %w", registry.AuthHeader, err)
	}
	var auth registry.AuthConfig
	if err := json.Unmarshal(raw, &auth); err != nil {
		return nil, invalid("invalid %s header: %w", registry.AuthHeader, err)
	}
	if auth == (registry.AuthConfig{}) {
		return nil, nil
	}
	return &auth, nil
}

// reference joins the repo and tag parameters: name, name:tag or name@digest.
func (r *request) reference(nameParameter string) string {
	name, tag := r.value(nameParameter), r.value("tag")
	switch {
	case name == "" || tag == "":
		return name
	case strings.Contains(tag, ":"):
		return name + "@" + tag
	}
	return name + ":" + tag
}

// notFound makes an error of class ErrNotFound.
func notFound(format string, args ...any) error {
	return errdefs.As(errdefs.ErrNotFound, fmt.Errorf(format, args...))
}
