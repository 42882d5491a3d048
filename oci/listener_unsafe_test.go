package oci

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// agent is a seccomp agent: it refuses mkdir with ENOMEDIUM, which no
// filesystem gives, and lets everything else pass.
type agent struct {
	t      *testing.T
	path   string
	states chan specs.ContainerProcessState
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, path: filepath.Join(t.TempDir(), "agent"), states: make(chan specs.ContainerProcessState, 8)}
	l, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			a.accept(conn.(*net.UnixConn))
		}
	}()
	return a
}

// accept takes one state with its descriptor, and serves that until no process
// has the filter any more.
func (a *agent) accept(conn *net.UnixConn) {
	defer conn.Close()
	b, oob := make([]byte, 1<<16), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		a.t.Errorf("agent: %v", err)
		return
	}
	fds := descriptors(oob[:oobn])
	if len(fds) != 1 {
		a.t.Errorf("agent: %d descriptors came", len(fds))
		return
	}
	if more, _ := conn.Read(make([]byte, 1)); more != 0 {
		a.t.Error("agent: the connection was used again")
	}
	var st specs.ContainerProcessState
	if err := json.Unmarshal(b[:n], &st); err != nil {
		a.t.Errorf("agent: %v: %s", err, b[:n])
	}
	go a.serve(fds[0])
	a.states <- st
}

func (a *agent) serve(fd int) {
	defer unix.Close(fd)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return
		}
		if p[0].Revents&unix.POLLIN == 0 { // POLLHUP: the last process has gone
			return
		}
		var request [80]byte // struct seccomp_notif
		if control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, &request[0]) != 0 {
			continue // the process was killed meanwhile
		}
		var response [24]byte // struct seccomp_notif_resp
		copy(response[:8], request[:8])
		if binary.LittleEndian.Uint32(request[16:]) == unix.SYS_MKDIRAT || binary.LittleEndian.Uint32(request[16:]) == mkdirNumber {
			errno := -int32(unix.ENOMEDIUM)
			binary.LittleEndian.PutUint32(response[16:], uint32(errno))
		} else {
			binary.LittleEndian.PutUint32(response[20:], unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
		}
		control(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, &response[0])
	}
}

func control(fd int, request uintptr, b *byte) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(b)))
	return errno
}

func notifying(path string, names ...string) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "for the agent",
		Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActNotify}},
	}
}

const refused = "No medium found"

func TestSeccompAgentAnswers(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	a := newAgent(t)
	for name, c := range map[string]struct {
		names string
		set   func(*specs.Spec)
	}{
		"one call":                  {names: "mkdir mkdirat"},
		"without no_new_privs":      {"mkdir mkdirat", func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
		"as a user":                 {"mkdir mkdirat", func(s *specs.Spec) { s.Process.User.UID = 1000; s.Process.User.GID = 1000 }},
		"the exec is asked about":   {names: "mkdir mkdirat execve"},
		"the descriptor is taken":   {names: "mkdir mkdirat sendmsg sendmmsg"},
		"taken as a user":           {"mkdir mkdirat sendmsg", func(s *specs.Spec) { s.Process.User.UID = 1000; s.Process.NoNewPrivileges = false }},
		"nothing can be waited for": {names: "mkdir mkdirat read write"},
		"waiting is forbidden":      {"mkdir mkdirat", func(s *specs.Spec) { s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, forbidden("read")) }},
		"killable": {"mkdir mkdirat", func(s *specs.Spec) {
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		}},
		"with the flag of all threads": {"mkdir mkdirat", func(s *specs.Spec) {
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := specFor(root, "sh", "-c", "mkdir /tmp/x; echo end")
			if strings.Contains(name, "waiting is forbidden") {
				s.Process.Args = []string{"mkdir", "/tmp/x"}
			}
			s.Annotations = map[string]string{"k": "v"}
			s.Linux.Seccomp = notifying(a.path, strings.Fields(c.names)...)
			if c.set != nil {
				c.set(s)
			}
			out, _, err := run(t, s)
			if err != nil || !strings.Contains(out, refused) {
				t.Errorf("%v, %q", err, out)
			}
			st := <-a.states
			if st.Version != specs.Version || len(st.Fds) != 1 || st.Fds[0] != "seccompFd" || st.Metadata != "for the agent" ||
				st.Pid == 0 || st.State.Pid != st.Pid || st.State.ID != "test" || st.State.Status != specs.StateCreating ||
				st.State.Version != specs.Version || !filepath.IsAbs(st.State.Bundle) || st.State.Annotations["k"] != "v" {
				t.Errorf("the agent was told %+v", st)
			}
		})
	}
}

func forbidden(names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActErrno}
}

// An exec has a filter and a listener of its own, also when it clones itself
// into the container's pid namespace first.
func TestSeccompAgentAnswersExecs(t *testing.T) {
	needRoot(t)
	a := newAgent(t)
	for _, names := range []string{"mkdir mkdirat", "mkdir mkdirat sendmsg"} {
		t.Run(names, func(t *testing.T) {
			s := startSleeper(t, func(s *specs.Spec) { s.Linux.Seccomp = notifying(a.path, strings.Fields(names)...) })
			first := <-a.states
			out, _, err := s.exec(s.process("sh", "-c", "mkdir /tmp/x; echo end"))
			if err != nil || !strings.Contains(out, refused) || !strings.HasSuffix(out, "end") {
				t.Errorf("%v, %q", err, out)
			}
			st := <-a.states
			if st.State.Status != specs.StateRunning || st.State.Pid != first.Pid || st.Pid == first.Pid || st.Pid == 0 {
				t.Errorf("the agent was told %+v", st)
			}
		})
	}
}

func TestSeccompAgentOfACreatedContainer(t *testing.T) {
	needRoot(t)
	a := newAgent(t)
	store := &Store{Root: t.TempDir()}
	spec := specFor(rootfs(t), "mkdir", "/tmp/x")
	spec.Linux.Seccomp = notifying(a.path, "mkdir", "mkdirat", "close")
	c := newContainer(t, store, "waits", spec)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pr, err := c.Launch(runner(t), spec, LaunchOptions{Wait: true, Stdio: Stdio{Err: w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if st := <-a.states; st.State.ID != "waits" || st.Pid != pr.Pid {
		t.Errorf("the agent was told %+v", st)
	}
	if err := c.Start(); err != nil {
		t.Error(err)
	}
	var out [256]byte
	n, _ := r.Read(out[:])
	if !strings.Contains(string(out[:n]), refused) {
		t.Errorf("%q", out[:n])
	}
	if _, err := pr.Wait(); err != nil {
		t.Error(err)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}

func TestSeccompListenerErrors(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	missing := filepath.Join(t.TempDir(), "nobody")
	for name, c := range map[string]struct {
		profile *specs.LinuxSeccomp
		class   error
		want    string
	}{
		"nobody listens": {notifying(missing, "mkdir"), unix.ENOENT, "linux.seccomp.listenerPath " + missing},
		"no path":        {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: notifying("", "mkdir").Syscalls}, errdefs.ErrInvalid, "needs listenerPath"},
		"only metadata":  {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "x"}, errdefs.ErrInvalid, "listenerMetadata: needs listenerPath"},
		"all calls":      {&specs.LinuxSeccomp{DefaultAction: specs.ActNotify, ListenerPath: missing}, errdefs.ErrUnsupported, "neither sendmsg nor write"},
	} {
		t.Run(name, func(t *testing.T) {
			s := specFor(root, "true")
			s.Linux.Seccomp = c.profile
			if _, _, err := run(t, s); !errors.Is(err, c.class) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	// A path without a profile that asks is not looked at.
	s := specFor(root, "true")
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: missing}
	mustRun(t, s)
}
