package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// rollback remembers what control files held, so that a change of several
// limits of which one is refused leaves none.
type rollback struct {
	olds []old
}

// old is what a setting's file held: all of it or, of a file with a line for
// each device, the line in question.
type old struct {
	b           *branch
	file, value string
}

// note remembers what s and what stands in for it are about to overwrite. A file
// that cannot be read is left out: writing it will tell why.
func (r *rollback) note(g *Group, s *setting) {
	for ; s != nil; s = s.otherwise {
		b := g.branch(s.controller)
		now, err := b.read(s.file)
		if err != nil {
			continue
		}
		o := old{b: b, file: s.file, value: strings.TrimSpace(now)}
		if s.unset != "" {
			o.value = lineOf(now, s.unset)
		} else if rest, ok := strings.CutPrefix(o.value, "default "); ok {
			o.value, _, _ = strings.Cut(rest, "\n") // of weights, which have lines for devices too
		} else if s.file == "memory.oom_control" {
			n, _ := keyed(now, "oom_kill_disable")
			o.value = fmt.Sprint(n)
		}
		r.olds = append(r.olds, o)
	}
}

// lineOf finds the line of the device that is unset's first word; unset itself
// when there is none, which says the same.
func lineOf(content, unset string) string {
	device, _, _ := strings.Cut(unset, " ")
	for line := range strings.Lines(content) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, device+" ") {
			return line
		}
	}
	return unset
}

// run writes all of it back, the last first. As limits depend on one another,
// what the kernel refuses is tried again after the rest.
func (r *rollback) run() error {
	left := slices.Clone(r.olds)
	slices.Reverse(left)
	var errs []error
	for range 2 {
		errs = nil
		var again []old
		for _, o := range left {
			err := o.b.write(o.file, cmp.Or(o.value, "\n")) // of nothing nothing would be written
			if err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("take back: %w", err))
				again = append(again, o)
			}
		}
		left = again
	}
	return errors.Join(errs...)
}
