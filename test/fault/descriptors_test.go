//go:build amd64

package fault

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/oci"
)

// TestCallersDescriptorsDoNotLeak gives berth-oci descriptors that its caller has
// forgotten to close (CVE-2024-21626 was one): the container, an exec and the
// hooks have their streams and what they were given by name.
func TestCallersDescriptorsDoNotLeak(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := newRig(t)
	seen := r.leaky()
	for _, c := range []struct {
		name string
		env  string
		args []string
		want string // the last is the listing itself
	}{
		{"run", "", []string{"run", "fds"}, "0 1 2 3"},
		{"run with descriptors", "", []string{"run", "--preserve-fds", "2", "fds"}, "0 1 2 3 4 5"},
		{"run with sockets", "LISTEN_FDS=1", []string{"run", "fds"}, "0 1 2 3 4"},
		{"run with both", "LISTEN_FDS=1", []string{"run", "--preserve-fds", "1", "fds"}, "0 1 2 3 4 5"},
		{"exec", "", []string{"exec", "long", "ls", "/proc/self/fd"}, "0 1 2 3"},
		{"exec with descriptors", "", []string{"exec", "--preserve-fds", "3", "long", "ls", "/proc/self/fd"}, "0 1 2 3 4 5 6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			if c.args[0] == "exec" {
				if out, code := r.run("run", "-d", "long"); code != 0 {
					t.Fatalf("status %d: %s", code, out)
				}
				defer r.run("delete", "--force", "long")
			}
			if out := r.withLeaks(c.env, c.args...); out != c.want {
				t.Errorf("has %q, want %s", out, c.want)
			}
			if c.args[0] == "run" {
				seen(t)
			}
		})
	}
	t.Run("terminal", func(t *testing.T) {
		r.t = t
		r.terminal("0 1 2 3")
		seen(t)
	})
	r.t = t
	orphans(t)
}

// leaky makes a bundle whose container and hooks say which descriptors they have.
// seen checks what the hooks said, since it was called last.
func (r *rig) leaky() (seen func(*testing.T)) {
	r.t.Helper()
	dir, said := filepath.Join(r.bundle, "fds"), filepath.Join(r.bundle, "said")
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.config("fds", r.listing(said, false))
	r.before = host(r.t, r.bundle, r.root)
	return func(t *testing.T) {
		t.Helper()
		b, err := os.ReadFile(said)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(said); err != nil {
			t.Error(err)
		}
		const hooks = 3
		if got, want := strings.Join(strings.Fields(string(b)), " "), strings.TrimSpace(strings.Repeat("0 1 2 3 ", hooks)); got != want {
			t.Errorf("the hooks have %q, want %s", got, want)
		}
	}
}

func (r *rig) listing(said string, terminal bool) *specs.Spec {
	s := oci.DefaultSpec()
	s.Root.Path = filepath.Join(r.bundle, "rootfs")
	s.Process.Terminal = terminal
	s.Process.Args = []string{"ls", "/proc/self/fd"}
	s.Linux.CgroupsPath = parent + "/fds"
	h := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exec ls /proc/self/fd >>" + said}, Env: []string{"PATH=/bin"}}}
	s.Hooks = &specs.Hooks{CreateRuntime: h, CreateContainer: h, Poststart: h}
	return s
}

// withLeaks runs a command with seven open directories and returns its output's
// words.
func (r *rig) withLeaks(env string, args ...string) string {
	r.t.Helper()
	out, errs := r.file(), r.file()
	defer out.Close()
	defer errs.Close()
	// The sockets are for the process that the variable names.
	argv := append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh"}, r.argv(args)...)
	cmd := exec.Command("/bin/sh", argv...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stdout, cmd.Stderr = out, errs
	for range 7 {
		dir, err := os.Open("/")
		if err != nil {
			r.t.Fatal(err)
		}
		defer dir.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, dir)
	}
	if err := cmd.Run(); err != nil {
		r.t.Errorf("%v: %v: %s", args, err, content(r.t, errs))
	}
	return strings.Join(strings.Fields(content(r.t, out)), " ")
}

// terminal creates a container with a console socket and starts it.
func (r *rig) terminal(want string) {
	r.t.Helper()
	r.config("fds", r.listing(filepath.Join(r.bundle, "said"), true))
	socket := filepath.Join(r.t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer listener.Close()
	r.withLeaks("", "create", "--console-socket", socket, "fds")
	defer r.run("delete", "--force", "fds")
	if err := listener.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	buf, oob := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		r.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		r.t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		r.t.Fatalf("descriptors %v, %v", fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	r.withLeaks("", "start", "fds")
	var got strings.Builder
	for {
		n, err := master.Read(buf)
		got.Write(buf[:n])
		if err != nil { // EIO: the last user of the terminal is gone
			break
		}
	}
	if words := strings.Join(strings.Fields(got.String()), " "); words != want {
		r.t.Errorf("has %q, want %s", words, want)
	}
}
