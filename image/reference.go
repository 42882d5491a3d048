package image

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/berth-containers/berth/errdefs"
)

// shortID matches what may abbreviate an image ID.
var shortID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{1,64}$`)

// parseName reads an image name as Docker does: "busybox" is
// docker.io/library/busybox:latest. With a digest the tag is dropped.
func parseName(s string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return nil, invalidName(s, err)
	}
	return named, nil
}

func invalidName(s string, err error) error {
	return errdefs.WithHint(
		errdefs.As(errdefs.ErrInvalid, fmt.Errorf("image name %q: %w", s, err)),
		"a name looks like [REGISTRY[:PORT]/]PATH[:TAG][@DIGEST], in lower case")
}

// parseTag reads a name to be given to an image: it has a tag and no digest.
func parseTag(s string) (string, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err == nil {
		if _, ok := named.(reference.Digested); ok {
			err = errors.New("a tag cannot contain a digest")
		}
	}
	if err == nil && reference.FamiliarName(named) == "sha256" {
		err = errors.New(`the name "sha256" is reserved`)
	}
	if err != nil {
		return "", invalidName(s, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// familiar is the name as people write it.
func familiar(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

// found is what a reference leads to.
type found struct {
	id digest.Digest
	// name is the full tag or digest name that led there, "" for an ID.
	name string
}

// lookup finds an image by name, name@digest, ID or unique beginning of an ID,
// in this order.
func (st catalogueState) lookup(ref string) (found, error) {
	if id, ok := st.Names[ref]; ok {
		return found{id, ref}, nil
	}
	if f, ok := st.lookupID(ref); ok {
		return f, nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err == nil {
		if f, ok := st.lookupName(named); ok {
			return f, nil
		}
	}
	if shortID.MatchString(ref) {
		prefix := "sha256:" + strings.TrimPrefix(ref, "sha256:")
		ids := slices.Collect(maps.Keys(st.Images))
		ids = slices.DeleteFunc(ids, func(d digest.Digest) bool { return !strings.HasPrefix(d.String(), prefix) })
		switch {
		case len(ids) == 1:
			return found{id: ids[0]}, nil
		case len(ids) > 1:
			return found{}, errdefs.WithHint(
				errdefs.As(errdefs.ErrConflict, fmt.Errorf("image ID %s is ambiguous: %d images begin with it", ref, len(ids))),
				"give more digits of the ID")
		}
	} else if err != nil {
		return found{}, invalidName(ref, err)
	}
	if err == nil {
		ref = reference.FamiliarString(reference.TagNameOnly(named))
	}
	return found{}, errdefs.As(errdefs.ErrNotFound, fmt.Errorf("no such image: %s", ref))
}

// lookupID finds an image by its complete ID or its manifest's digest.
func (st catalogueState) lookupID(ref string) (found, bool) {
	d := digest.Digest(ref)
	if len(ref) == 64 {
		d = digest.NewDigestFromEncoded(digest.SHA256, ref)
	}
	if d.Validate() != nil {
		return found{}, false
	}
	if _, ok := st.Images[d]; ok {
		return found{id: d}, true
	}
	for id, rec := range st.Images {
		if rec.Target.Digest == d {
			return found{id: id}, true
		}
	}
	return found{}, false
}

func (st catalogueState) lookupName(named reference.Named) (found, bool) {
	digested, ok := named.(reference.Digested)
	if !ok {
		name := reference.TagNameOnly(named).String()
		id, ok := st.Names[name]
		return found{id, name}, ok
	}
	name := named.Name() + "@" + digested.Digest().String()
	if id, ok := st.Digests[name]; ok {
		return found{id, name}, true
	}
	// Loaded images have no digest name; their manifest's digest, or their ID,
	// under one of their names means them all the same.
	f, ok := st.lookupID(digested.Digest().String())
	if !ok {
		return found{}, false
	}
	for tag, id := range st.Names {
		if id == f.id && repository(tag) == named.Name() {
			return f, true
		}
	}
	return found{}, false
}

// repository is the name without tag and digest.
func repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

// namesOf lists the names of an image, sorted.
func namesOf(names map[string]digest.Digest, id digest.Digest) []string {
	var out []string
	for n, d := range names {
		if d == id {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// imageLocked assembles the public view of one image.
func (st catalogueState) image(id digest.Digest, config *dockerspec.DockerOCIImage) *Image {
	rec := st.Images[id]
	img := &Image{
		ID: id, Target: rec.Target, Layers: slices.Clone(rec.Layers),
		ChainID: rec.chain(), Added: rec.Added, LastTagged: rec.LastTagged, Children: st.hasChildren(id),
	}
	if _, ok := st.Images[rec.Parent]; ok {
		img.Parent = rec.Parent
	}
	if config != nil {
		img.Config = *config
		if config.Created != nil {
			img.Created = *config.Created
		}
	}
	for _, n := range namesOf(st.Names, id) {
		img.RepoTags = append(img.RepoTags, familiar(n))
	}
	for _, n := range namesOf(st.Digests, id) {
		img.RepoDigests = append(img.RepoDigests, familiar(n))
	}
	for _, l := range rec.Layers {
		img.Size += l.Size
	}
	return img
}
