package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestExamples: help, and so the manual pages, have them; what they show are
// commands that exist.
func TestExamples(t *testing.T) {
	root := newRoot(&app{}, nil)
	n := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Hidden || sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			if sub.Example != "" {
				n++
			}
			for line := range strings.Lines(sub.Example) {
				words := strings.Fields(line)
				if found, _, err := root.Find(words[1:]); words[0] != "berth" || err != nil || found == root {
					t.Errorf("%s: example %q is no command: %v", sub.CommandPath(), line, err)
				}
			}
			visit(sub)
		}
	}
	visit(root)
	if n < 60 {
		t.Errorf("only %d commands have examples", n)
	}
}
