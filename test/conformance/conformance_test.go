//go:build conformance

// Package conformance runs the public suite of the OCI runtime specification
// against berth-oci.
package conformance

import (
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRuntimeTools runs opencontainers/runtime-tools. expected.txt names the
// programs that fail with runc and crun too on such hosts, or that need a part
// of the specification berth-oci refuses, each with its reason; a program that
// fails and is not there fails this test, and so does one that is there and
// passes with every assertion.
func TestRuntimeTools(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, out := t.TempDir(), t.TempDir()
	// Root of a user namespace is nobody on the way to the bundles.
	if err := os.Chmod(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "berth-oci"), "../../cmd/berth-oci"},
		{"bash", "prepare-oci-validation.sh", dir},
	} {
		if msg, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", step, err, msg)
		}
	}
	// Its exit status only says that something failed: the table tells more.
	msg, _ := exec.Command("./run-oci-validation.sh", filepath.Join(dir, "berth-oci"), dir, out).CombinedOutput()
	f, err := os.Open(filepath.Join(out, "summary.tsv"))
	if err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	defer f.Close()
	table := csv.NewReader(f)
	table.Comma = '\t'
	rows, err := table.ReadAll()
	if err != nil || len(rows) < 50 {
		t.Fatalf("only %d programs ran: %v\n%s", len(rows), err, msg)
	}
	reasons := expected(t)
	for _, row := range rows {
		name, verdict := row[0], row[1]
		t.Run(name, func(t *testing.T) {
			reason, mayFail := reasons[name]
			switch {
			case verdict == "FAIL" && !mayFail:
				tap, _ := os.ReadFile(filepath.Join(out, name+".tap"))
				stderr, _ := os.ReadFile(filepath.Join(out, name+".err"))
				t.Errorf("fails:\n%s\n%s", tap, stderr)
			case verdict == "FAIL":
				t.Logf("fails as expected: %s", reason)
			case verdict == "PASS" && mayFail:
				t.Errorf("passes, but expected.txt says: %s", reason)
			}
		})
	}
}

func expected(t *testing.T) map[string]string {
	b, err := os.ReadFile("expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, line := range strings.Split(string(b), "\n") {
		if name, reason, ok := strings.Cut(line, "#"); ok && strings.TrimSpace(name) != "" {
			reasons[strings.TrimSpace(name)] = strings.TrimSpace(reason)
		}
	}
	return reasons
}
