package imports

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxRuntime is how big berth-oci may be, bytes.
const maxRuntime = 8 << 20

// TestRuntimeIsSmallAndStatic builds berth-oci as the Makefile does.
func TestRuntimeIsSmallAndStatic(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "berth-oci")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -E berth_oci_entry", "-o", binary, "./cmd/berth-oci")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("berth-oci: %d bytes", info.Size())
	if info.Size() > maxRuntime {
		t.Errorf("berth-oci is %d bytes, more than %d", info.Size(), maxRuntime)
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("berth-oci is linked dynamically")
		}
	}
}
