package oci

import (
	"errors"
	"fmt"
	"io/fs"
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

// delegate is where the part of the cgroup tree is that an ordinary user gets.
const delegate = "/sys/fs/cgroup/berth-delegated"

// TestDelegatedCgroups: an ordinary user who has been given a part of the tree
// gets cgroups with limits there, and the container's is gone with it. On cgroup
// v2 only: v1 has no delegation that is safe.
func TestDelegatedCgroups(t *testing.T) {
	needRoot(t)
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("needs cgroup v2 alone")
	}
	const anybody = 1
	root := rootfs(t)
	binary := filepath.Join(filepath.Dir(root), "oci.test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(binary, self, 0o755), os.Mkdir(filepath.Join(filepath.Dir(root), "state"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(root); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(filepath.Dir(root), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, anybody, anybody))
	}); err != nil {
		t.Fatal(err)
	}
	// What systemd's Delegate= does: the directory and the files that are the
	// delegatee's to write.
	if err := errors.Join(os.MkdirAll(delegate+"/own", 0o755), os.WriteFile(delegate+"/cgroup.subtree_control", []byte("+memory +pids"), 0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{delegate + "/own", delegate} {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	for _, dir := range []string{delegate, delegate + "/own"} {
		for _, file := range []string{"", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"} {
			if err := os.Chown(dir+file, anybody, anybody); err != nil {
				t.Fatal(err)
			}
		}
	}
	own, err := os.Open(delegate + "/own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	cmd := exec.Command(binary, "-test.run=^TestDelegatedUser$", "-test.v")
	cmd.Env = append(os.Environ(), "BERTH_DELEGATED_ROOT="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: anybody, Gid: anybody}, UseCgroupFD: true, CgroupFD: int(own.Fd()),
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDelegatedUser") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestDelegatedUser is the ordinary user of TestDelegatedCgroups.
func TestDelegatedUser(t *testing.T) {
	root := os.Getenv("BERTH_DELEGATED_ROOT")
	if root == "" {
		t.Skip("run by TestDelegatedCgroups")
	}
	s := specFor(root, "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max")
	s.Linux.CgroupsPath = ""
	limit, pids := int64(64<<20), int64(50)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	s.Root.Readonly = false
	s.Mounts[2].Options = nil // devpts: its group has no id there
	setNamespace(s, specs.UserNamespace, "")
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getuid()), Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getgid()), Size: 1}}
	c, err := (&Store{Root: filepath.Join(filepath.Dir(root), "state")}).New("delegated", root, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pr, err := c.Launch(runner(t), s, LaunchOptions{Stdio: Stdio{Out: w, Err: w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	b := make([]byte, 4096)
	n, _ := unix.Read(int(r.Fd()), b)
	for read := n; read > 0; n += max(read, 0) {
		read, _ = unix.Read(int(r.Fd()), b[n:])
	}
	if _, err := pr.Wait(); err != nil {
		t.Error(err)
	}
	if got, want := strings.TrimSpace(string(b[:n])), fmt.Sprintf("%d\n%d", limit, pids); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if dir := c.Cgroup.Dirs[""]; dir != delegate+"/delegated" {
		t.Errorf("the cgroup is %q", dir)
	}
	g, err := c.Group()
	if err != nil || g.Mode() != cgroup.Unified {
		t.Error(err)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(delegate + "/delegated"); err == nil {
		t.Error("the cgroup is left")
	}
}
