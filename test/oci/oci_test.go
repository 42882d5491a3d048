// Package oci tests the berth-oci command as its users call it.
package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommands runs the scripts of testdata, each in a bundle of its own with a
// busybox root file system and berth-oci on the PATH.
func TestCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	bin := berthOCI(t)
	rootfs := filepath.Join(t.TempDir(), "rootfs.tar")
	if out, err := exec.Command("sh", "-c", "../../demo/make-busybox.sh >"+rootfs).CombinedOutput(); err != nil {
		t.Fatalf("make busybox: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// testscript's $WORK is deep in a private directory; mounts below
			// it are made by containers only.
			dir := filepath.Join(env.WorkDir, "rootfs")
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if out, err := exec.Command("tar", "-xf", rootfs, "-C", dir).CombinedOutput(); err != nil {
				t.Logf("%s", out)
				return err
			}
			env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env.Setenv("ROOT", filepath.Join(env.WorkDir, "state"))
			return nil
		},
	})
	if left, err := filepath.Glob("/sys/fs/cgroup/*/berth-script*"); err != nil || len(left) > 0 {
		t.Errorf("cgroups are left: %v %v", left, err)
	}
}

// berthOCI is the directory of the command: BERTH_OCI_BIN where it was built
// before, as for a machine without a compiler.
func berthOCI(t *testing.T) string {
	if bin := os.Getenv("BERTH_OCI_BIN"); bin != "" {
		return bin
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "../../cmd/berth-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}
