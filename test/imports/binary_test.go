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

// TestRuntimeIsSmallAndStatic looks at the file that users get.
func TestRuntimeIsSmallAndStatic(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "berth-oci")
	build := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+filepath.Dir(binary), "BINARIES=berth-oci")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
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
