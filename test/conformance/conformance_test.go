//go:build conformance

// Package conformance runs the public suite of the OCI runtime specification
// against berth-oci: on this host, and on a kernel with pure cgroup v2.
package conformance

import (
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRuntimeTools runs opencontainers/runtime-tools. The file expected.txt
// names the programs that fail with runc and crun too on such hosts, each with
// its reason; a program that fails and is not there fails this test, and so
// does one that is there and passes with every assertion. expected-v2.txt is
// the same for the virtual machine.
func TestRuntimeTools(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := prepare(t)
	t.Run("host", func(t *testing.T) {
		out := filepath.Join(dir, "host")
		// Its exit status only says that something failed: the table tells more.
		msg, _ := exec.Command("./run-oci-validation.sh", filepath.Join(dir, "berth-oci"), dir, out).CombinedOutput()
		compare(t, out, readExpected(t, "expected.txt"), 50, msg)
	})
	t.Run("cgroup v2", func(t *testing.T) {
		vmrun, err := filepath.Abs("../vm/vmrun")
		if err != nil {
			t.Fatal(err)
		}
		reasons := readExpected(t, "expected-v2.txt")
		argv := append([]string{"--timeout", "900", "--dir", dir, "--", "bash", "./in-vm.sh", "./berth-oci", "."}, worthwhile(t, dir, reasons)...)
		msg, _ := exec.Command(vmrun, argv...).CombinedOutput()
		compare(t, filepath.Join(dir, "v2"), reasons, 40, msg)
	})
}

// worthwhile lists the programs that can tell something where there is no
// cgroup version 1: the machine is slow.
func worthwhile(t *testing.T, dir string, reasons map[string]string) (names []string) {
	t.Helper()
	programs, err := os.ReadDir(filepath.Join(dir, "t"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if reasons[p.Name()] != "reads cgroup version 1" {
			names = append(names, p.Name())
		}
	}
	return names
}

// prepare builds the suite and berth-oci into a directory.
func prepare(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-conformance")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// Root of a user namespace is nobody on the way to the bundles.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range [][]string{
		{"make", "-s", "-C", "../..", "build", "BIN=" + dir, "BINARIES=berth-oci"},
		{"bash", "prepare-oci-validation.sh", dir},
		{"cp", "run-oci-validation.sh", "in-vm.sh", dir},
	} {
		if msg, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", step, err, msg)
		}
	}
	return dir
}

// compare holds the results in a directory, of at least so many programs, to
// what is expected. msg is what the suite printed.
func compare(t *testing.T, out string, reasons map[string]string, least int, msg []byte) {
	t.Helper()
	f, err := os.Open(filepath.Join(out, "summary.tsv"))
	if err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	defer f.Close()
	table := csv.NewReader(f)
	table.Comma = '\t'
	rows, err := table.ReadAll()
	if err != nil || len(rows) < least {
		t.Fatalf("only %d programs ran: %v\n%s", len(rows), err, msg)
	}
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
				t.Errorf("passes, but is expected to fail: %s", reason)
			}
		})
	}
}

func readExpected(t *testing.T, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
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
