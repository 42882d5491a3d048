package oci

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/resctrl"
)

// Without resctrl the container is refused, and nothing of it is left.
func TestResctrlIsNeeded(t *testing.T) {
	needRoot(t)
	if root, err := resctrl.Root(); err == nil {
		t.Skipf("resctrl is mounted on %s", root)
	}
	s := specFor(rootfs(t), "true")
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{}
	store := &Store{Root: filepath.Join(t.TempDir(), "state")}
	c, err := store.New("c", "/", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Launch(runner(t), s, LaunchOptions{})
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "linux.intelRdt: not supported: needs resctrl") || errdefs.Hint(err) == "" {
		t.Errorf("%v (%s)", err, errdefs.Hint(err))
	}
	if left, err := os.ReadDir(store.Root); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	s.Linux.IntelRdt.ClosID = "../x"
	if err := check(s); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "linux.intelRdt.closID") {
		t.Error(err)
	}
}

// The first process and every exec join the class before anything else can
// run in them.
func TestResctrlIsJoined(t *testing.T) {
	s := specFor("/nonexistent", "true")
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{}
	host := anyHost()
	g := &resctrl.Group{Class: "/r/c", Monitor: "/r/c/mon_groups/c"}
	for _, users := range []bool{false, true} {
		if users {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		}
		for _, exec := range []bool{false, true} {
			in := &compileInput{spec: s, bundle: "/", host: host}
			if err := in.useResctrl(g); err != nil {
				t.Fatal(err)
			}
			plan, err := compile(in)
			if exec {
				plan, err = compileExec(in, s.Process, inherited{name: "init"}, 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			var joined []string
			for i := range plan.Program.Len() {
				op := plan.Program.Op(i)
				if file, ok := strings.CutPrefix(op.Step, "join class of service "); ok && op.Sys.Name == "write" {
					joined = append(joined, file)
				} else if op.Sys.Name == "setns" || op.Sys.Name == "pivot_root" {
					break
				}
			}
			if strings.Join(joined, " ") != "/r/c/tasks /r/c/mon_groups/c/tasks" {
				t.Errorf("exec %t, users %t: joined %q", exec, users, joined)
			}
		}
	}
	in := &compileInput{spec: s}
	if err := in.useResctrl(nil); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("where nobody removes the class: %v", err)
	}
}

func TestResctrlIsRecorded(t *testing.T) {
	store := &Store{Root: filepath.Join(t.TempDir(), "state")}
	class := filepath.Join(t.TempDir(), "class")
	if err := os.Mkdir(class, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := store.New("c", "/", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	c.Resctrl = &resctrl.Group{Class: class, Made: true}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err = store.Open("c"); err != nil || c.Resctrl == nil || *c.Resctrl != (resctrl.Group{Class: class, Made: true}) {
		t.Fatalf("%v, %+v", err, c)
	}
	if err := c.UpdateResctrl("", "MB:0=10"); err == nil || !strings.Contains(err.Error(), class) {
		t.Errorf("an update where there are no shares: %v", err)
	}
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(class); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the class is left: %v", err)
	}
}
