package caps

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Sets are the five capability sets of a thread. The zero value has none.
type Sets struct {
	Bounding    Set
	Effective   Set
	Permitted   Set
	Inheritable Set
	Ambient     Set
}

// Parse reads the capabilities of an OCI process; nil means none. Names that are
// unknown are reported together in an [*UnknownError]; the sets are valid without
// them even then, for the specification wants such names warned about, not refused.
func Parse(c *specs.LinuxCapabilities) (Sets, error) {
	if c == nil {
		return Sets{}, nil
	}
	var unknown []string
	parse := func(list []string) Set {
		var s Set
		for _, name := range list {
			if c, err := ParseName(name); err == nil {
				s |= 1 << c
			} else {
				unknown = append(unknown, name)
			}
		}
		return s
	}
	s := Sets{
		Bounding:    parse(c.Bounding),
		Effective:   parse(c.Effective),
		Permitted:   parse(c.Permitted),
		Inheritable: parse(c.Inheritable),
		Ambient:     parse(c.Ambient),
	}
	if len(unknown) == 0 {
		return s, nil
	}
	slices.Sort(unknown)
	return s, &UnknownError{Names: slices.Compact(unknown)}
}

// Clamp removes from all five sets what is not in bounding, usually the bounding
// set of the process that starts the container: the kernel lets nobody raise
// those. What was removed is returned as well, to be told to somebody.
//
// A container in a new user namespace starts with a full bounding set and needs no
// clamping but to the kernel's capabilities, [Supported].
func (s Sets) Clamp(bounding Set) (kept, dropped Sets) {
	split := func(set Set) (Set, Set) { return set & bounding, set &^ bounding }
	kept.Bounding, dropped.Bounding = split(s.Bounding)
	kept.Effective, dropped.Effective = split(s.Effective)
	kept.Permitted, dropped.Permitted = split(s.Permitted)
	kept.Inheritable, dropped.Inheritable = split(s.Inheritable)
	kept.Ambient, dropped.Ambient = split(s.Ambient)
	return kept, dropped
}

// Union is the set of what is in any of the five: of dropped sets, what to report.
func (s Sets) Union() Set {
	return s.Bounding | s.Effective | s.Permitted | s.Inheritable | s.Ambient
}

// UserData is the argument of capset(2), version 3, for the effective, permitted
// and inheritable sets. The other two are set by prctl(2).
func (s Sets) UserData() [2]unix.CapUserData {
	low := unix.CapUserData{Effective: uint32(s.Effective), Permitted: uint32(s.Permitted), Inheritable: uint32(s.Inheritable)}
	high := unix.CapUserData{Effective: uint32(s.Effective >> 32), Permitted: uint32(s.Permitted >> 32), Inheritable: uint32(s.Inheritable >> 32)}
	return [2]unix.CapUserData{low, high}
}
