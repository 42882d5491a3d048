package oci

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// stranger is a process of the host in a cgroup.
func stranger(t *testing.T, s cgroup.State) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, dir := range s.Dirs {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

// TestDeleteSparesStrangers: a record's path is no proof that what is there is the
// container's.
func TestDeleteSparesStrangers(t *testing.T) {
	needRoot(t)
	path := "/berth-oci-test/" + filepath.Base(t.TempDir())
	t.Cleanup(func() {
		if err := cgroup.RemoveEmpty("/berth-oci-test"); err != nil && !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		name string
		// interrupted leaves the record of a creation that was killed.
		interrupted func(t *testing.T, c *Container, g *cgroup.Group)
		ours        bool
	}{
		{"killed before the cgroup was made", func(t *testing.T, c *Container, g *cgroup.Group) {
			if err := errors.Join(c.save(), g.Make(nil)); err != nil { // by somebody else
				t.Fatal(err)
			}
		}, false},
		{"killed after", func(t *testing.T, c *Container, g *cgroup.Group) {
			g.SetOwner(c.ownerName())
			if err := errors.Join(c.save(), g.Make(nil)); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"the cgroup vanished and was made anew", func(t *testing.T, c *Container, g *cgroup.Group) {
			c.Pid, c.Started, c.Owned = 1<<22, 7, true
			if err := errors.Join(c.save(), g.Make(nil)); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &Store{Root: t.TempDir()}
			first, err := store.New("x", t.TempDir(), []byte(`{"linux":{}}`))
			if err != nil {
				t.Fatal(err)
			}
			g, err := cgroup.Plan(path)
			if err != nil {
				t.Fatal(err)
			}
			first.Cgroup = g.State()
			c.interrupted(t, first, g)
			first.Close()
			cmd := stranger(t, g.State())
			again, err := store.Open("x")
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Kill(unix.SIGKILL, true); err != nil {
				t.Error(err)
			}
			if err := again.Delete(true); err != nil {
				t.Error(err)
			}
			if !c.ours {
				if started, _, err := procStat(cmd.Process.Pid); err != nil || started == 0 || cmd.Process.Signal(unix.Signal(0)) != nil {
					t.Error("a stranger was killed")
				}
				_ = cmd.Process.Kill()
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("the process ended with %v", err)
			}
			if _, err := cgroup.Restore(g.State()); c.ours != errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("the cgroup: %v", err)
			}
			if !c.ours {
				if err := g.Destroy(); err != nil {
					t.Error(err)
				}
			}
			g.Close()
		})
	}
}

// TestExecInSubCgroup: exec starts where it is told to, below the container's
// cgroup only, and finds the way in when the top is shut.
func TestExecInSubCgroup(t *testing.T) {
	spec := specFor(rootfs(t), "sleep", "1000")
	_, c, err := stored(t, spec, LaunchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g, err := c.Group()
	if err != nil {
		t.Fatal(err)
	}
	prefix, top := "", g.State().Dirs[""]
	if g.Mode() != cgroup.Unified {
		prefix, top = "pids:", g.State().Dirs["pids"]
	}
	if err := os.Mkdir(top+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	where := func(o ExecOptions) (string, error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		process := *spec.Process
		process.Args = []string{"cat", "/proc/self/cgroup"}
		o.Stdio = Stdio{Out: w}
		pr, err := c.Exec(runner(t), spec, &process, o)
		w.Close()
		if err != nil {
			return "", err
		}
		defer pr.Close()
		var b strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				break
			}
		}
		_, err = pr.Wait()
		return b.String(), err
	}
	if out, err := where(ExecOptions{Cgroup: []string{prefix + "sub"}}); err != nil || !strings.Contains(out, "/sub\n") {
		t.Errorf("in a sub-cgroup: %q, %v", out, err)
	}
	for _, place := range []string{prefix + "..", prefix + "sub/../.."} {
		if out, err := where(ExecOptions{Cgroup: []string{place}}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %q, %v, want invalid", place, out, err)
		}
	}
	if out, err := where(ExecOptions{Cgroup: []string{prefix + "nosuch"}}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a cgroup that is not there: %q, %v", out, err)
	}
	if g.Mode() != cgroup.Unified {
		return
	}
	// As systemd in the container does.
	for _, f := range [][2]string{{"/sub/cgroup.procs", strconv.Itoa(c.Pid)}, {"/cgroup.subtree_control", "+memory +pids"}} {
		if err := os.WriteFile(top+f[0], []byte(f[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := where(ExecOptions{}); err != nil || !strings.Contains(out, "/sub\n") {
		t.Errorf("beside the first process: %q, %v", out, err)
	}
}
