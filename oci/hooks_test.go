package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// hooked is a container with hooks that write into a directory of the test.
type hooked struct {
	t        *testing.T
	spec     *specs.Spec
	store    *Store
	root     string
	log      string // directory of the hooks
	warnings []string
}

func newHooked(t *testing.T) *hooked {
	t.Helper()
	needRoot(t)
	h := &hooked{t: t, root: rootfs(t), log: t.TempDir()}
	h.store = &Store{Root: t.TempDir(), Warn: func(s string) { h.warnings = append(h.warnings, s) }}
	h.spec = specFor(h.root, "sleep", "1000")
	h.spec.Root.Readonly = false
	h.spec.Hooks = &specs.Hooks{}
	h.spec.Annotations = map[string]string{"org.example": "yes"}
	before := hostMounts(t)
	t.Cleanup(func() {
		if after := hostMounts(t); after != before {
			t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
		}
		if err := cgroup.RemoveEmpty("/berth-oci-test"); err != nil && !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
		if err := os.Remove("/sys/fs/cgroup" + h.spec.Linux.CgroupsPath); err == nil {
			t.Error("the cgroup was left behind")
		}
	})
	return h
}

func hostHook(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=" + defaultPath}}
}

// all makes a hook of every kind; script sees its kind as $K.
func (h *hooked) all(script string) {
	for kind, list := range h.lists() {
		hook := hostHook(script)
		hook.Env = append(hook.Env, "K="+kind, "LOG="+h.log)
		if kind == "startContainer" {
			hook.Env[len(hook.Env)-1] = "LOG="
		}
		*list = []specs.Hook{hook}
	}
}

func (h *hooked) lists() map[string]*[]specs.Hook {
	k := h.spec.Hooks
	return map[string]*[]specs.Hook{
		//lint:ignore SA1019 deprecated, and still in use
		"prestart": &k.Prestart, "createRuntime": &k.CreateRuntime, "createContainer": &k.CreateContainer,
		"startContainer": &k.StartContainer, "poststart": &k.Poststart, "poststop": &k.Poststop,
	}
}

func (h *hooked) create(wait bool) (*Container, *Process, error) {
	h.t.Helper()
	config, err := json.Marshal(h.spec)
	if err != nil {
		h.t.Fatal(err)
	}
	spec, err := ParseSpec(config)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := h.store.New("hooked", h.log, config)
	if err != nil {
		h.t.Fatal(err)
	}
	pr, err := c.Launch(runner(h.t), spec, LaunchOptions{Wait: wait})
	return c, pr, err
}

// gone fails the test when anything of the container is left.
func (h *hooked) gone() {
	h.t.Helper()
	if ids, err := h.store.List(); err != nil || len(ids) > 0 {
		h.t.Errorf("containers left: %v, %v", ids, err)
	}
	if left, err := os.ReadDir(h.store.Root); err != nil || len(left) > 0 {
		h.t.Errorf("left in the store: %v, %v", left, err)
	}
}

// read returns a file a hook wrote, "" when there is none.
func (h *hooked) read(name string) string {
	b, err := os.ReadFile(filepath.Join(h.log, name))
	if err != nil {
		b, _ = os.ReadFile(filepath.Join(h.root, name))
	}
	return strings.TrimSpace(string(b))
}

func TestHooksRunInOrderWithTheState(t *testing.T) {
	h := newHooked(t)
	h.all(`cat >"$LOG/$K"; echo $K >>"$LOG/order"`)
	c, pr, err := h.create(true)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if got, want := h.read("order"), "prestart\ncreateRuntime\ncreateContainer"; got != want {
		t.Errorf("after create: %q", got)
	}
	if st := c.Status(); st != specs.StateCreated {
		t.Errorf("status %s after create", st)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if got, want := h.read("order"), "prestart\ncreateRuntime\ncreateContainer\npoststart"; got != want {
		t.Errorf("after start: %q", got)
	}
	pr.abandon()
	if err := c.Delete(false); err != nil {
		t.Fatal(err)
	}
	h.gone()
	for kind := range h.lists() {
		var st specs.State
		if err := json.Unmarshal([]byte(h.read(kind)), &st); err != nil {
			t.Errorf("%s: %q: %v", kind, h.read(kind), err)
		}
		want := specs.State{
			Version: specs.Version, ID: "hooked", Bundle: h.log, Annotations: h.spec.Annotations, Status: specs.StateCreated, Pid: pr.Pid,
		}
		switch kind {
		case "createContainer", "startContainer":
			want.Pid = 1
		case "poststart":
			want.Status = specs.StateRunning
		case "poststop":
			want.Status, want.Pid = specs.StateStopped, 0
		}
		if fmt.Sprint(st) != fmt.Sprint(want) {
			t.Errorf("%s: state %v, want %v", kind, st, want)
		}
	}
	if len(h.warnings) > 0 {
		t.Errorf("warnings: %q", h.warnings)
	}
}

func TestHooksRunWhereTheSpecificationSays(t *testing.T) {
	for name, set := range map[string]func(*hooked){
		"default": func(*hooked) {},
		"user namespace": func(h *hooked) {
			if err := errors.Join(os.Chmod(filepath.Dir(h.root), 0o755), os.Chown(h.root, 100000, 100000), os.Chmod(filepath.Dir(h.log), 0o755), os.Chmod(h.log, 0o777)); err != nil {
				h.t.Fatal(err)
			}
			ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			h.spec.Linux.UIDMappings, h.spec.Linux.GIDMappings = ids, ids
			h.spec.Linux.Namespaces = append(h.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
		"joined pid namespace": func(h *hooked) {
			h.spec.Linux.Namespaces[0].Path = fmt.Sprintf("/proc/%d/ns/pid", startSleeper(h.t, func(s *specs.Spec) { s.Linux.CgroupsPath += "-other" }).init.Pid)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHooked(t)
			h.all(`for n in mnt pid net uts ipc; do readlink /proc/self/ns/$n; done >"$LOG/$K"; ls -d ` + h.root + `/dev/null /bin/busybox >"$LOG/$K.ls" 2>&1; pwd >"$LOG/$K.pwd"`)
			set(h)
			c, pr, err := h.create(true)
			if err != nil {
				t.Fatal(err)
			}
			defer pr.Close()
			inside := namespacesOf(t, fmt.Sprint(pr.Pid))
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			pr.abandon()
			if err := c.Delete(true); err != nil {
				t.Fatal(err)
			}
			outside := namespacesOf(t, "self")
			for kind := range h.lists() {
				want := outside
				if kind == "createContainer" || kind == "startContainer" {
					want = inside
				}
				if got := h.read(kind); got != want {
					t.Errorf("%s runs in\n%s\nwant\n%s", kind, got, want)
				}
			}
			if got := h.read("createContainer.ls"); got != "/bin/busybox\n"+h.root+"/dev/null" {
				t.Errorf("createContainer does not see the host and the container's mounts: %q", got)
			}
			if got := h.read("prestart.pwd"); got != h.log {
				t.Errorf("prestart runs in directory %q, want the bundle", got)
			}
		})
	}
}

func namespacesOf(t *testing.T, pid string) string {
	t.Helper()
	var list []string
	for _, n := range []string{"mnt", "pid", "net", "uts", "ipc"} {
		link, err := os.Readlink("/proc/" + pid + "/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, link)
	}
	return strings.Join(list, "\n")
}

func TestHookHasItsArgumentsAndEnvironmentOnly(t *testing.T) {
	h := newHooked(t)
	h.spec.Hooks.CreateRuntime = []specs.Hook{{
		Path: "/bin/busybox", Args: []string{"sh", "-c", `(cat /proc/$$/environ | tr '\0' '\n'; echo "$0 $1"; for f in /proc/$$/fd/*; do [ -e $f ] && echo ${f##*/}; done; true) >$OUT`, "zero", "one two"},
		Env: []string{"OUT=" + h.log + "/out"},
	}}
	c, pr, err := h.create(true)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	pr.abandon()
	if got, want := h.read("out"), "OUT="+h.log+"/out\nzero one two\n0\n1\n2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}

// TestFailingHookEndsTheContainer: whichever hook of creation or start fails, the
// error names it and says what it wrote, and the container is gone.
func TestFailingHookEndsTheContainer(t *testing.T) {
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart"} {
		for _, how := range []string{"create", "run"} {
			t.Run(kind+" of "+how, func(t *testing.T) {
				h := newHooked(t)
				h.spec.Hooks.Poststop = []specs.Hook{hostHook("echo yes >" + h.log + "/poststop")}
				*h.lists()[kind] = []specs.Hook{{Path: "/bin/true"}, hostHook("echo the reason >&2; exit 3"), hostHook("touch " + h.log + "/after")}
				c, pr, err := h.create(how == "create")
				if err == nil {
					defer pr.Close()
					err = c.Start()
					pr.abandon()
				}
				var hook *HookError
				if !errors.As(err, &hook) || hook.Kind != kind || hook.Index != 1 {
					t.Fatalf("got %v", err)
				}
				if want := kind + " hook 1 (/bin/sh): exit status 3: the reason"; err.Error() != want {
					t.Errorf("got %q, want %q", err, want)
				}
				h.gone()
				if h.read("poststop") != "yes" {
					t.Error("the poststop hook did not run")
				}
				if _, err := os.Stat(h.log + "/after"); err == nil {
					t.Error("the hook after the failed one ran")
				}
			})
		}
	}
}

func TestHookErrors(t *testing.T) {
	second := 1
	for _, c := range []struct {
		hook specs.Hook
		want string
	}{
		{specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Timeout: &second}, "createRuntime hook 0 (/bin/sleep): not done after 1 s, killed"},
		{specs.Hook{Path: "/nonexistent"}, "createRuntime hook 0 (/nonexistent): run /nonexistent: no such file or directory"},
		{specs.Hook{Path: "/etc"}, "createRuntime hook 0 (/etc): run /etc: permission denied"},
		{hostHook("kill -9 $$"), "createRuntime hook 0 (/bin/sh): killed by signal 9 (killed)"},
	} {
		h := newHooked(t)
		h.spec.Hooks.CreateRuntime = []specs.Hook{c.hook}
		if _, _, err := h.create(true); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
		h.gone()
	}
}

func TestFailingPoststopHookIsAWarning(t *testing.T) {
	h := newHooked(t)
	h.spec.Hooks.Poststop = []specs.Hook{{Path: "/bin/false"}, hostHook("echo yes >" + h.log + "/second")}
	c, pr, err := h.create(true)
	if err != nil {
		t.Fatal(err)
	}
	pr.abandon()
	pr.Close()
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
	h.gone()
	if got := strings.Join(h.warnings, ";"); got != "poststop hook 0 (/bin/false): exit status 1" {
		t.Errorf("warnings: %q", got)
	}
	if h.read("second") != "yes" {
		t.Error("the second hook did not run")
	}
}

// TestHookMayLookAtTheContainer: the record is not locked while hooks run, and
// the container is said to be in creation.
func TestHookMayLookAtTheContainer(t *testing.T) {
	h := newHooked(t)
	if err := errors.Join(unix.Mkfifo(h.log+"/began", 0o600), unix.Mkfifo(h.log+"/goon", 0o600)); err != nil {
		t.Fatal(err)
	}
	h.spec.Hooks.CreateRuntime = []specs.Hook{hostHook("echo >" + h.log + "/began; cat " + h.log + "/goon")}
	looked := make(chan error, 1)
	go func() {
		if _, err := os.ReadFile(h.log + "/began"); err != nil {
			looked <- err
			return
		}
		c, err := h.store.Open("hooked")
		if err == nil {
			st, serr := c.State()
			err = serr
			if err == nil && (st.Status != specs.StateCreating || st.Pid == 0) {
				err = fmt.Errorf("state %v", st)
			}
			if derr := c.Delete(false); !errors.Is(derr, errdefs.ErrConflict) {
				err = errors.Join(err, fmt.Errorf("delete: %v", derr))
			}
		}
		looked <- errors.Join(err, os.WriteFile(h.log+"/goon", nil, 0))
	}()
	c, pr, err := h.create(true)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if err := <-looked; err != nil {
		t.Error(err)
	}
	pr.abandon()
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}

// TestSysctlOfWhatAHookMade: kernel parameters are set after the hooks.
func TestSysctlOfWhatAHookMade(t *testing.T) {
	h := newHooked(t)
	h.spec.Linux.Sysctl = map[string]string{"net/ipv4/conf/made0/forwarding": "1"}
	h.spec.Hooks.CreateContainer = []specs.Hook{hostHook("ip link add made0 type bridge")}
	h.spec.Process.Args = []string{"sh", "-c", "cat /proc/sys/net/ipv4/conf/made0/forwarding >/out"}
	c, pr, err := h.create(false)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if _, err := pr.Wait(); err != nil {
		t.Error(err)
	}
	if got := h.read("out"); got != "1" {
		t.Errorf("got %q", got)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}

// TestStartContainerHookHasTheCommandsRights: it is a program of the image.
func TestStartContainerHookHasTheCommandsRights(t *testing.T) {
	h := newHooked(t)
	h.spec.Process.User = specs.User{UID: 1000, GID: 1001}
	h.spec.Hooks.StartContainer = []specs.Hook{hostHook("(id -u; id -g; grep CapBnd /proc/self/status; grep -q ':/$' /proc/self/cgroup && echo its cgroup) >/tmp/out")}
	if err := os.Chmod(filepath.Join(h.root, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	c, pr, err := h.create(false)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	pr.abandon()
	if got, want := h.read("tmp/out"), "1000\n1001\nCapBnd:\t0000000020000420\nits cgroup"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}

func TestWrongHooksAreRefused(t *testing.T) {
	zero := 0
	for want, hook := range map[string]specs.Hook{
		"hooks.poststop[0].path": {Path: "bin/true"}, "hooks.poststop[0].timeout": {Path: "/bin/true", Timeout: &zero},
		"hooks.poststop[0]: a string": {Path: "/bin/true", Env: []string{"A=\x00"}},
	} {
		s := specFor("/nonexistent", "true")
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{hook}}
		if _, err := Compile(s, "/"); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A container without a record has the same hooks; who keeps it runs the last.
func TestHooksWithoutARecord(t *testing.T) {
	h := newHooked(t)
	h.all(`cat >"$LOG/$K"; echo $K >>"$LOG/order"`)
	r := runner(t)
	pr, err := r.Start(&StartRequest{ID: "kept", Spec: h.spec, Bundle: h.log})
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if got, want := h.read("order"), "prestart\ncreateRuntime\ncreateContainer\npoststart"; got != want {
		t.Errorf("after start: %q", got)
	}
	pr.abandon()
	r.Poststop(h.spec, "kept", h.log, func(err error) { t.Error(err) })
	for kind := range h.lists() {
		var st specs.State
		if err := json.Unmarshal([]byte(h.read(kind)), &st); err != nil || st.ID != "kept" || st.Bundle != h.log {
			t.Errorf("%s: state %q, %v", kind, h.read(kind), err)
		}
	}
}

// Whichever hook fails, the start does, and no process is left.
func TestFailingHookWithoutARecord(t *testing.T) {
	for _, kind := range []string{"createRuntime", "createContainer", "startContainer", "poststart"} {
		h := newHooked(t)
		*h.lists()[kind] = []specs.Hook{hostHook("echo no reef here; exit 3")}
		pr, err := runner(t).Start(&StartRequest{ID: "kept", Spec: h.spec, Bundle: h.log})
		var failed *HookError
		if !errors.As(err, &failed) || failed.Kind != kind || failed.Output != "no reef here" {
			t.Errorf("%s: %v", kind, err)
		}
		if pr != nil {
			t.Errorf("%s: process %d is there", kind, pr.Pid)
		}
	}
}

// The command is looked for before the hooks of the start run, and what it says
// at its start is heard after them.
func TestCommandAfterTheHooksOfTheStart(t *testing.T) {
	h := newHooked(t)
	h.spec.Process.Args = []string{"/nothing"}
	h.spec.Hooks.StartContainer = []specs.Hook{hostHook("true")}
	if _, err := runner(t).Start(&StartRequest{ID: "kept", Spec: h.spec, Bundle: h.log}); !errors.Is(err, ErrCommandNotFound) {
		t.Errorf("no such command: %v", err)
	}
	// It is there and has the right mode, but is no program.
	if err := os.WriteFile(filepath.Join(h.root, "text"), []byte("\x00no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.spec.Process.Args = []string{"/text"}
	if _, err := runner(t).Start(&StartRequest{ID: "kept", Spec: h.spec, Bundle: h.log}); err == nil || !strings.Contains(err.Error(), "execute /text") {
		t.Errorf("no program: %v", err)
	}
}
