package engine

import (
	"context"
	"slices"

	"github.com/berth-containers/berth/image"
	"github.com/moby/moby/api/types/container"
)

// ContainerChanges lists what a container's own files change of its image, nil
// for nothing. What is mounted is no part of it, nor are the places that a start
// makes for the mounts every container has.
func (e *Engine) ContainerChanges(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	list, err := e.images.Changes(ctx, c.id)
	if err != nil {
		return nil, err
	}
	var changes []container.FilesystemChange
	for _, ch := range withoutMountPoints(list) {
		changes = append(changes, container.FilesystemChange{Path: ch.Path, Kind: container.ChangeType(ch.Kind)})
	}
	return changes, nil
}

// withoutMountPoints drops what every start makes, and /etc when only that has
// changed in it.
func withoutMountPoints(list []image.Change) []image.Change {
	own := map[string]bool{}
	for _, m := range defaultMounts() {
		own[m.Destination] = true
	}
	for _, name := range []string{fileHosts, fileHostname, fileResolv} {
		own["/etc/"+name] = true
	}
	dropped := false
	list = slices.DeleteFunc(list, func(ch image.Change) bool {
		drop := ch.Kind == image.Added && own[ch.Path]
		dropped = dropped || drop
		return drop
	})
	alone := !slices.ContainsFunc(list, func(ch image.Change) bool { return len(ch.Path) > 5 && ch.Path[:5] == "/etc/" })
	return slices.DeleteFunc(list, func(ch image.Change) bool { return dropped && alone && ch.Path == "/etc" })
}
