package oci

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// stored makes a container of a store and a process in it that sleeps.
func stored(t *testing.T, spec *specs.Spec, o LaunchOptions) (*Store, *Container, error) {
	t.Helper()
	needRoot(t)
	store := &Store{Root: t.TempDir()}
	c := newContainer(t, store, "c1", spec)
	pr, err := c.Launch(runner(t), spec, o)
	if err != nil {
		return store, nil, err
	}
	t.Cleanup(func() { // ours to reap
		_, _ = pr.Wait()
		pr.Close()
	})
	t.Cleanup(func() {
		if c, err := store.Open("c1"); err == nil {
			if err := c.Delete(true); err != nil {
				t.Error(err)
			}
		}
		if err := cgroup.RemoveEmpty("/berth-oci-test"); err != nil && !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
	})
	return store, c, nil
}

func bootedWithSystemd() bool {
	_, err := os.Stat("/run/systemd/system") // sd_booted(3)
	return err == nil
}

func TestSystemdIsMissing(t *testing.T) {
	if bootedWithSystemd() {
		t.Skip("this host has systemd")
	}
	spec := specFor(rootfs(t), "sleep", "1000")
	spec.Linux.CgroupsPath = ":berth-test:missing"
	store, _, err := stored(t, spec, LaunchOptions{Systemd: true})
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "--systemd-cgroup: not supported: needs ") || errdefs.Hint(err) == "" {
		t.Errorf("%v, want an error that says what is needed", err)
	}
	if ids, err := store.List(); err != nil || len(ids) > 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

// TestSystemdScope: the container is in a scope that systemd knows, with its
// limits, which an update changes and a reload does not.
func TestSystemdScope(t *testing.T) {
	needRoot(t)
	if !bootedWithSystemd() {
		t.Skip("this host has no systemd")
	}
	if mode, err := cgroup.HostMode(); err != nil || mode != cgroup.Unified {
		t.Skipf("needs cgroup v2, have %v, %v", mode, err)
	}
	spec := specFor(rootfs(t), "sleep", "1000")
	spec.Linux.CgroupsPath = "berth-test.slice:p:scope"
	limit, swap, pids, shares, quota, period := int64(64<<20), int64(96<<20), int64(40), uint64(512), int64(33333), uint64(50000)
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &swap}
	spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period, Cpus: "0"}
	spec.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	store, c, err := stored(t, spec, LaunchOptions{Systemd: true})
	if err != nil {
		t.Fatal(err)
	}
	const dir = "/sys/fs/cgroup/berth.slice/berth-test.slice/p-scope.scope/"
	holds := func(when string, files map[string]string) {
		t.Helper()
		for file, want := range files {
			b, err := os.ReadFile(dir + file)
			if got := strings.TrimSpace(string(b)); err != nil || got != want {
				t.Errorf("%s: %s is %q (%v), want %q", when, file, got, err, want)
			}
		}
	}
	shows := func(property, want string) {
		t.Helper()
		if got := systemctl(t, "show", "--value", "-p", property, "p-scope.scope"); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	files := map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "pids.max": "40", "cpu.weight": "59",
		"cpu.max": "33333 50000", "cpuset.cpus": "0", "memory.oom.group": "1",
	}
	holds("made", files)
	shows("ActiveState", "active")
	shows("Slice", "berth-test.slice")
	shows("Delegate", "yes")
	shows("MemoryMax", "67108864")
	shows("TasksMax", "40")
	shows("AllowedCPUs", "0")
	if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Pid), "cgroup")); err != nil || !strings.Contains(string(b), "/p-scope.scope") {
		t.Errorf("the process is in %q (%v)", b, err)
	}
	device, err := c.Spec()
	if err != nil || device.Linux.CgroupsPath != spec.Linux.CgroupsPath {
		t.Errorf("record: %v, %v", device, err)
	}
	if _, _, err := stored(t, spec, LaunchOptions{Systemd: true}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a second container in the same scope: %v, want a conflict", err)
	}
	more, wider := int64(128<<20), "0-1"
	if _, err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more}, CPU: &specs.LinuxCPU{Cpus: wider}, Pids: &specs.LinuxPids{Limit: &pids}}); err == nil {
		t.Error("memory above the recorded limit of memory and swap was taken")
	}
	holds("refused", files)
	shows("MemoryMax", "67108864")
	wrong := uint64(1)
	if _, err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more, Swap: &more}, CPU: &specs.LinuxCPU{Burst: &wrong, Period: &wrong}}); err == nil {
		t.Error("a period of 1 µs was taken")
	}
	holds("taken back", files)
	shows("MemoryMax", "67108864")
	if _, err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more, Swap: &more}, CPU: &specs.LinuxCPU{Cpus: wider}}); err != nil {
		t.Error(err)
	}
	files["memory.max"], files["memory.swap.max"], files["cpuset.cpus"] = "134217728", "0", "0-1"
	holds("updated", files)
	shows("MemoryMax", "134217728")
	systemctl(t, "daemon-reload")
	files["cpu.max"] = "33500 50000"  // as systemd rounds it
	delete(files, "memory.oom.group") // of systemd's OOMPolicy=
	holds("reloaded", files)
	if err := c.Pause(); err != nil {
		t.Error(err)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scope's cgroup is left (%v)", err)
	}
	shows("LoadState", "not-found")
	if _, err := store.Open("c1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the record is left (%v)", err)
	}
}

// TestSystemdScopeOnV1: where controllers are on cgroup v1 systemd manages some of
// them; the container is in a cgroup of its own in all.
func TestSystemdScopeOnV1(t *testing.T) {
	needRoot(t)
	if !bootedWithSystemd() {
		t.Skip("this host has no systemd")
	}
	if mode, err := cgroup.HostMode(); err != nil || mode == cgroup.Unified {
		t.Skipf("needs cgroup v1, have %v, %v", mode, err)
	}
	for _, user := range []bool{false, true} {
		root := rootfs(t)
		spec := specFor(root, "sleep", "1000")
		spec.Linux.CgroupsPath = "berth-test.slice:p:scope"
		spec.Root.Readonly = false
		pids, shares, quota, period := int64(40), uint64(512), int64(33000), uint64(50000)
		spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
		spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period}
		if user {
			userNamespaced(t, spec, root)
		}
		_, c, err := stored(t, spec, LaunchOptions{Systemd: true})
		if err != nil {
			t.Fatal(err)
		}
		const dir = "berth.slice/berth-test.slice/p-scope.scope/"
		files := map[string]string{"pids/" + dir + "pids.max": "40", "cpu/" + dir + "cpu.shares": "512", "cpu/" + dir + "cpu.cfs_quota_us": "33000"}
		holds := func(when string) {
			t.Helper()
			for file, want := range files {
				b, err := os.ReadFile("/sys/fs/cgroup/" + file)
				if got := strings.TrimSpace(string(b)); err != nil || got != want {
					t.Errorf("%s: %s is %q (%v), want %q", when, file, got, err, want)
				}
			}
		}
		holds("made")
		for _, line := range strings.Split(strings.TrimSpace(readText(t, filepath.Join("/proc", strconv.Itoa(c.Pid), "cgroup"))), "\n") {
			if !strings.HasSuffix(line, "/p-scope.scope") {
				t.Errorf("the process is in %s", line)
			}
		}
		if got := systemctl(t, "show", "--value", "-p", "TasksMax", "p-scope.scope"); got != "40" {
			t.Errorf("TasksMax is %s", got)
		}
		more := int64(50)
		if _, err := c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &more}}); err != nil {
			t.Error(err)
		}
		files["pids/"+dir+"pids.max"] = "50"
		holds("updated")
		systemctl(t, "daemon-reload")
		holds("reloaded")
		if err := c.Delete(true); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob("/sys/fs/cgroup/*/" + dir); err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %q, %v", left, err)
		}
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
