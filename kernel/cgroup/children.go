package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// Children are the names of the cgroups directly below the group, in any of its
// hierarchies, sorted.
func (g *Group) Children() ([]string, error) {
	var names []string
	for _, b := range g.branches {
		entries, err := os.ReadDir(b.dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list cgroups below %s: %w", g.path, err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
