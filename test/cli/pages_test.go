package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// pagePatience bounds one command of a page; it is never waited out when all is well.
const pagePatience = time.Minute

// TestPages types the ```console blocks of README.md and docs/*.md and compares
// what comes. Each page has an engine of its own with the image busybox, and a
// directory of its own. CONTRIBUTING.md has the rules for those who write pages.
func TestPages(t *testing.T) {
	var e *engine
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, name := range append([]string{"../../README.md"}, names...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := pageSteps(string(text))
		if err != nil {
			t.Fatalf("%s: %v", filepath.Base(name), err)
		}
		if len(steps) == 0 {
			continue
		}
		if e == nil {
			e = newEngine(t)
		}
		ran++
		t.Run(strings.TrimSuffix(filepath.Base(name), ".md"), func(t *testing.T) {
			t.Cleanup(func() { e.purge(t) }) // the next page finds nothing of this one
			e.importBusybox(t)
			e.typePage(t, steps)
		})
	}
	if ran == 0 {
		t.Error("no page has a console block")
	}
}

// step is a command of a page and the lines it must print.
type step struct {
	line    int
	command string
	want    []string
	// hidden steps prepare what a reader is assumed to have; their output does
	// not matter, their failure does.
	hidden bool
}

// pageSteps are the commands of a page, in order: those in blocks marked
// ```console, and those in comments that begin with the line "<!-- run".
func pageSteps(page string) ([]step, error) {
	var steps []step
	inside := ""
	fence := ""
	for i, line := range strings.Split(page, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case inside == "" && strings.HasPrefix(trimmed, "```"):
			inside, fence = trimmed[3:], "```"
			if inside == "" {
				inside = "text"
			}
		case inside == "" && trimmed == "<!-- run":
			inside, fence = "run", "-->"
		case inside != "" && trimmed == fence:
			inside = ""
		case inside == "run":
			steps = append(steps, step{line: i + 1, command: line, hidden: true})
		case inside == "console":
			var err error
			if steps, err = readLine(steps, i+1, line); err != nil {
				return nil, err
			}
		}
	}
	return steps, nil
}

// readLine takes a line of a console block: a command, the rest of one, or output.
func readLine(steps []step, number int, line string) ([]step, error) {
	if command, ok := strings.CutPrefix(line, "$ "); ok {
		return append(steps, step{line: number, command: command}), nil
	}
	if len(steps) == 0 || steps[len(steps)-1].hidden {
		return nil, fmt.Errorf("line %d: output before the first command", number)
	}
	last := &steps[len(steps)-1]
	more, continued := strings.CutPrefix(line, "> ")
	switch {
	case len(last.want) == 0 && continued:
		last.command += "\n" + more
	case len(last.want) == 0 && strings.HasSuffix(last.command, `\`):
		last.command += "\n" + line
	default:
		last.want = append(last.want, line)
	}
	return steps, nil
}

// typePage runs a page's steps in order.
func (e *engine) typePage(t *testing.T, steps []step) {
	t.Helper()
	home := filepath.Join(e.dir, "page")
	if err := os.RemoveAll(home); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		out, err := e.typeStep(home, s.command)
		if s.hidden && err != nil {
			t.Fatalf("line %d: %s: %v\n%s", s.line, s.command, err, out)
		}
		if s.hidden {
			continue
		}
		if err := matchLines(s.want, lines(out)); err != nil {
			t.Fatalf("line %d: $ %s\n%v\nit printed:\n%s", s.line, s.command, err, out)
		}
	}
}

// typeStep runs a command by a shell and returns what it prints, errors
// included. How it ends is told by err and matters to hidden steps only: of
// the others the page shows what is seen.
func (e *engine) typeStep(home, command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), pagePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = home
	cmd.Env = append(e.env(), "DOCKER_HOST=unix://"+filepath.Join(e.runRoot(), "berth.sock"), "DOCKER_CLI_HINTS=false", "LANG=C.UTF-8")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return out.String() + "\n(it did not end)\n", ctx.Err()
	}
	return out.String(), err
}

// lines are a text's lines without blanks at their ends and empty ones at the
// text's end.
func lines(text string) []string {
	all := strings.Split(strings.TrimRight(text, "\n\r\t "), "\n")
	for i := range all {
		all[i] = strings.TrimRight(all[i], "\r\t ")
	}
	if len(all) == 1 && all[0] == "" {
		return nil
	}
	return all
}

// matchLines compares what came with what a page shows.
func matchLines(want, have []string) error {
	for len(want) > 0 && want[len(want)-1] == "" {
		want = want[:len(want)-1]
	}
	if matchRest(want, have) {
		return nil
	}
	// The first line that cannot follow, for the message: all before it match.
	n := 0
	for n < len(want) && matchRest(append(want[:n+1:n+1], "..."), have) {
		n++
	}
	if n < len(want) {
		return fmt.Errorf("nothing matches %q", want[n])
	}
	return fmt.Errorf("it printed more than the page shows")
}

// matchRest is true when the lines match; a line of three dots stands for any
// number of lines.
func matchRest(want, have []string) bool {
	switch {
	case len(want) == 0:
		return len(have) == 0
	case strings.TrimSpace(want[0]) == "...":
		for skip := 0; skip <= len(have); skip++ {
			if matchRest(want[1:], have[skip:]) {
				return true
			}
		}
		return false
	case len(have) == 0 || !linePattern(want[0]).MatchString(have[0]):
		return false
	}
	return matchRest(want[1:], have[1:])
}

var (
	pageID    = regexp.MustCompile(`\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b`)
	pageBlank = regexp.MustCompile(`[ \t]+`)
)

// linePattern is what a line of a page matches: three dots are any text, an id
// of a container or an image is any id of its length, blanks are blanks.
func linePattern(line string) *regexp.Regexp {
	text := pageBlank.ReplaceAllString(strings.TrimRight(line, " \t"), " ")
	parts := strings.Split(text, "...")
	for i, part := range parts {
		quoted := regexp.QuoteMeta(part)
		quoted = pageID.ReplaceAllStringFunc(quoted, func(id string) string { return fmt.Sprintf("[0-9a-f]{%d}", len(id)) })
		parts[i] = strings.ReplaceAll(quoted, " ", `[ \t]+`)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
}

// TestPageRules holds the rules by which pages are compared.
func TestPageRules(t *testing.T) {
	page := strings.Join([]string{
		"<!-- run", "mkdir data", "-->", "```text", "$ not run", "```",
		"```console", "$ one \\", "    two", "1", "$ cat <<E", "> in", "> E", "in", "", "```",
	}, "\n")
	steps, err := pageSteps(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{line: 2, command: "mkdir data", hidden: true}, {line: 8, command: "one \\\n    two", want: []string{"1"}},
		{line: 11, command: "cat <<E\nin\nE", want: []string{"in", ""}},
	}
	if !reflect.DeepEqual(steps, want) {
		t.Errorf("steps\n%+v\nwant\n%+v", steps, want)
	}
	if _, err := pageSteps("```console\noutput\n```"); err == nil {
		t.Error("output without a command is taken")
	}
	for _, test := range []struct {
		want, have string
		ok         bool
	}{
		{"a\nb", "a\nb", true}, {"a", "b", false}, {"a", "a\nb", false}, {"a\nb", "a", false},
		{"a...c", "abbc", true}, {"a...", "a", true}, {"a...c", "ab", false},
		{"a\n...\nz", "a\nb\nc\nz", true}, {"a\n...\nz", "a\nz", true}, {"...", "", true},
		{"a  b", "a b", true}, {"a b", "ab", false}, {"a.b", "axb", false},
		{"65b824c50fee web", "0123456789ab web", true}, {"65b824c50fee", "0123456789xx", false},
	} {
		err := matchLines(lines(test.want), lines(test.have))
		if (err == nil) != test.ok {
			t.Errorf("%q against %q: %v", test.want, test.have, err)
		}
	}
}
