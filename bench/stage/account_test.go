package stage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestLayout(t *testing.T) {
	v1 := []cgroupMount{{"/c/memory", false, []string{"rw", "memory"}}, {"/c/cpu,cpuacct", false, []string{"rw", "cpu", "cpuacct"}}}
	v2 := cgroupMount{"/c/unified", true, []string{"rw"}}
	tests := []struct {
		name    string
		mounts  []cgroupMount
		unified bool
		beside  string
		cpu     string
	}{
		{"v1", v1, false, "", "/c/cpu,cpuacct"},
		{"hybrid", append(v1[:2:2], v2), false, "/c/unified", "/c/cpu,cpuacct"},
		{"v2", []cgroupMount{v2}, true, "", "/c/unified"},
	}
	for _, tt := range tests {
		l, err := layoutOf(tt.mounts)
		if err != nil || l.Unified != tt.unified || l.Beside != tt.beside || l.cpu.dir != tt.cpu {
			t.Errorf("%s: %+v %v", tt.name, l, err)
		}
	}
	if _, err := layoutOf(v1[:1]); err == nil {
		t.Error("a host that counts no processor time is accepted")
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cpuacct.usage": "1234567\n",
		"cpu.stat":      "usage_usec 42\nuser_usec 40\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := (Account{dir: dir}).Usage(); got != 1234567 || err != nil {
		t.Errorf("v1: %v %v", got, err)
	}
	if got, err := (Account{dir: dir, v2: true}).Usage(); got != 42*time.Microsecond || err != nil {
		t.Errorf("v2: %v %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte("nr_periods 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Account{dir: dir, v2: true}).Usage(); err == nil {
		t.Error("a file without the figure is accepted")
	}
}

func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"commands/cgroup.procs": "12\n7\n", "containers/c/cgroup.procs": "99\n", "containers/c/tasks": "100\n"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := (Account{dir: dir}).Processes()
	if err != nil || !slices.Equal(got, []int{12, 7, 99}) {
		t.Errorf("got %v %v, want 12, 7 and 99", got, err)
	}
}
