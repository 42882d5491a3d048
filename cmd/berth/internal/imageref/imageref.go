// Package imageref takes image names apart as far as a client has to: for
// requests that want repository and tag as two values and for tables. What is
// a valid name is the engine's to say.
package imageref

import "strings"

// Ref is an image's name.
type Ref struct {
	// Repo is the repository as people write it: without docker.io/ and docker.io/library/.
	Repo string
	// Tag and Digest may be empty.
	Tag, Digest string
}

// Parse takes REPO[:TAG][@DIGEST] apart.
func Parse(s string) Ref {
	var r Ref
	s, r.Digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		s, r.Tag = s[:i], s[i+1:]
	}
	s = strings.TrimPrefix(s, "docker.io/")
	if rest, ok := strings.CutPrefix(s, "library/"); ok && !strings.Contains(rest, "/") {
		s = rest
	}
	r.Repo = s
	return r
}

// String puts the name together again.
func (r Ref) String() string {
	s := r.Repo
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Version is what the API calls the tag of a pull: the digest, or the tag.
func (r Ref) Version() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tag
}
