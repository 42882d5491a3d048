package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// PruneOptions say what a Prune removes.
type PruneOptions struct {
	// All removes images with a name too.
	All bool
	// Keep, when not nil, tells what to keep all the same.
	Keep func(*Image) bool
}

// Prune removes the images that have no name, no container and none that was
// made from them, or, with All, every image that has no container. It returns
// what went and how many bytes that gave back: what containers still stand on
// is not among them.
func (s *Store) Prune(ctx context.Context, opts PruneOptions) (removed []Removed, reclaimed int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prune images: %w", s.explain(err))
		}
	}()
	list, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := s.downloads.sweep(true); err != nil {
		return nil, 0, err
	}
	candidates := map[digest.Digest]bool{} // asked while no lock is held
	for _, img := range list {
		candidates[img.ID] = len(s.users(img.ID)) == 0 && (opts.Keep == nil || !opts.Keep(img))
	}
	before, err := s.DiskUsage(ctx)
	if err != nil {
		return nil, 0, err
	}
	err = s.catalogue.update(func(st *catalogueState) error {
		removed = st.prune(candidates, opts.All)
		if len(removed) == 0 {
			return errNothing
		}
		return nil
	})
	if err == nil || errors.Is(err, errNothing) { // layers may have lost their container
		err = s.collect(quiet(ctx))
	}
	if err != nil {
		return nil, 0, err
	}
	after, err := s.DiskUsage(ctx)
	return removed, before.Total - after.Total, err
}

var errNothing = errors.New("nothing to do")

// prune removes candidates, those that others were made from after these.
func (st *catalogueState) prune(candidates map[digest.Digest]bool, all bool) (removed []Removed) {
	for again := true; again; {
		again = false
		for id := range st.Images {
			if !candidates[id] || len(namesOf(st.Names, id)) > 0 && !all || st.hasChildren(id) {
				continue
			}
			r := &removal{st: st, id: id, RemoveOptions: RemoveOptions{NoPrune: true}}
			for _, n := range slices.Concat(namesOf(st.Names, id), namesOf(st.Digests, id)) {
				r.untag(n)
			}
			r.delete()
			removed, again = append(removed, r.done...), true
		}
	}
	return removed
}
