// Package cli_test runs the berth command against berthd: scripts a user could
// type (testdata/*.txt), and a real terminal. It needs root and a static busybox.
package cli_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/test/busybox"
)

// The engine's own bridge; a Berth on this host keeps its.
const (
	bridge = "berthtest1"
	subnet = "10.215.0.0/24"
)

// engine is an engine with roots of its own. The commands start it themselves.
type engine struct {
	dir string
	// bin has berth, berthd and berth-oci.
	bin string
	// cgroup is the engine's own: what another run has left of its own is not ours.
	cgroup string
}

// newEngine builds the binaries. Everything the engine makes is removed with
// the test, which fails when anything is left.
func newEngine(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made")
	}
	for _, tool := range []string{"busybox", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	dir, err := os.MkdirTemp("", "berth-cli-") // short: socket paths have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{dir: dir, bin: filepath.Join(dir, "bin"), cgroup: "/berth-test-" + filepath.Base(dir)}
	t.Cleanup(func() { e.checkLeftovers(t) })
	build := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+e.bin)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	config := "bridge = \"" + bridge + "\"\nbridge-subnet = \"" + subnet + "\"\ncgroup-parent = \"" + e.cgroup + "\"\n"
	if err := os.WriteFile(filepath.Join(dir, "berthd.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.purge(t) })
	return e
}

func (e *engine) runRoot() string   { return filepath.Join(e.dir, "run") }
func (e *engine) stateRoot() string { return filepath.Join(e.dir, "state") }

// env is the environment of a command that uses the engine.
func (e *engine) env() []string {
	return []string{
		"PATH=" + e.bin + ":" + os.Getenv("PATH"), "HOME=" + e.dir, "TZ=UTC",
		"BERTH_RUN_ROOT=" + e.runRoot(), "BERTH_STATE_ROOT=" + e.stateRoot(), "BERTH_CONFIG=" + filepath.Join(e.dir, "berthd.toml"),
	}
}

// command prepares a berth command.
func (e *engine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(e.bin, "berth"), args...)
	cmd.Env = e.env()
	return cmd
}

// ok runs a berth command that must succeed and returns its output.
func (e *engine) ok(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	cmd := e.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("berth %s: %v\n%s%s", strings.Join(args, " "), err, &out, &errOut)
	}
	return strings.TrimSpace(out.String())
}

// importBusybox makes the image the tests use.
func (e *engine) importBusybox(t *testing.T) {
	t.Helper()
	rootfs, err := busybox.Rootfs()
	if err != nil {
		t.Fatal(err)
	}
	e.ok(t, rootfs, "import", "-c", `CMD ["sh"]`, "-", "busybox")
}

// purge ends the engine and removes all it has made.
func (e *engine) purge(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(e.runRoot()); errors.Is(err, os.ErrNotExist) {
		return // never started
	}
	e.stop(t)
	cmd := exec.Command(filepath.Join(e.bin, "berthd"), "--purge",
		"--run-root", e.runRoot(), "--state-root", e.stateRoot(), "--config", filepath.Join(e.dir, "berthd.toml"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("purge: %v\n%s", err, out)
	}
}

// checkLeftovers fails the test for whatever the engine left on the host.
func (e *engine) checkLeftovers(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), e.dir) {
		t.Errorf("mounts are left below %s", e.dir)
	}
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Errorf("the link %s is left", bridge)
	}
	for pid, exe := range executables(t) {
		if strings.HasPrefix(exe, e.dir) {
			t.Errorf("process %s is left: %s", pid, exe)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + e.cgroup, "/sys/fs/cgroup/*" + e.cgroup} {
		if left, _ := filepath.Glob(pattern); left != nil {
			t.Errorf("cgroups are left: %s", left)
		}
	}
	if _, err := os.Stat(e.stateRoot()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", e.stateRoot())
	}
	if err := os.RemoveAll(e.dir); err != nil {
		t.Error(err)
	}
}

// executables are the executables of all processes, by pid.
func executables(t *testing.T) map[string]string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil { // it may have ended
			all[strings.Split(link, "/")[2]] = exe
		}
	}
	return all
}
