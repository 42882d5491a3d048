package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/render"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

func newExplain(a *app) *cobra.Command {
	var format string
	var program bool
	cmd := verb("explain [OPTIONS] CONTAINER", "Say why a container ended, what it lacked, what confines it, how it is made", 1, 1,
		func(cmd *cobra.Command, args []string) error {
			return a.explain(cmd.Context(), args[0], format, program)
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().BoolVar(&program, "program", false, "Show the whole program of system calls that makes its process")
	cmd.ValidArgsFunction = a.completeContainer(anyState)
	return cmd
}

func (a *app) explain(ctx context.Context, ref, format string, program bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	raw, err := c.ContainerExplain(ctx, ref)
	if err != nil {
		return err
	}
	var e client.Explanation
	if format != "" && !render.IsJSON(format) {
		var all any
		return a.printObject(format, raw, &all)
	}
	if format != "" {
		return a.printObject(format, raw, &e)
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("decode the engine's explanation: %w", err)
	}
	if program {
		if e.Program.Problem != "" {
			return errors.New(e.Program.Problem)
		}
		_, err := io.WriteString(a.out, e.Program.Listing)
		return err
	}
	_, err = io.WriteString(a.out, explanation(&e, a.width()))
	return err
}

// width is how many characters a line of the output has; 0 for any number.
func (a *app) width() int {
	if !terminal.Is(a.out) {
		return 0
	}
	_, w := terminal.Size(a.out)
	return int(w)
}

// explanation is the text, in lines of at most width characters.
func explanation(e *client.Explanation, width int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%.12s, image %s): %s\n", e.Name, e.ID, e.Image, e.Status)
	for _, s := range e.Text {
		fmt.Fprintf(&b, "\n%s\n", s.Question)
		for _, answer := range s.Answers {
			b.WriteString(folded(answer, "  - ", "    ", width))
		}
	}
	return b.String()
}

// folded breaks a text into lines: the first begins with head, others with rest.
func folded(text, head, rest string, width int) string {
	var b strings.Builder
	line := head
	empty := true
	for word := range strings.FieldsSeq(text) {
		switch {
		case empty:
			line += word
		case width > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			b.WriteString(line + "\n")
			line = rest + word
		default:
			line += " " + word
		}
		empty = false
	}
	return b.String() + line + "\n"
}
