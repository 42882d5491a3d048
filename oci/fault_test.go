package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/lsm"
	p "github.com/berth-containers/berth/kernel/program"
)

// TestEveryStepMayFail breaks each call of a container's program once: the error
// must name the step, and nothing of the container may be left.
func TestEveryStepMayFail(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	s := specFor(root, "true")
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/data/new", Source: root, Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/etc/file", Source: "/etc/hostname", Options: []string{"bind"}})
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 1}
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
	if lsm.Landlock() >= landlockABI {
		s.Annotations = map[string]string{LandlockAnnotation: "strict"}
	}
	g := group(t, s)
	r := runner(t)
	before := hostMounts(t)
	req := &StartRequest{ID: "test", Spec: s, Bundle: t.TempDir(), Cgroup: g}
	plan, err := r.plan(req, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := plan.Program.Len()
	reached := 0
	for i := range n {
		plan, err := r.plan(req, nil)
		if err != nil {
			t.Fatal(err)
		}
		op := plan.Program.Op(i)
		step := op.Step
		op.Sys = p.Sys{Nr: 1 << 20, Name: "broken"} // ENOSYS
		pr, err := r.launch(plan, Stdio{}, nil, launchHooks{})
		if err == nil { // the program does not come by here, or can do without
			if _, err := pr.Wait(); err != nil {
				t.Fatal(err)
			}
			pr.Close()
			continue
		}
		reached++
		if !strings.HasPrefix(err.Error(), step) && !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.EINVAL) {
			t.Errorf("op %d (%s): %v", i, step, err)
		}
	}
	if reached < n/3 {
		t.Errorf("only %d of %d ops failed when broken", reached, n)
	}
	if after := hostMounts(t); after != before {
		t.Errorf("mounts are left:\n%s", after)
	}
	if procs, err := g.Procs(); err != nil || len(procs) > 0 {
		t.Errorf("processes are left: %v %v", procs, err)
	}
}

func TestMissingThingsHaveClearErrors(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	for _, c := range []struct {
		want string
		set  func(*specs.Spec)
	}{
		{"bind root " + root + "/missing: no such file or directory", func(s *specs.Spec) { s.Root.Path = root + "/missing" }},
		{"bind mount for /x: stat /missing: no such file or directory", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/missing", Options: []string{"bind"}})
		}},
		{"mount nosuchfs on /x: no such device", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"})
		}},
		{"mount tmpfs on /x with nosuchoption: invalid argument", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "x", Options: []string{"nosuchoption"}})
		}},
		{"network namespace: open /missing: no such file or directory", func(s *specs.Spec) {
			s.Linux.Namespaces[1].Path = "/missing"
		}},
	} {
		s := specFor(root, "true")
		c.set(s)
		if _, _, err := run(t, s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestUnsupportedFieldsAreNamed(t *testing.T) {
	for field, set := range map[string]func(*specs.Spec){
		"process.commandLine": func(s *specs.Spec) { s.Process.CommandLine = "dir" },
		"linux.personality.flags": func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
		},
	} {
		s := specFor("/nonexistent", "true")
		set(s)
		_, err := Compile(s, "/")
		if err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestGoldenPlan keeps the default container's program as text: a change of what
// is done to build a container shows in review.
func TestGoldenPlan(t *testing.T) {
	plan, err := Compile(specFor("/bundle/rootfs", "sh"), "/bundle")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := plan.Explain(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "default.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, []byte(b.String()), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != b.String() {
		t.Errorf("the plan has changed (UPDATE_GOLDEN=1 accepts it):\n%s", firstDifference(string(want), b.String()))
	}
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return fmt.Sprintf("line %d\n- %s\n+ %s", i+1, as[i], bs[i])
		}
	}
	return fmt.Sprintf("%d lines, were %d", len(bs), len(as))
}
