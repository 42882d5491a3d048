package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// similarMost is how many names are suggested.
const similarMost = 3

// similar picks the names that somebody who wrote ref may have meant: a slip
// of the keyboard away, or with ref as their beginning. The nearest come first.
func similar(ref string, names []string) []string {
	type near struct {
		name string
		away int
	}
	var found []near
	most := min(2, len(ref)/3) // of a short word nearly all is left to a guess
	for _, name := range names {
		away := distance(strings.ToLower(ref), strings.ToLower(name), most)
		if len(ref) >= 3 && strings.HasPrefix(strings.ToLower(name), strings.ToLower(ref)) {
			away = min(away, 1)
		}
		if name != ref && away <= max(most, 1) && (most > 0 || away == 0) {
			found = append(found, near{name, away})
		}
	}
	slices.SortFunc(found, func(a, b near) int {
		if a.away != b.away {
			return a.away - b.away
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, f := range found[:min(len(found), similarMost)] {
		out = append(out, f.name)
	}
	return out
}

// distance is how many characters have to be changed, added, left out or
// swapped with their neighbour to come from a to b (optimal string alignment);
// more than most is only told as more.
func distance(a, b string, most int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) > most || len(y)-len(x) > most {
		return most + 1
	}
	before, last := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			change := last[j-1]
			if x[i-1] != y[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}

// suggesting gives an error of what was not found the names that were perhaps
// meant as its hint, before the hint it has; without any it is as it was.
func suggesting(err error, ref string, names []string) error {
	meant := similar(ref, names)
	if len(meant) == 0 {
		return err
	}
	hint := "did you mean " + strings.Join(meant, " or ") + "?"
	if old := errdefs.Hint(err); old != "" {
		hint += " Else " + old
	}
	return errdefs.WithHint(err, hint)
}

// suggestImage is suggesting with the names of images, for an error that says
// that there is none called ref; another error is left as it is.
func (e *Engine) suggestImage(ctx context.Context, err error, ref string) error {
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	list, listErr := e.images.List(ctx)
	if listErr != nil {
		return err // a hint is not worth another error
	}
	var names []string
	for i := range list {
		for _, tag := range list[i].RepoTags {
			names = append(names, strings.TrimSuffix(familiar(tag), ":latest"))
		}
	}
	return suggesting(err, ref, names)
}
