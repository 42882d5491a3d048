// Package oci tests the berth-oci command as its users call it.
package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// built is the directory of the command, rootfs the archive of a busybox root
// file system; both are made once.
var built, rootfs string

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // every test skips
	}
	dir, err := os.MkdirTemp("", "berth-oci")
	if err != nil {
		panic(err)
	}
	built, rootfs = dir, filepath.Join(dir, "rootfs.tar")
	steps := []*exec.Cmd{exec.Command("sh", "-c", "../../demo/make-busybox.sh >"+rootfs)}
	if bin := os.Getenv("BERTH_OCI_BIN"); bin != "" { // where there is no compiler
		built = bin
	} else {
		steps = append(steps, exec.Command("make", "-s", "-C", "../..", "build", "BIN="+dir, "BINARIES=berth-oci"))
	}
	for _, cmd := range steps {
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v: %v\n%s", cmd, err, out))
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// unpack makes a root file system.
func unpack(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("tar", "-xf", rootfs, "-C", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// bundle is a bundle with a state directory of its own.
type bundle struct {
	t   *testing.T
	dir string
}

// newBundle makes one from the default configuration, changed by a program for jq.
func newBundle(t *testing.T, change string) *bundle {
	t.Helper()
	needRoot(t)
	b := &bundle{t, t.TempDir()}
	if err := unpack(filepath.Join(b.dir, "rootfs")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "rootfs/rootfs-mark"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.mustRun("spec")
	jq := exec.Command("sh", "-c", `jq '.linux.cgroupsPath="/berth-script-`+t.Name()+`" | `+change+`' config.json >c && mv c config.json`)
	jq.Dir = b.dir
	if out, err := jq.CombinedOutput(); err != nil {
		t.Fatalf("jq: %v: %s", err, out)
	}
	return b
}

// command is a call of berth-oci in the bundle, with nothing for its streams.
func (b *bundle) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(built, "berth-oci"), append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
	cmd.Dir = b.dir
	return cmd
}

func (b *bundle) mustRun(args ...string) {
	b.t.Helper()
	log := filepath.Join(b.dir, "log")
	cmd := b.command(append([]string{"--log", log}, args...)...)
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log) // the error has one
		b.t.Errorf("berth-oci %v: %v\n%s", args, err, text)
	}
}

// removeContainers removes those that a failed script has left, which would be in the
// way of the next run.
func removeContainers(root string) {
	left, err := os.ReadDir(root)
	if err != nil {
		return // there never was one
	}
	for _, e := range left {
		exec.Command(filepath.Join(built, "berth-oci"), "--root", root, "delete", "--force", e.Name()).Run()
	}
}

// TestCommands runs the scripts of testdata, each in a bundle of its own with a
// busybox root file system and berth-oci on the PATH.
func TestCommands(t *testing.T) {
	needRoot(t)
	t.Cleanup(func() { // the scripts run side by side, until this test has returned
		for _, hierarchy := range []string{"", "*/"} {
			left, err := filepath.Glob("/sys/fs/cgroup/" + hierarchy + "berth-script*")
			if err != nil || len(left) > 0 {
				t.Errorf("cgroups are left: %v %v", left, err)
			}
		}
	})
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// testscript's $WORK is deep in a private directory; mounts below
			// it are made by containers only.
			if err := unpack(filepath.Join(env.WorkDir, "rootfs")); err != nil {
				return err
			}
			env.Setenv("PATH", built+":"+os.Getenv("PATH"))
			root := filepath.Join(env.WorkDir, "state")
			env.Setenv("ROOT", root)
			env.Defer(func() { removeContainers(root) })
			return nil
		},
	})
}
