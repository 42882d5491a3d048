//go:build vm

package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// engineTests are those of test/peers that look at what is different there; the
// machine is too slow for all.
const engineTests = "TestCaller|TestContainerd/(life|exec|terminal|limits|processes)|" +
	"TestPodman/(run|life|exec|terminal|pod|update|user|AppArmor)|TestDocker/(life|exec|terminal|bridge|update|out|AppArmor)"

// TestEngines runs Podman, containerd, Docker and the caller of test/peers on
// pure cgroup v2, with their AppArmor profiles.
func TestEngines(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "berth-vm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, argv := range [][]string{
		{"go", "test", "-c", "-tags", "peers", "-o", filepath.Join(dir, "peers"), "../peers"},
		{"go", "build", "-trimpath", "-o", filepath.Join(dir, "berth-oci"), "../../cmd/berth-oci"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	vmrun, err := filepath.Abs("vmrun")
	if err != nil {
		t.Fatal(err)
	}
	const script = `echo "== engines"; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin BERTH_OCI=$PWD/berth-oci
exec ./peers -test.v -test.timeout 15m -test.run '` + engineTests + `'`
	var out bytes.Buffer
	run := exec.Command(vmrun, "--timeout", "900", "--mem", "4G", "--dir", dir, "--", "sh", "-c", script)
	run.Stdout, run.Stderr = &out, &out
	runErr := run.Run()
	results(t, out.String())
	if runErr != nil {
		t.Errorf("%v\n%s", runErr, tail(withoutPassed(out.String()), 100))
	}
}

// withoutPassed leaves out what a verbose test says of tests that pass.
func withoutPassed(out string) string {
	var kept []string
	for _, line := range strings.Split(out, "\n") {
		if s := strings.TrimSpace(line); !strings.HasPrefix(s, "=== RUN") && !strings.HasPrefix(s, "--- PASS") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}
