package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/berth-containers/berth/errdefs"
)

// Removed is one thing a removal did; exactly one field is set.
type Removed struct {
	// Untagged is a name that no longer exists, as people write it.
	Untagged string
	// Deleted is the ID of an image that no longer exists.
	Deleted digest.Digest
}

// Tag gives the image src one more name; a name another image has moves.
func (s *Store) Tag(_ context.Context, src, dst string) error {
	name, err := parseTag(dst)
	if err != nil {
		return err
	}
	err = s.catalogue.update(func(st *catalogueState) error {
		f, err := st.lookup(src)
		if err != nil {
			return err
		}
		st.name(f.id, []string{name}, nil)
		return nil
	})
	if err != nil {
		return fmt.Errorf("tag %s as %s: %w", src, familiar(name), s.explain(err))
	}
	return nil
}

// Remove removes what ref says, by Docker's rules. A name is taken off its
// image; with its last name the image goes too. An ID removes the image if it
// has names in at most one repository, or with force. A container that uses the
// image is in the way: force overrules one that does not run (its layers stay
// with it), nothing overrules one that runs. The error then is an
// errdefs.ErrConflict.
func (s *Store) Remove(ctx context.Context, ref string, force bool) (removed []Removed, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("remove image %s: %w", ref, s.explain(err))
		}
	}()
	img, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	users := s.users(img.ID) // asked while no lock is held
	err = s.catalogue.update(func(st *catalogueState) error {
		f, err := st.lookup(ref)
		if err == nil && f.id != img.ID {
			err = errdefs.As(errdefs.ErrConflict, errors.New("the name has just been given to another image"))
		}
		if err != nil {
			return err
		}
		r := &removal{st: st, id: f.id, force: force, users: users}
		if f.name != "" {
			err = r.name(f.name)
		} else {
			err = r.image()
		}
		removed = r.done
		return err
	})
	if err != nil {
		return nil, err
	}
	return removed, s.collect(quiet(ctx))
}

func (s *Store) users(id digest.Digest) []User {
	if s.opts.Users == nil {
		return nil
	}
	return s.opts.Users(id)
}

// removal decides and changes the state; nothing of it counts after an error.
type removal struct {
	st    *catalogueState
	id    digest.Digest
	force bool
	users []User
	done  []Removed
}

// name takes one name off the image, and the image with its last one.
func (r *removal) name(name string) error {
	tags, digests := namesOf(r.st.Names, r.id), namesOf(r.st.Digests, r.id)
	last := len(tags)+len(digests) <= 1 || len(tags) == 1 && tags[0] == name
	if last && !r.force {
		if err := r.inUse(false); err != nil {
			return err
		}
	}
	r.untag(name)
	// Digest names mean what was pulled under a repository's tag; they go with
	// the repository's last tag.
	if !slices.ContainsFunc(namesOf(r.st.Names, r.id), func(n string) bool { return repository(n) == repository(name) }) {
		for _, d := range digests {
			if repository(d) == repository(name) {
				r.untag(d)
			}
		}
	}
	if len(namesOf(r.st.Names, r.id))+len(namesOf(r.st.Digests, r.id)) > 0 {
		return nil
	}
	if r.inUse(true) != nil {
		return nil // forced: the image stays, without a name, for who runs it
	}
	r.delete()
	return nil
}

// image removes the image with all its names.
func (r *removal) image() error {
	tags := namesOf(r.st.Names, r.id)
	repositories := map[string]bool{}
	for _, n := range slices.Concat(tags, namesOf(r.st.Digests, r.id)) {
		repositories[repository(n)] = true
	}
	if err := r.inUse(r.force); err != nil {
		return err
	}
	if !r.force && (len(repositories) > 1 || len(tags) > 1) {
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrConflict, fmt.Errorf("it has %d names", len(tags))),
			"remove the names you do not need, or use force to remove all of them")
	}
	for _, n := range slices.Concat(tags, namesOf(r.st.Digests, r.id)) {
		r.untag(n)
	}
	r.delete()
	return nil
}

func (r *removal) untag(name string) {
	delete(r.st.Names, name)
	delete(r.st.Digests, name)
	r.done = append(r.done, Removed{Untagged: familiar(name)})
}

func (r *removal) delete() {
	r.st.remove(r.id)
	r.done = append(r.done, Removed{Deleted: r.id})
}

// inUse is the conflict with a container, of all or only of those that run.
func (r *removal) inUse(running bool) error {
	for _, u := range r.users {
		id := u.ContainerID[:min(len(u.ContainerID), shortDigestSize)]
		switch {
		case u.Running:
			return errdefs.WithHint(
				errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s runs on it", id)),
				"stop and remove the container first")
		case !running:
			return errdefs.WithHint(
				errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s was made from it", id)),
				"remove the container first, or use force")
		}
	}
	return nil
}

// Prune removes the images that have no name and no container, or, with all,
// every image that has no container. It returns what went and the bytes their
// blobs and layers took.
func (s *Store) Prune(ctx context.Context, all bool) (removed []Removed, reclaimed int64, err error) {
	before, err := s.DiskUsage(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("prune images: %w", err)
	}
	list, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	used := map[digest.Digest]bool{}
	for _, img := range list {
		used[img.ID] = len(s.users(img.ID)) > 0
	}
	err = s.catalogue.update(func(st *catalogueState) error {
		for id := range st.Images {
			names := slices.Concat(namesOf(st.Names, id), namesOf(st.Digests, id))
			tagged := len(namesOf(st.Names, id)) > 0
			inUse, known := used[id]
			if tagged && !all || inUse || !known {
				continue
			}
			r := &removal{st: st, id: id}
			for _, n := range names {
				r.untag(n)
			}
			r.delete()
			removed = append(removed, r.done...)
		}
		if len(removed) == 0 {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil, 0, nil
	}
	if err == nil {
		err = s.collect(quiet(ctx))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("prune images: %w", s.explain(err))
	}
	after, err := s.DiskUsage(ctx)
	return removed, before - after, err
}

var errNothing = errors.New("nothing to do")

// DiskUsage is what blobs and unpacked layers take together, in bytes, each
// counted once. Containers are not in it, see [Store.Usage].
func (s *Store) DiskUsage(context.Context) (int64, error) {
	sizes := map[string]int64{}
	s.catalogue.read(func(st catalogueState, _ map[digest.Digest]*dockerspec.DockerOCIImage) {
		for _, rec := range st.Images {
			for _, l := range rec.Layers {
				sizes["blob "+l.Digest.String()] = l.BlobSize
				sizes["layer "+l.ChainID.String()] = l.Size
			}
		}
	})
	var sum int64
	for _, n := range sizes {
		sum += n
	}
	return sum, nil
}
