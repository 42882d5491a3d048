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

	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/lsm"
	p "github.com/berth-containers/berth/kernel/program"
	"github.com/berth-containers/berth/test/fullspec"
)

// TestEveryStepMayFail breaks each call of a program once, for a container and an
// exec that use everything: the error must name the step, and nothing may be left.
func TestEveryStepMayFail(t *testing.T) {
	needRoot(t)
	for _, terminal := range []bool{false, true} {
		s := everything(t, "true")
		s.Process.Terminal = terminal
		g := group(t, s)
		r := runner(t)
		req := &StartRequest{ID: "test", Spec: s, Bundle: t.TempDir(), Cgroup: g}
		breakEach(t, r, g, 0, func() (*Plan, error) { return r.plan(req, nil) })
	}
}

func TestEveryStepOfAnExecMayFail(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) { *s = *everything(t, "sleep", "1000") })
	for _, terminal := range []bool{false, true} {
		pr := s.process("true")
		pr.Terminal = terminal
		breakEach(t, s.r, s.req.Cgroup, 1, func() (*Plan, error) {
			host, err := thisHost(true)
			if err != nil {
				return nil, err
			}
			in := &compileInput{spec: s.req.Spec, host: host}
			in.useCgroup(s.req.Cgroup)
			plan, err := compileExec(in, pr, inherited{name: "init", file: s.init.Pidfd}, s.init.Pid)
			if err == nil {
				plan.cloneInto(s.req.Cgroup)
			}
			return plan, err
		})
	}
}

// everything is a specification that uses all there is but hooks, which are not
// the program's.
func everything(t *testing.T, args ...string) *specs.Spec {
	t.Helper()
	root, source := rootfs(t), t.TempDir()
	write(t, source, "file", "content")
	s := specFor(root, args...)
	fullspec.Fill(s, root, s.Linux.CgroupsPath, source, "/bin/true", args...)
	s.Hooks = nil
	if lsm.Landlock() >= landlockABI {
		s.Annotations = map[string]string{LandlockAnnotation: "strict"}
	}
	return s
}

// breakEach runs a plan once for each of its calls, with that call broken. procs
// is how many processes are in the cgroup before and after.
func breakEach(t *testing.T, r *Runner, g *cgroup.Group, procs int, compile func() (*Plan, error)) {
	t.Helper()
	before := hostMounts(t)
	reached, n := 0, 1
	for i := 0; i < n; i++ {
		plan, err := compile()
		if err != nil {
			t.Fatal(err)
		}
		n = plan.Program.Len()
		op := plan.Program.Op(i)
		step := op.Step
		if op.Sys == p.ExitGroup { // it does not fail
			continue
		}
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
	if left, err := g.Procs(); err != nil || len(left) != procs {
		t.Errorf("processes in the cgroup: %v, %v, want %d", left, err, procs)
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

// TestEveryStepMayFailBesideTheParent is the same for a container whose program
// makes its namespaces itself and has the parent act midway: hooks, devices,
// mappings, clocks.
func TestEveryStepMayFailBesideTheParent(t *testing.T) {
	needRoot(t)
	s := specFor(rootfs(t), "true")
	s.Mounts, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = s.Mounts[:1], nil, nil
	userNamespaced(t, s, s.Root.Path)
	setNamespace(s, specs.TimeNamespace, "")
	setNamespace(s, specs.IPCNamespace, fmt.Sprintf("/proc/%d/ns/ipc", holder(t, "--ipc")))
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}}}
	g := group(t, s)
	r := runner(t)
	before := hostMounts(t)
	plan := func() *Plan {
		plan, err := r.plan(&StartRequest{ID: "test", Spec: s, Bundle: t.TempDir(), Cgroup: g}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return plan
	}
	asked := 0
	hooks := launchHooks{midway: func(*Process) error { asked++; return nil }}
	reached := 0
	for i := range plan().Program.Len() {
		pl := plan()
		op := pl.Program.Op(i)
		if op.Sys == p.ExitGroup { // which cannot fail
			continue
		}
		step := op.Step
		op.Sys = p.Sys{Nr: 1 << 20, Name: "broken"} // ENOSYS
		pr, err := r.launch(pl, Stdio{}, nil, hooks)
		if err == nil {
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
	if reached < 40 || asked == 0 {
		t.Errorf("only %d ops failed when broken; the parent was asked %d times", reached, asked)
	}
	if after := hostMounts(t); after != before {
		t.Errorf("mounts are left:\n%s", after)
	}
	if procs, err := g.Procs(); err != nil || len(procs) > 0 {
		t.Errorf("processes are left: %v %v", procs, err)
	}
}
