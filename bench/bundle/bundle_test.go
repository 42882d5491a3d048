package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// write makes a bundle and reads it again.
func write(t *testing.T, k Kind, unified bool) *specs.Spec {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := k.Write(dir, "/rootfs", "/group", unified, "/bin/true"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.Version != "1.0.2" || spec.Root.Path != "/rootfs" || spec.Linux.CgroupsPath != "/group" ||
		!slices.Equal(spec.Process.Args, []string{"/bin/true"}) || spec.Process.Terminal {
		t.Errorf("%s: version %s, root %s, cgroup %s, process %+v", k.Name, spec.Version, spec.Root.Path, spec.Linux.CgroupsPath, spec.Process)
	}
	return &spec
}

func namespaces(spec *specs.Spec) []specs.LinuxNamespaceType {
	var kinds []specs.LinuxNamespaceType
	for _, n := range spec.Linux.Namespaces {
		kinds = append(kinds, n.Type)
	}
	slices.Sort(kinds)
	return kinds
}

func TestNamespaces(t *testing.T) {
	tests := []struct {
		kind    Kind
		unified bool
		want    []specs.LinuxNamespaceType
	}{
		{Default(), false, []specs.LinuxNamespaceType{"ipc", "mount", "network", "pid", "uts"}},
		{Default(), true, []specs.LinuxNamespaceType{"cgroup", "ipc", "mount", "network", "pid", "uts"}},
		{HostNetwork(), false, []specs.LinuxNamespaceType{"ipc", "mount", "pid", "uts"}},
		{Docker(), false, []specs.LinuxNamespaceType{"ipc", "mount", "network", "pid", "uts"}},
	}
	for _, tt := range tests {
		if got := namespaces(write(t, tt.kind, tt.unified)); !slices.Equal(got, tt.want) {
			t.Errorf("%s, unified %v: namespaces %v, want %v", tt.kind.Name, tt.unified, got, tt.want)
		}
	}
}

func TestDockerConfinesAndLimits(t *testing.T) {
	spec := write(t, Docker(), false)
	if s := spec.Linux.Seccomp; s == nil || s.DefaultAction != specs.ActErrno || len(s.Syscalls) < 5 {
		t.Errorf("seccomp profile %+v", s)
	}
	r := spec.Linux.Resources
	if *r.Memory.Limit != 256<<20 || *r.Pids.Limit != 256 || *r.CPU.Quota != int64(*r.CPU.Period) {
		t.Errorf("limits: memory %d, pids %d, cpu %d/%d", *r.Memory.Limit, *r.Pids.Limit, *r.CPU.Quota, *r.CPU.Period)
	}
	if len(spec.Process.Capabilities.Bounding) != 14 {
		t.Errorf("%d capabilities, want Docker's 14", len(spec.Process.Capabilities.Bounding))
	}
}
