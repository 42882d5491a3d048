package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/test/executed"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sleeper is a running container for execs.
type sleeper struct {
	t    *testing.T
	req  *StartRequest
	init *Process
	r    *Runner
}

func startSleeper(t *testing.T, set func(*specs.Spec)) *sleeper {
	t.Helper()
	needRoot(t)
	s := specFor(rootfs(t), "sleep", "1000")
	if set != nil {
		set(s)
	}
	r := runner(t)
	req := &StartRequest{ID: "test", Spec: s, Bundle: t.TempDir(), Cgroup: group(t, s)}
	pr, err := r.Start(req)
	if err != nil {
		t.Fatal(err)
	}
	executed.Await(t, pr.Pid)
	t.Cleanup(func() {
		if err := pr.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if _, err := pr.Wait(); err != nil {
			t.Error(err)
		}
		pr.Close()
	})
	return &sleeper{t, req, pr, r}
}

// exec runs a process in the container to its end.
func (s *sleeper) exec(pr *specs.Process) (string, int, error) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	p, err := s.r.Exec(&ExecRequest{
		InitPid: s.init.Pid, InitPidfd: s.init.Pidfd, Spec: s.req.Spec, Process: pr, Cgroup: s.req.Cgroup, Stdio: Stdio{Out: w, Err: w},
	})
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer p.Close()
	if p.Console != nil {
		r = p.Console
	}
	out, err := io.ReadAll(r)
	if err != nil && !errors.Is(err, unix.EIO) { // EIO: the terminal's last user is gone
		s.t.Fatal(err)
	}
	ws, err := p.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
	return string(bytes.TrimSpace(out)), ws.ExitStatus(), nil
}

func (s *sleeper) process(args ...string) *specs.Process {
	pr := *s.req.Spec.Process
	pr.Args = args
	return &pr
}

func TestExecIsInsideTheContainer(t *testing.T) {
	s := startSleeper(t, nil)
	before := hostMounts(t)
	for _, c := range []struct{ script, want string }{
		{"cat /proc/1/cmdline | tr '\\0' ' '", "sleep 1000"},
		{"hostname", "berth"},
		{"for n in mnt pid net ipc uts cgroup; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo other $n; done; echo end", "end"},
		{"cut -d: -f3 /proc/self/cgroup | sort -u", "/"},
		{"ls /proc/self/fd", "0\n1\n2\n3"}, // 3 is the listing itself
		{"grep -h -E 'Cap(Eff|Bnd)' /proc/self/status | cut -f2 | sort -u", "0000000020000420"},
		{"touch /x 2>/dev/null || echo ro", "ro"},
	} {
		if out, code, err := s.exec(s.process("sh", "-c", c.script)); err != nil || code != 0 || out != c.want {
			t.Errorf("%s: %v, status %d, got %q, want %q", c.script, err, code, out, c.want)
		}
	}
	if _, code, err := s.exec(s.process("sh", "-c", "exit 9")); err != nil || code != 9 {
		t.Errorf("exit 9: %v, status %d", err, code)
	}
	if _, _, err := s.exec(s.process("nosuch")); !errors.Is(err, ErrCommandNotFound) {
		t.Errorf("missing command: %v", err)
	}
	if after := hostMounts(t); before != after {
		t.Error("exec changed the host's mounts")
	}
}

func TestExecUser(t *testing.T) {
	s := startSleeper(t, nil)
	pr := s.process("id")
	pr.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}}
	if out, _, err := s.exec(pr); err != nil || out != "uid=5 gid=6 groups=7" {
		t.Errorf("%v, %q", err, out)
	}
}

func TestExecTerminal(t *testing.T) {
	s := startSleeper(t, nil)
	pr := s.process("sh", "-c", "tty; stty size; echo $$ >/dev/tty")
	pr.Terminal = true
	pr.ConsoleSize = &specs.Box{Height: 30, Width: 100}
	out, code, err := s.exec(pr)
	if err != nil || code != 0 || !strings.HasPrefix(out, "/dev/pts/0\r\n30 100\r\n") {
		t.Errorf("%v, status %d, %q", err, code, out)
	}
}

func TestExecInUserNamespace(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		if err := errors.Join(os.Chmod(filepath.Dir(s.Root.Path), 0o755), os.Chown(s.Root.Path, 100000, 100000)); err != nil {
			t.Fatal(err)
		}
	})
	if out, _, err := s.exec(s.process("sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map")); err != nil || out != "0\n 0 100000 65536" {
		t.Errorf("%v, %q", err, out)
	}
}

func TestJoinedPIDNamespace(t *testing.T) {
	s := startSleeper(t, nil)
	spec := *s.req.Spec
	linux := *spec.Linux
	spec.Linux = &linux
	linux.Namespaces = append([]specs.LinuxNamespace{}, linux.Namespaces...)
	for i, n := range linux.Namespaces {
		for kind, file := range map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc"} {
			if n.Type == kind {
				linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", s.init.Pid, file)
			}
		}
	}
	process := *spec.Process
	process.Args = []string{"sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; readlink /proc/self/ns/net; exit 3"}
	spec.Process = &process
	linux.CgroupsPath += "-second"
	out, ws, err := run(t, &spec)
	if err != nil || ws.ExitStatus() != 3 || !strings.HasPrefix(out, "sleep 1000 net:") {
		t.Errorf("%v, status %d, %q", err, ws.ExitStatus(), out)
	}
}
