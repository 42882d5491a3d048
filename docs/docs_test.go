// Package docs checks the project's texts against the project: links lead
// somewhere, commands exist, lists are complete.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

// pages returns the project's texts by their path below root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			rel, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			found[rel] = read(t, rel)
		}
	}
	for _, must := range []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/security.md", "docs/dependencies.md"} {
		if found[must] == "" {
			t.Errorf("%s is missing", must)
		}
	}
	return found
}

func read(t *testing.T, rel string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	linkPattern    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headingPattern = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	fencePattern   = regexp.MustCompile("(?ms)^```.*?^```$")
)

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	n := 0
	for page, text := range all {
		for _, m := range linkPattern.FindAllStringSubmatch(fencePattern.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			n++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s links to %s: no such heading", page, m[1])
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d links found", n)
	}
}

// anchors are the fragments a page's headings get: lower case, punctuation
// dropped, blanks turned into hyphens.
func anchors(text string) []string {
	drop := regexp.MustCompile(`[^a-z0-9 _-]`)
	var out []string
	for _, m := range headingPattern.FindAllStringSubmatch(fencePattern.ReplaceAllString(text, ""), -1) {
		out = append(out, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// commands in texts: what follows the program's name at the start of a code
// span or of a line in a code block.
var codePattern = regexp.MustCompile("(?m)(?:`|^(?:[#$] )?(?:[A-Z_]+=\\S+ |time )*)((?:\\./)?(?:bin/)?(?:berth|berth-oci|berthd|make|test/run) [^`\n]*)")

func TestCommandsExist(t *testing.T) {
	known := map[string][]string{
		"make":      makeTargets(t),
		"berth":     subcommands(t, "berth"),
		"berth-oci": subcommands(t, "berth-oci"),
		"test/run":  suites(t),
	}
	seen := map[string]bool{}
	for page, text := range pages(t) {
		for _, m := range codePattern.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])
			program := strings.TrimPrefix(strings.TrimPrefix(words[0], "./"), "bin/")
			list, ok := known[program]
			if !ok || len(words) < 2 || !regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(words[1]) {
				continue
			}
			seen[program+" "+words[1]] = true
			if !slices.Contains(list, words[1]) {
				t.Errorf("%s says %q: %s has no %s", page, m[1], program, words[1])
			}
		}
	}
	for _, must := range []string{"make demo", "make test", "make clean-host", "berth run", "berth ps", "berth-oci explain"} {
		if !seen[must] {
			t.Errorf("%q was not found in any page", must)
		}
	}
}

func makeTargets(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		out = append(out, m[1])
	}
	return out
}

// help returns what a program of the project prints with --help.
func help(t *testing.T, program string) string {
	t.Helper()
	cmd := exec.Command("go", "run", "./cmd/"+program, "--help")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s --help: %v\n%s", program, err, out)
	}
	return string(out)
}

// subcommands are the words that begin an indented line of the help.
func subcommands(t *testing.T, program string) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) `).FindAllStringSubmatch(help(t, program), -1) {
		out = append(out, m[1])
	}
	if len(out) < 10 {
		t.Fatalf("%s --help shows only %q", program, out)
	}
	return out
}

func suites(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("./test/run", "--list")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("test/run --list: %v", err)
	}
	return strings.Fields(string(out))
}

// placesOfTheProduct begin the absolute paths a text may name: the product's
// own, those of every Linux system, what examples call a container's
// directories, and what inspect shows as containers' names.
var placesOfTheProduct = []string{
	"/var/lib/berth", "/var/cache/berth-demo", "/run", "/var/run", "/etc", "/berth", "/proc", "/sys", "/dev", "/bin/", "/usr/",
	"/tmp", "/containers/", "/..", "/demo-", "/data", "/mnt", "/srv", "/app", "/root", "/metrics", "/debug",
}

// Texts must not name paths of a machine they were written on.
func TestPathsAreEverybodys(t *testing.T) {
	path := regexp.MustCompile("(?m)(?:^|[\\s`\"'(=])(/[A-Za-z.][A-Za-z0-9_./-]*)")
	for page, text := range pages(t) {
		for _, m := range path.FindAllStringSubmatch(text, -1) {
			ok := slices.ContainsFunc(placesOfTheProduct, func(p string) bool { return strings.HasPrefix(m[1], p) })
			if !ok {
				t.Errorf("%s names %s", page, m[1])
			}
		}
	}
}

func TestDependenciesAreExplained(t *testing.T) {
	want := directRequirements(t)
	var have []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(read(t, "docs/dependencies.md"), -1) {
		have = append(have, m[1])
	}
	for _, module := range want {
		if !slices.Contains(have, module) {
			t.Errorf("docs/dependencies.md does not explain %s", module)
		}
	}
	for _, module := range have {
		if !slices.Contains(want, module) {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require directly", module)
		}
	}
}

// directRequirements are go.mod's modules without "// indirect", and those of
// its tools.
func directRequirements(t *testing.T) []string {
	t.Helper()
	gomod := read(t, "go.mod")
	var out, tools []string
	for _, m := range regexp.MustCompile(`(?m)^tool (\S+)$`).FindAllStringSubmatch(gomod, -1) {
		tools = append(tools, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:require |\t)(\S+) v\S+( // indirect)?$`).FindAllStringSubmatch(gomod, -1) {
		tool := slices.ContainsFunc(tools, func(path string) bool { return strings.HasPrefix(path, m[1]+"/") })
		if m[2] == "" || tool {
			out = append(out, m[1])
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %q found in go.mod", out)
	}
	return out
}

// The manual pages written by hand have all options and commands, and no others.
func TestManualPagesAreComplete(t *testing.T) {
	option := regexp.MustCompile(`--([a-z][a-z-]*)`)
	flags := func(text string) []string { return unique(option.FindAllStringSubmatch(text, -1)) }
	page := strings.ReplaceAll(read(t, "docs/man/berthd.8"), `\-`, "-")
	compare(t, "berthd.8", flags(page), append(flags(help(t, "berthd")), "help"))

	page = strings.ReplaceAll(read(t, "docs/man/berth-oci.8"), `\-`, "-")
	_, page, _ = strings.Cut(page, ".SH COMMANDS")
	page, _, _ = strings.Cut(page, ".PP\n")
	command := regexp.MustCompile(`(?m)^\.(?:BI|B) ([a-z]+)|\\fP (resume)"`)
	compare(t, "berth-oci.8", unique(command.FindAllStringSubmatch(page, -1)), subcommands(t, "berth-oci"))
}

// unique returns the matches' groups, each once.
func unique(matches [][]string) []string {
	var out []string
	for _, m := range matches {
		for _, group := range m[1:] {
			if group != "" && !slices.Contains(out, group) {
				out = append(out, group)
			}
		}
	}
	return out
}

func compare(t *testing.T, page string, have, want []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(have, w) {
			t.Errorf("%s lacks %s", page, w)
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			t.Errorf("%s has %s, which there is not", page, h)
		}
	}
}
