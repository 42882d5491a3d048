//go:build amd64

// Package fault breaks the berth-oci command at each of its system calls, once
// by an error and once by SIGKILL, and looks for what is left.
package fault

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/oci"
	"github.com/berth-containers/berth/test/fullspec"
)

// stride is the distance between the calls that are broken; with BERTH_FAULT_ALL
// set it is 1. It is a prime, so that repeated calls are met at different places.
const stride = 37

// rig is one bundle and one state root.
type rig struct {
	t                   *testing.T
	berth, bundle, root string
	before              string
	spoilt              bool // the host is not as before
}

// scenario is one command with what comes before it.
type scenario struct {
	name    string
	prepare [][]string
	command []string
	want    string // what it prints when it succeeds
}

var scenarios = []scenario{
	{name: "run", command: []string{"run", "x"}, want: "ran"},
	{name: "create", command: []string{"create", "x"}},
	{name: "start", prepare: [][]string{{"create", "x"}}, command: []string{"start", "x"}},
	{name: "run detached", command: []string{"run", "-d", "long"}},
	{name: "exec", prepare: [][]string{{"run", "-d", "long"}}, command: []string{"exec", "long", "echo", "ran"}, want: "ran"},
	{name: "kill", prepare: [][]string{{"run", "-d", "long"}}, command: []string{"kill", "long", "KILL"}},
	{name: "kill all", prepare: [][]string{{"run", "-d", "long"}}, command: []string{"kill", "--all", "long", "KILL"}},
	{name: "pause", prepare: [][]string{{"run", "-d", "long"}}, command: []string{"pause", "long"}},
	{name: "resume", prepare: [][]string{{"run", "-d", "long"}, {"pause", "long"}}, command: []string{"resume", "long"}},
	{name: "update", prepare: [][]string{{"run", "-d", "long"}}, command: []string{"update", "--memory", "48m", "--pids-limit", "20", "long"}},
	{name: "delete created", prepare: [][]string{{"create", "x"}}, command: []string{"delete", "--force", "x"}},
	{name: "delete running", prepare: [][]string{{"run", "-d", "long"}}, command: []string{"delete", "--force", "long"}},
}

// TestEveryCallMayFail makes each system call of berth-oci fail once.
func TestEveryCallMayFail(t *testing.T) { sweep(t, syscall.EIO) }

// TestKilledAtEveryCall kills berth-oci before each of its system calls.
func TestKilledAtEveryCall(t *testing.T) { sweep(t, 0) }

func sweep(t *testing.T, errno syscall.Errno) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := newRig(t)
	step := stride
	if os.Getenv("BERTH_FAULT_ALL") != "" {
		step = 1
	}
	for i := range scenarios {
		t.Run(scenarios[i].name, func(t *testing.T) {
			r.t = t
			// Another first call for each scenario: together they meet more.
			for n := 1 + (i*7)%step; ; n += step {
				if !r.once(&scenarios[i], fault{n, errno}) {
					break
				}
			}
		})
		if r.spoilt { // everything after it would fail
			break
		}
	}
	r.t = t
}

// once runs a scenario with one fault; false when the command ended before it.
func (r *rig) once(s *scenario, f fault) bool {
	r.t.Helper()
	for _, args := range s.prepare {
		if out, code := r.run(args...); code != 0 {
			r.t.Fatalf("%v: status %d: %s", args, code, out)
		}
	}
	got, out, errs := r.traced(s.command, f)
	switch {
	case got.hung:
		r.t.Errorf("call %d (%s): the command hangs", f.at, got.hit)
	case f.errno != 0:
		r.judge(s, f, got, out, errs)
	}
	for _, id := range []string{"x", "long"} {
		for range 2 { // once more: nothing is left to do
			if out, code := r.run("delete", "--force", id); code != 0 || out != "" {
				r.t.Errorf("call %d (%s): delete --force %s: status %d: %s", f.at, got.hit, id, code, out)
			}
		}
	}
	if alive := orphans(r.t); len(alive) > 0 {
		r.t.Errorf("call %d (%s): processes are left: %v", f.at, got.hit, alive)
	}
	if after := host(r.t, r.bundle, r.root); after != r.before {
		r.t.Errorf("call %d (%s): the host is not as before:\n%s", f.at, got.hit, difference(r.before, after))
		r.spoilt = true
	}
	return got.hit != "" && !r.spoilt
}

// judge looks at what a command says whose call has failed: it did its work all
// the same, or it says what is wrong, in one line.
func (r *rig) judge(s *scenario, f fault, got traced, out, errs string) {
	r.t.Helper()
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if n := len(lines); n > 1 && strings.HasPrefix(lines[n-1], "hint: ") {
		lines = lines[:n-1]
	}
	switch {
	case !got.status.Exited():
		r.t.Errorf("call %d (%s): %v", f.at, got.hit, got.status)
	case got.status.ExitStatus() == 0 && strings.TrimSpace(out) != s.want:
		r.t.Errorf("call %d (%s): status 0, but it printed %q: %s", f.at, got.hit, out, errs)
	case got.status.ExitStatus() == 0:
	case strings.HasPrefix(got.hit, "write") && errs == "": // it could not say it
	case len(lines) != 1 || !strings.HasPrefix(lines[0], "berth-oci: "):
		r.t.Errorf("call %d (%s): not one clear line: %s", f.at, got.hit, errs)
	}
}

// newRig builds berth-oci and makes a bundle, in which both containers' roots
// are.
func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, berth: filepath.Join(dir, "berth-oci"), bundle: filepath.Join(dir, "bundle"), root: filepath.Join(dir, "state")}
	build := exec.Command("go", "build", "-o", r.berth, "../../cmd/berth-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	rootfs, source := filepath.Join(r.bundle, "rootfs"), filepath.Join(r.bundle, "source")
	for _, d := range []string{r.root, rootfs, source, r.bundle + "/x", r.bundle + "/long"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("sh", "-c", "../../demo/make-busybox.sh | tar -xC "+rootfs).CombinedOutput(); err != nil {
		t.Fatalf("make busybox: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("file"), 0o644); err != nil {
		t.Fatal(err)
	}
	for id, script := range map[string]string{"x": "echo ran", "long": "exec sleep 1000"} {
		spec := fullspec.Fill(oci.DefaultSpec(), rootfs, parent+"/"+id, source, "/bin/true", "/bin/sh", "-c", script)
		r.config(id, spec)
	}
	adopt(t)
	// Mount points, and the parents of cgroups, are made once and stay.
	for _, args := range [][]string{{"run", "x"}, {"run", "-d", "long"}, {"delete", "--force", "long"}} {
		if out, code := r.run(args...); code != 0 {
			t.Fatalf("%v: status %d: %s", args, code, out)
		}
	}
	if alive := orphans(t); len(alive) > 0 {
		t.Fatalf("processes are left: %v", alive)
	}
	t.Cleanup(func() {
		if err := cgroup.RemoveEmpty(parent); err != nil {
			t.Error(err)
		}
	})
	r.before = host(t, r.bundle, r.root)
	return r
}

func (r *rig) config(id string, spec *specs.Spec) {
	r.t.Helper()
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.bundle, id, "config.json"), b, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// argv is the command line of one of berth-oci's commands; create and run get
// the bundle of their container, which is the last word.
func (r *rig) argv(args []string) []string {
	argv := []string{r.berth, "--root", r.root, args[0]}
	if args[0] == "create" || args[0] == "run" {
		argv = append(argv, "--bundle", filepath.Join(r.bundle, args[len(args)-1]))
	}
	return append(argv, args[1:]...)
}

// run is a command without a fault. Its streams are files: what it leaves
// running must not hold a pipe.
func (r *rig) run(args ...string) (out string, code int) {
	r.t.Helper()
	f := r.file()
	defer f.Close()
	cmd := exec.Command(r.argv(args)[0], r.argv(args)[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	alarm := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer alarm.Stop()
	reapUntil(r.t, cmd.Process.Pid)
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	return content(r.t, f), cmd.ProcessState.ExitCode()
}

func (r *rig) traced(args []string, f fault) (got traced, out, errs string) {
	r.t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		r.t.Fatal(err)
	}
	stdout, stderr := r.file(), r.file()
	defer null.Close()
	defer stdout.Close()
	defer stderr.Close()
	if got, err = trace(r.argv(args), "/", []*os.File{null, stdout, stderr}, f); err != nil {
		r.t.Fatal(err)
	}
	return got, content(r.t, stdout), content(r.t, stderr)
}

// file is a file without a name.
func (r *rig) file() *os.File {
	r.t.Helper()
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		r.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "output")
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
