//go:build vm

package vm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// results repeats the outcome of each top-level test as a test of this one, with
// what a failed one said, and tells why the machine's command failed: what it
// said last, if no test says it.
func results(t *testing.T, out string, err error) map[string]string {
	t.Helper()
	ran := map[string]string{}
	failed := false
	for _, o := range outcomes(out) {
		ran[o.name] = o.verdict
		t.Run(o.name, func(t *testing.T) {
			switch o.verdict {
			case "FAIL":
				failed = true
				t.Errorf("failed in the virtual machine:\n%s", shortened(o.said))
			case "PASS":
				for _, line := range o.said {
					t.Log("flaky:", line)
				}
			case "SKIP":
				t.Skip("skipped in the virtual machine")
			case "":
				failed = true
				t.Errorf("did not end in the virtual machine:\n%s", shortened(o.said))
			}
		})
	}
	switch {
	case err != nil && failed:
		t.Error(err)
	case err != nil:
		t.Errorf("%v\n%s", err, shortened(strings.Split(out, "\n")))
	}
	return ran
}

// outcome is what became of a top-level test.
type outcome struct {
	name    string   // PACKAGE/TEST
	verdict string   // PASS, FAIL, SKIP; empty: it did not end
	said    []string // by it and those of its subtests that did not pass, at first if it ran twice
}

// outcomes reads what `-test.v` prints, with a line "== PACKAGE" before each
// binary's. A line belongs to the test that the last "===" line names. A test may
// run a second time.
func outcomes(out string) []outcome {
	type line struct{ test, text string }
	var (
		pkg, test string
		all       []outcome
		index     = map[string]int{}    // of a top-level test in all
		verdicts  = map[string]string{} // of all tests
		flaky     = map[string]bool{}
		lines     = map[string][]line{} // by top-level test
		top       = func(s string) string { s, _, _ = strings.Cut(s, "/"); return s }
		key       = func(s string) string { return pkg + "/" + s }
	)
	for _, text := range strings.Split(out, "\n") {
		if name, ok := strings.CutPrefix(text, "== "); ok {
			pkg, test = name, ""
			continue
		}
		what, name := marker(text)
		switch what {
		case "RUN", "NAME", "CONT", "PAUSE":
			test = name
			if _, ok := index[key(top(name))]; !ok {
				index[key(top(name))] = len(all)
				all = append(all, outcome{name: key(top(name))})
			}
			continue
		case "PASS", "FAIL", "SKIP":
			if verdicts[key(name)] == "FAIL" && what == "PASS" {
				flaky[key(name)] = true
			}
			verdicts[key(name)] = what
			test = name
		}
		if test != "" && text != "" && what != "PASS" {
			lines[key(top(test))] = append(lines[key(top(test))], line{key(test), text})
		}
	}
	for i := range all {
		all[i].verdict = verdicts[all[i].name]
		for _, l := range lines[all[i].name] {
			if verdicts[l.test] != "PASS" || flaky[l.test] {
				all[i].said = append(all[i].said, l.text)
			}
		}
	}
	return all
}

// marker returns what a line tells of which test; nothing if it is what a test
// said.
func marker(line string) (what, test string) {
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "===" && strings.HasPrefix(line, "==="):
		return f[1], f[2]
	case len(f) == 4 && f[0] == "---":
		return strings.TrimSuffix(f[1], ":"), f[2]
	}
	return "", ""
}

// shortened leaves out the middle of what has many lines: what a test found comes
// first, where a process ended last.
func shortened(lines []string) string {
	const first, last = 30, 30
	if more := len(lines) - first - last; more > 0 {
		lines = slices.Concat(lines[:first], []string{fmt.Sprintf("[... %d lines ...]", more)}, lines[len(lines)-last:])
	}
	return strings.Join(lines, "\n")
}

// TestOutcomes: what a failed test said is found among what others say, and so is
// one that did not come to an end.
func TestOutcomes(t *testing.T) {
	const out = `booting
== kernel/caps
=== RUN   TestSet
--- PASS: TestSet (0.00s)
=== RUN   TestDrop
    caps_test.go:10: noise
=== RUN   TestDrop/good
    caps_test.go:11: more noise
=== RUN   TestDrop/bad
    caps_test.go:12: got 1
        want 2
=== NAME  TestDrop
    caps_test.go:20: in all: 3
--- FAIL: TestDrop (0.02s)
    --- PASS: TestDrop/good (0.00s)
    --- FAIL: TestDrop/bad (0.01s)
=== RUN   TestAbsent
    caps_test.go:30: no such thing
--- SKIP: TestAbsent (0.00s)
FAIL
== keeper
=== RUN   TestSet
=== PAUSE TestSet
=== CONT  TestSet
panic: oh

goroutine 1 [running]:
== oci
=== RUN   TestState
    state_test.go:5: got 1
--- FAIL: TestState (0.00s)
FAIL
=== RUN   TestState
--- PASS: TestState (0.00s)
PASS
`
	want := []outcome{
		{"kernel/caps/TestSet", "PASS", nil},
		{"kernel/caps/TestDrop", "FAIL", []string{
			"    caps_test.go:10: noise", "    caps_test.go:12: got 1", "        want 2", "    caps_test.go:20: in all: 3",
			"--- FAIL: TestDrop (0.02s)", "    --- FAIL: TestDrop/bad (0.01s)",
		}},
		{"kernel/caps/TestAbsent", "SKIP", []string{"    caps_test.go:30: no such thing", "--- SKIP: TestAbsent (0.00s)", "FAIL"}},
		{"keeper/TestSet", "", []string{"panic: oh", "goroutine 1 [running]:"}},
		{"oci/TestState", "PASS", []string{"    state_test.go:5: got 1", "--- FAIL: TestState (0.00s)", "FAIL", "PASS"}},
	}
	got := outcomes(out)
	if !slices.EqualFunc(got, want, func(a, b outcome) bool {
		return a.name == b.name && a.verdict == b.verdict && slices.Equal(a.said, b.said)
	}) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestShortened(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprint(i))
	}
	got := strings.Split(shortened(lines), "\n")
	if len(got) != 61 || got[29] != "29" || got[30] != "[... 40 lines ...]" || got[31] != "70" || got[60] != "99" {
		t.Errorf("%q", got)
	}
}
