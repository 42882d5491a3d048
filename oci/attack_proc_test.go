package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: what the runtime writes to
// /proc for a container (kernel parameters, labels, oom_score_adj) went to a
// fake of the container's.

func TestMountsOverProcAreRefused(t *testing.T) {
	for dest, ok := range map[string]bool{
		"/proc/self/attr": false, "/proc/sys/kernel": false, "//proc/./1": false, "/proc/cpuinfo": true, "/procfs": true, "/proc": false,
		"/proc/self": false, "/dev/../proc/sys": false, "proc/thread-self/attr/exec": false, "/proc/../proc/sysrq-trigger": false,
	} {
		s := specFor("/nonexistent", "true")
		s.Mounts = []specs.Mount{{Destination: dest, Type: "tmpfs", Source: "tmpfs"}}
		if ok {
			s.Mounts[0] = specs.Mount{Destination: dest, Source: "/etc/hostname", Options: []string{"bind"}}
		}
		if err := check(s); (err == nil) != ok {
			t.Errorf("%s: %v", dest, err)
		}
	}
}

// The image brings a /proc of its own, with everything the runtime writes to.
func TestSettingsGoToTheHostsProc(t *testing.T) {
	needRoot(t)
	const key = "net/ipv4/ip_unprivileged_port_start"
	adj := 321
	for _, c := range []struct {
		name    string
		prepare func(root string)
		mount   bool
	}{
		{"files in the image, no /proc mounted", func(root string) {
			write(t, root, "proc/sys/"+key, "fake", "proc/self/oom_score_adj", "fake")
		}, false},
		{"links in the image, no /proc mounted", func(root string) {
			write(t, root, "fake", "fake", "proc/sys/"+key, "-> /fake", "proc/self/oom_score_adj", "-> /fake")
		}, false},
		{"below the mount", func(root string) {
			write(t, root, "proc/sys/"+key, "fake", "proc/self/oom_score_adj", "fake")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := rootfs(t)
			c.prepare(root)
			s := specFor(root, "sh", "-c", "mount -t proc p /mnt; cat /mnt/sys/"+key+" /mnt/self/oom_score_adj")
			write(t, root, "mnt/", "")
			s.Process.Capabilities.Bounding = []string{"CAP_SYS_ADMIN"}
			s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
			if !c.mount {
				s.Mounts = s.Mounts[1:]
			}
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77"}
			s.Process.OOMScoreAdj = &adj
			if got := mustRun(t, s); got != "77\n321" {
				t.Errorf("set to %q", got)
			}
			for _, name := range []string{"fake", "proc/sys/" + key, "proc/self/oom_score_adj"} {
				b, err := os.ReadFile(filepath.Join(root, name))
				if err == nil && string(b) != "fake" {
					t.Errorf("%s of the image was written: %q", name, b)
				} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		})
	}
}

// An exec is set up when the container may have changed its /proc.
func TestExecSettingsGoToTheHostsProc(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) {
		s.Mounts = s.Mounts[1:]
		write(t, s.Root.Path, "proc/self/oom_score_adj", "fake", "proc/sys/", "", "proc/1/", "", "mnt/", "")
	})
	adj := 432
	pr := s.process("sleep", "1000")
	pr.OOMScoreAdj = &adj
	host, err := thisHost(true)
	if err != nil {
		t.Fatal(err)
	}
	in := &compileInput{spec: s.req.Spec, host: host}
	in.useCgroup(s.req.Cgroup)
	plan, err := compileExec(in, pr, inherited{name: "init", file: s.init.Pidfd}, s.init.Pid)
	if err != nil {
		t.Fatal(err)
	}
	plan.cloneInto(s.req.Cgroup)
	started, err := s.r.launch(plan, Stdio{}, nil, launchHooks{})
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close()
	got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", started.Pid))
	started.abandon()
	if err != nil || strings.TrimSpace(string(got)) != "432" {
		t.Errorf("the exec has %q (%v)", got, err)
	}
	if b, err := os.ReadFile(filepath.Join(s.req.Spec.Root.Path, "proc/self/oom_score_adj")); err != nil || string(b) != "fake" {
		t.Errorf("the image's file has %q (%v)", b, err)
	}
}

// Settings are written before a joined mount namespace, another container's,
// decides what /proc is.
func TestSettingsComeBeforeAJoinedMountNamespace(t *testing.T) {
	s := specFor("/nonexistent", "true")
	adj := 1
	s.Process.OOMScoreAdj = &adj
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == specs.MountNamespace {
			s.Linux.Namespaces[i].Path = "/proc/1/ns/mnt"
		}
	}
	plan, err := Compile(s, "/")
	if err != nil {
		t.Fatal(err)
	}
	joined, set := -1, 0
	for i := range plan.Program.Len() {
		switch step := plan.Program.Op(i).Step; {
		case strings.HasPrefix(step, "join mount"):
			joined = i
		case strings.HasPrefix(step, "set net."), step == "set oom_score_adj":
			if set++; joined >= 0 {
				t.Errorf("op %d (%s) comes after the mount namespace is joined", i, step)
			}
		}
	}
	if joined < 0 || set == 0 {
		t.Errorf("joined at %d, %d settings: this test tests nothing", joined, set)
	}
}
