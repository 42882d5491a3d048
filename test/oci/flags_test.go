package oci

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFlagsOfRunc: every command of the installed runc is one here, with every
// option it has.
func TestFlagsOfRunc(t *testing.T) {
	needRoot(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc to compare with")
	}
	// "   --bundle value, -b value   path to ...", and "  -bundle directory".
	option := regexp.MustCompile(`(?m)^ +(-{1,2}[a-z][a-z0-9-]*)(?: value)?(?:, (-{1,2}[a-z][a-z0-9-]*))?`)
	options := func(text string) map[string]bool {
		names := map[string]bool{}
		for _, found := range option.FindAllStringSubmatch(text, -1) {
			for _, name := range found[1:] {
				names[strings.TrimLeft(name, "-")] = true
			}
		}
		return names
	}
	help := func(program string, args ...string) string {
		out, _ := exec.Command(program, append(args, "--help")...).CombinedOutput() // help may be a failure
		return string(out)
	}
	berth := filepath.Join(built, "berth-oci")
	_, commands, _ := strings.Cut(help(runc), "COMMANDS:")
	commands, _, _ = strings.Cut(commands, "GLOBAL OPTIONS:")
	names := []string{}
	for _, line := range strings.Split(commands, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] != "help," && f[0] != "init" {
			names = append(names, f[0])
		}
	}
	if len(names) < 16 || !slices.Contains(names, "restore") {
		t.Fatalf("commands %q", names)
	}
	compared := 0
	for _, name := range names {
		_, text, _ := strings.Cut(help(runc, name), "OPTIONS:")
		have := options(help(berth, name))
		for wanted := range options(text) {
			if compared++; wanted != "" && wanted != "help" && wanted != "h" && !have[wanted] {
				t.Errorf("%s has no --%s", name, wanted)
			}
		}
	}
	if compared < 60 {
		t.Errorf("only %d options compared: this test tests nothing", compared)
	}
}
