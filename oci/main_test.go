package oci

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/cgroup"
)

// needRoot skips tests that make containers when nobody may.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// rootfs makes a root file system of busybox (Debian's busybox-static).
func rootfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the package busybox-static is needed: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields(string(out)) {
		if applet != "busybox" {
			if err := os.Link(filepath.Join(dir, "bin/busybox"), filepath.Join(dir, "bin", applet)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// specFor is the default specification for a command without a terminal.
func specFor(root string, args ...string) *specs.Spec {
	s := DefaultSpec()
	s.Root.Path = root
	s.Process.Terminal = false
	s.Process.Args = args
	s.Linux.CgroupsPath = "/berth-oci-test/" + filepath.Base(filepath.Dir(root))
	return s
}

func runner(t *testing.T) *Runner {
	t.Helper()
	r, err := NewRunner()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// group makes the cgroup of a specification; it is gone when the test ends.
func group(t *testing.T, s *specs.Spec) *cgroup.Group {
	t.Helper()
	g, err := cgroup.Create(s.Linux.CgroupsPath, Resources(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Destroy(); err != nil {
			t.Error(err)
		}
		g.Close()
		// Busy while another group of the same test is still there.
		if err := cgroup.RemoveEmpty("/berth-oci-test"); err != nil && !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
	})
	return g
}

// run starts a container, waits for it and returns what it wrote (standard
// output and error together) and its status.
func run(t *testing.T, s *specs.Spec) (string, syscall.WaitStatus, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pr, err := runner(t).Start(&StartRequest{ID: "test", Spec: s, Bundle: t.TempDir(), Stdio: Stdio{Out: w, Err: w}, Cgroup: group(t, s)})
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer pr.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := pr.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(out)), ws, nil
}

// mustRun is run for a container that is to end well.
func mustRun(t *testing.T, s *specs.Spec) string {
	t.Helper()
	out, ws, err := run(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if ws.ExitStatus() != 0 {
		t.Fatalf("exit status %d: %s", ws.ExitStatus(), out)
	}
	return out
}

// hostMounts is the test process's mount table, without what the tests of other
// packages may mount and unmount meanwhile below /run and the directory for
// temporary files.
func hostMounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(os.TempDir(), t.Name())
	var kept []string
	for _, line := range strings.Split(string(b), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		at := fields[4]
		others := strings.HasPrefix(at, "/run/") || strings.HasPrefix(at, os.TempDir()+"/") && !strings.HasPrefix(at, ours)
		if !others {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}
