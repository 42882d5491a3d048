// Package explain says in plain sentences why a container ended, what it was
// short of, what confines it and how its process was made. The engine gathers
// the facts; what is said of them is worked out here, without asking anybody.
package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Container is all that is explained of one: the facts, and the sentences made
// of them.
type Container struct {
	ID, Name, Image, Status string
	Ending                  Ending
	Use                     Use
	Confinement             Confinement
	Program                 Program
	// Text has the answers in the order in which they are read.
	Text []Section
}

// Section is a question and its answers, a sentence or a few each.
type Section struct {
	Question string
	Answers  []string
}

// Explain fills in Text.
func (c *Container) Explain(now time.Time) {
	c.Ending.Cause = c.Ending.cause()
	c.Text = []Section{
		{c.Ending.question(), c.Ending.answers(now)},
		{c.Use.question(&c.Ending), c.Use.answers(&c.Ending, now)},
		{"What confines it?", c.Confinement.answers()},
		{"How is its process made?", c.Program.answers()},
	}
}

// length writes a duration as people say it.
func length(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// size writes bytes as people say them.
func size(n uint64) string { return units.BytesSize(float64(n)) }

// share is a part of a whole in percent.
func share(part, whole float64) string {
	if whole <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.0f %%", 100*part/whole)
}

// count writes a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// list joins words: a, b and c.
func list(words []string) string {
	switch n := len(words); n {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}
