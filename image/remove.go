package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// RemoveOptions say how far a removal goes.
type RemoveOptions struct {
	// Force removes all names of an image given by its ID, and an image that a
	// stopped container was made from.
	Force bool
	// NoPrune keeps the images without a name that the removed one was made
	// from by commits; they go with it otherwise, when nobody uses them.
	NoPrune bool
}

// Remove removes what ref says, by Docker's rules. A name is taken off its
// image; with its last name the image goes too. An ID removes the image if it
// has one name, or with force. A container that uses the image is in the way:
// force overrules one that does not run (its layers stay with it), nothing
// overrules one that runs. An image that another was committed from only loses
// its names. The error of what is in the way is an errdefs.ErrConflict.
func (s *Store) Remove(ctx context.Context, ref string, opts RemoveOptions) (removed []Removed, err error) {
	img, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	users := s.usersOfLine(ctx, img) // asked while no lock is held
	err = s.catalogue.update(func(st *catalogueState) error {
		f, err := st.lookup(ref)
		if err == nil && f.id != img.ID {
			err = errdefs.As(errdefs.ErrConflict, fmt.Errorf("remove image %s: the name has just been given to another image", ref))
		}
		if err != nil {
			return err
		}
		r := &removal{st: st, id: f.id, RemoveOptions: opts, users: users}
		if f.name != "" {
			err = r.name(f.name)
		} else {
			err = r.image()
		}
		removed = r.done
		return err
	})
	if errors.Is(err, errdefs.ErrConflict) {
		return nil, err
	}
	if err == nil {
		err = s.collect(quiet(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("remove image %s: %w", ref, s.explain(err))
	}
	return removed, nil
}

// usersOfLine asks for the users of an image and of those it was made from.
func (s *Store) usersOfLine(ctx context.Context, img *Image) map[digest.Digest][]User {
	users := map[digest.Digest][]User{}
	for img != nil {
		if _, seen := users[img.ID]; seen {
			break
		}
		users[img.ID] = s.users(img.ID)
		parent := img.Parent
		if img = nil; parent != "" {
			img, _ = s.Get(ctx, parent.String()) // it may be gone
		}
	}
	return users
}

func (s *Store) users(id digest.Digest) []User {
	if s.opts.Users == nil {
		return nil
	}
	return s.opts.Users(id)
}

// removal decides and changes the state; nothing of it counts after an error.
type removal struct {
	RemoveOptions
	st    *catalogueState
	id    digest.Digest
	users map[digest.Digest][]User
	done  []Removed
}

// name takes one name off the image, and the image with its last one.
func (r *removal) name(name string) error {
	tags, digests := namesOf(r.st.Names, r.id), namesOf(r.st.Digests, r.id)
	last := len(tags)+len(digests) <= 1 || len(tags) == 1 && tags[0] == name
	if last && !r.Force && len(r.users[r.id]) > 0 {
		return errdefs.WithHint(
			errdefs.As(errdefs.ErrConflict, fmt.Errorf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				familiar(name), shortContainer(r.users[r.id][0]), short(r.id))),
			"remove the container first, or use force")
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
	if r.inUse(true) != nil || r.st.hasChildren(r.id) {
		return nil // the image stays, without a name, for who runs it or was made from it
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
	if r.st.hasChildren(r.id) {
		return r.conflict("cannot be forced", "image has dependent child images", "remove the images made from it first; `berth images -a` lists them")
	}
	if err := r.inUse(r.Force); err != nil {
		return err
	}
	if !r.Force && (len(repositories) > 1 || len(tags) > 1) {
		return r.conflict("must be forced", "image is referenced in multiple repositories",
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

// delete deletes the image, and those it was made from that nobody can mean any
// more.
func (r *removal) delete() {
	for id := r.id; ; {
		parent := r.st.Images[id].Parent
		r.st.remove(id)
		r.done = append(r.done, Removed{Deleted: id})
		if _, ok := r.st.Images[parent]; !ok || r.NoPrune || len(r.users[parent]) > 0 || r.st.hasChildren(parent) ||
			len(namesOf(r.st.Names, parent))+len(namesOf(r.st.Digests, parent)) > 0 {
			return
		}
		id = parent
	}
}

// inUse is the conflict with a container, of all or only of those that run.
func (r *removal) inUse(running bool) error {
	for _, u := range r.users[r.id] {
		switch {
		case u.Running:
			return r.conflict("cannot be forced", "image is being used by running container "+shortContainer(u), "stop and remove the container first")
		case !running:
			return r.conflict("must be forced", "image is being used by stopped container "+shortContainer(u), "remove the container first, or use force")
		}
	}
	return nil
}

// conflict is an error in the words that Docker's tools look for.
func (r *removal) conflict(force, why, hint string) error {
	return errdefs.WithHint(
		errdefs.As(errdefs.ErrConflict, fmt.Errorf("conflict: unable to delete %s (%s) - %s", short(r.id), force, why)), hint)
}

func shortContainer(u User) string { return u.ContainerID[:min(len(u.ContainerID), shortDigestSize)] }

// hasChildren tells whether an image was committed from this one.
func (st catalogueState) hasChildren(id digest.Digest) bool {
	for _, rec := range st.Images {
		if rec.Parent == id {
			return true
		}
	}
	return false
}
