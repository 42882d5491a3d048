package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

func TestRunPrintsAndExits(t *testing.T) {
	te := newTestEngine(t)
	out, code := te.output(request("sh", "-c", "echo hello; exit 3"))
	if out != "hello\n" || code != 3 {
		t.Errorf("printed %q, exited %d", out, code)
	}
}

func TestAutoRemove(t *testing.T) {
	te := newTestEngine(t)
	req := request("false")
	req.HostConfig.AutoRemove = true
	id := te.create("", req)
	ch, err := te.ContainerWait(t.Context(), id, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerStart(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if resp := <-ch; resp.StatusCode != 1 {
		t.Errorf("exit code %d", resp.StatusCode)
	}
	if _, err := te.ContainerInspect(t.Context(), id, false); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("inspect after --rm: %v", err)
	}
}

func (te *testEngine) inspect(id string) *container.InspectResponse {
	te.t.Helper()
	resp, err := te.ContainerInspect(te.t.Context(), id, false)
	if err != nil {
		te.t.Fatalf("inspect: %v", err)
	}
	return resp
}

func (te *testEngine) stopIn(id string, seconds int) error {
	return te.ContainerStop(te.t.Context(), id, StopOptions{Timeout: &seconds})
}

func TestLifecycle(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.create("ship", request("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
	if st := te.inspect("ship").State; st.Status != stateCreated || st.Running || st.StartedAt != zeroTime {
		t.Errorf("after create: %+v", st)
	}
	if err := te.ContainerStart(ctx, "ship"); err != nil {
		t.Fatal(err)
	}
	got := te.inspect(id[:10])
	if got.Name != "/ship" || !got.State.Running || got.State.Pid == 0 || got.Config.Hostname != id[:12] || got.Path != "sh" {
		t.Errorf("running: %+v", got)
	}
	if err := te.ContainerStart(ctx, id); !errors.Is(err, errdefs.ErrNotModified) {
		t.Errorf("start twice: %v", err)
	}
	if err := te.ContainerRemove(ctx, id, RemoveOptions{}); !errors.Is(err, errdefs.ErrConflict) || errdefs.Hint(err) == "" {
		t.Errorf("remove a running one: %v", err)
	}
	te.awaitLog(id, "ready")
	if err := te.stopIn(id, 20); err != nil {
		t.Fatal(err)
	}
	if st := te.inspect(id).State; st.Status != stateExited || st.ExitCode != 5 || st.Pid != 0 || st.FinishedAt == zeroTime {
		t.Errorf("after stop: %+v", st)
	}
	if err := te.stopIn(id, 1); !errors.Is(err, errdefs.ErrNotModified) {
		t.Errorf("stop twice: %v", err)
	}
	if err := te.ContainerKill(ctx, id, ""); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("kill an exited one: %v", err)
	}
	if err := te.ContainerRestart(ctx, id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	first := te.inspect(id).State
	if err := te.ContainerRestart(ctx, id, StopOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	if st := te.inspect(id).State; !st.Running || st.Pid == first.Pid || st.StartedAt == first.StartedAt {
		t.Errorf("after restart: %+v, before %+v", st, first)
	}
	if err := te.ContainerRemove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerRemove(ctx, id, RemoveOptions{Force: true}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("remove twice: %v", err)
	}
}

func TestStopEscalates(t *testing.T) {
	te := newTestEngine(t)
	id := te.run("", request("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"))
	te.awaitLog(id, "deaf")
	if err := te.stopIn(id, 0); err != nil {
		t.Fatal(err)
	}
	if st := te.inspect(id).State; st.ExitCode != 137 {
		t.Errorf("exit code %d", st.ExitCode)
	}
	req := request("sh", "-c", "trap 'echo usr1' USR1; trap 'exit 12' USR2; echo ready; while :; do sleep 0.1; done")
	req.StopSignal = "SIGUSR2"
	id = te.run("", req)
	te.awaitLog(id, "ready")
	if err := te.ContainerKill(t.Context(), id, "USR1"); err != nil {
		t.Fatal(err)
	}
	te.awaitLog(id, "usr1")
	if err := te.stopIn(id, 20); err != nil {
		t.Fatal(err)
	}
	if st := te.inspect(id).State; st.ExitCode != 12 {
		t.Errorf("exit code after the stop signal: %d", st.ExitCode)
	}
}

// awaitLog follows a container's log until text is in it.
func (te *testEngine) awaitLog(id, text string) {
	te.t.Helper()
	ctx, cancel := context.WithCancel(te.t.Context())
	defer cancel()
	seen := &logUntil{text: text, found: cancel}
	err := te.ContainerLogs(ctx, id, LogsOptions{Stdout: true, Stderr: true, Follow: true, Tail: -1}, seen)
	if !seen.ok {
		te.t.Fatalf("%q is not in the log: %v\n%s", text, err, seen.all)
	}
}

type logUntil struct {
	text, all string
	found     func()
	ok        bool
}

func (l *logUntil) Begin(bool) error { return nil }
func (l *logUntil) Flush() error     { return nil }
func (l *logUntil) WriteLog(_ LogStream, p []byte) error {
	l.all += string(p)
	if !l.ok && strings.Contains(l.all, l.text) {
		l.ok = true
		l.found()
	}
	return nil
}

func TestPause(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.run("", request("sleep", "1000"))
	if err := te.ContainerPause(ctx, id); err != nil {
		t.Fatal(err)
	}
	if st := te.inspect(id).State; !st.Paused || !st.Running || st.Status != statePaused {
		t.Errorf("paused: %+v", st)
	}
	for what, err := range map[string]error{
		"pause twice": te.ContainerPause(ctx, id),
		"start":       te.ContainerStart(ctx, id),
		"exec": func() error {
			_, err := te.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"true"}})
			return err
		}(),
		"remove": te.ContainerRemove(ctx, id, RemoveOptions{}),
	} {
		if !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("%s of a paused container: %v", what, err)
		}
	}
	if err := te.ContainerUnpause(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerUnpause(ctx, id); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("unpause twice: %v", err)
	}
	if out, code := te.exec(id, "echo", "thawed"); out != "thawed\n" || code != 0 {
		t.Errorf("exec after unpause: %q, %d", out, code)
	}
	if err := te.ContainerPause(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerKill(ctx, id, "KILL"); err != nil {
		t.Errorf("kill a paused one: %v", err)
	}
	if st := te.inspect(id).State; st.Status != stateExited || st.ExitCode != 137 {
		t.Errorf("after kill: %+v", st)
	}
}

func TestStartFailures(t *testing.T) {
	te := newTestEngine(t)
	for _, tc := range []struct {
		name string
		req  *container.CreateRequest
		code int
		text string
	}{
		{"missing command", request("no-such-command"), 127, "no-such-command"},
		{"missing path", request("/bin/none"), 127, "/bin/none"},
		{"not executable", request("/etc/notexec"), 126, "permission denied"},
		{"a directory", request("/etc"), 126, ""},
		{"bad user", func() *container.CreateRequest { r := request("true"); r.User = "pirate"; return r }(), 128,
			"unable to find user pirate: no matching entries in passwd file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := te.create("", tc.req)
			err := te.ContainerStart(t.Context(), id)
			if err == nil || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
			st := te.inspect(id).State
			if st.Status != stateCreated || st.ExitCode != tc.code || st.Error == "" || st.Pid != 0 {
				t.Errorf("state %+v, want exit code %d", st, tc.code)
			}
			if err := te.ContainerRemove(t.Context(), id, RemoveOptions{}); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
}

func TestCreateFailures(t *testing.T) {
	te := newTestEngine(t)
	te.create("taken", request("true"))
	if _, err := te.ImageImport(t.Context(), busyboxTar(t), ImageImportOptions{Ref: "foreign", Platform: foreign()}); err != nil {
		t.Fatal(err)
	}
	change := func(f func(r *container.CreateRequest)) *container.CreateRequest {
		r := request("true")
		f(r)
		return r
	}
	for _, tc := range []struct {
		name, as string
		req      *container.CreateRequest
		class    error
		text     string
	}{
		{"no image", "", change(func(r *container.CreateRequest) { r.Image = "none:1" }), errdefs.ErrNotFound, "no such image: none:1"},
		{"architecture", "", change(func(r *container.CreateRequest) { r.Image = "foreign" }), nil, "s390x"},
		{"name taken", "taken", request("true"), errdefs.ErrConflict, `"taken" is already in use`},
		{"bad name", "a/b", request("true"), errdefs.ErrInvalid, "invalid container name"},
		{"memory", "", change(func(r *container.CreateRequest) { r.HostConfig.Memory = 1 << 20 }), errdefs.ErrInvalid, "minimum memory limit allowed is 6MB"},
		{"network", "", change(func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "mesh" }), errdefs.ErrInvalid, "network mesh not found"},
		{"volume", "", change(func(r *container.CreateRequest) { r.HostConfig.Binds = []string{"da ta:/data"} }), errdefs.ErrInvalid, "invalid characters"},
		{"join", "", change(func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "container:none" }), errdefs.ErrInvalid, "no such container: none"},
		{"no command", "", change(func(r *container.CreateRequest) { r.Cmd, r.Entrypoint = nil, []string{""} }), nil, ""},
		{"sysctl of the host", "", change(func(r *container.CreateRequest) { r.HostConfig.Sysctls = map[string]string{"kernel.panic": "1"} }), errdefs.ErrInvalid, "kernel.panic"},
		{"rm and restart", "", change(func(r *container.CreateRequest) {
			r.HostConfig.AutoRemove, r.HostConfig.RestartPolicy.Name = true, "always"
		}), errdefs.ErrInvalid, "conflicting options"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := te.ContainerCreate(t.Context(), tc.as, tc.req, nil)
			if tc.text == "" {
				return
			}
			if err == nil || tc.class != nil && !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q (%v)", err, tc.text, tc.class)
			}
		})
	}
}

func TestProcessSettings(t *testing.T) {
	te := newTestEngine(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		set  func(r *container.CreateRequest)
		sh   string
		want string
	}{
		{"user", func(r *container.CreateRequest) { r.User = "sailor"; r.HostConfig.GroupAdd = []string{"7"} },
			"id -u; id -G; echo $HOME", "1000\n1000 7 2000\n/home/sailor\n"},
		{"working directory is made", func(r *container.CreateRequest) { r.WorkingDir = "/srv/deep" }, "pwd", "/srv/deep\n"},
		{"environment", func(r *container.CreateRequest) { r.Env = []string{"A=b c"} }, "echo $A $PATH", "b c /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
		{"hostname", func(r *container.CreateRequest) { r.Hostname = "prow" }, "hostname; cat /etc/hostname", "prow\nprow\n"},
		{"extra hosts", func(r *container.CreateRequest) { r.HostConfig.ExtraHosts = []string{"buoy:10.9.8.7"} }, "grep buoy /etc/hosts", "10.9.8.7\tbuoy\n"},
		{"bind", func(r *container.CreateRequest) { r.HostConfig.Binds = []string{host + ":/mnt:ro"} },
			"cat /mnt/f; touch /mnt/g 2>/dev/null || echo ro", "from the host\nro\n"},
		{"tmpfs", func(r *container.CreateRequest) { r.HostConfig.Tmpfs = map[string]string{"/scratch": "size=64k"} },
			"grep ' /scratch ' /proc/mounts | grep -o size=64k; dd if=/dev/zero of=/scratch/x bs=1k count=100 2>/dev/null || echo full", "size=64k\nfull\n"},
		{"read-only root", func(r *container.CreateRequest) { r.HostConfig.ReadonlyRootfs = true }, "touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo shm", "ro\nshm\n"},
		{"shm size", func(r *container.CreateRequest) { r.HostConfig.ShmSize = 1 << 20 }, "grep ' /dev/shm ' /proc/mounts | grep -o size=1024k", "size=1024k\n"},
		{"sysctl", func(r *container.CreateRequest) { r.HostConfig.Sysctls = map[string]string{"net.core.somaxconn": "77"} }, "cat /proc/sys/net/core/somaxconn", "77\n"},
		{"capabilities", func(r *container.CreateRequest) { r.HostConfig.CapDrop = []string{"ALL"} }, "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"},
		{"no new privileges", func(r *container.CreateRequest) { r.HostConfig.SecurityOpt = []string{"no-new-privileges"} }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"seccomp", nil, "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		{"seccomp unconfined", func(r *container.CreateRequest) { r.HostConfig.SecurityOpt = []string{"seccomp=unconfined"} }, "grep ^Seccomp: /proc/self/status", "Seccomp:\t0\n"},
		{"privileged", func(r *container.CreateRequest) { r.HostConfig.Privileged = true }, "grep ^Seccomp: /proc/self/status; echo x > /proc/sys/kernel/hostname && test -c /dev/zero && echo rw", "Seccomp:\t0\nrw\n"},
		{"masked", nil, "ls /sys/firmware; (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo ro", "ro\n"},
		{"device", func(r *container.CreateRequest) {
			r.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/nil", CgroupPermissions: "rw"}}
		}, "echo x > /dev/nil && test -c /dev/nil && echo ok", "ok\n"},
		{"pid 1", nil, "echo $$", "1\n"},
		{"oom score", func(r *container.CreateRequest) { r.HostConfig.OomScoreAdj = 500 }, "cat /proc/self/oom_score_adj", "500\n"},
		{"umask", func(r *container.CreateRequest) { u := uint32(0o77); r.HostConfig.Umask = &u }, "umask", "0077\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := request("sh", "-c", tc.sh)
			if tc.set != nil {
				tc.set(req)
			}
			if out, code := te.output(req); out != tc.want {
				t.Errorf("printed %q (exit %d), want %q", out, code, tc.want)
			}
		})
	}
}

func TestAnonymousVolume(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "cat /home/sailor/chart; stat -c '%u %a' /home/sailor /home/sailor/chart; echo more > /home/sailor/log")
	req.Volumes = map[string]struct{}{"/home/sailor": {}, "/new": {}}
	id := te.run("", req)
	te.wait(id, container.WaitConditionNotRunning)
	if out, _ := te.logs(id); out != "here be dragons\n1000 750\n1000 640\n" {
		t.Errorf("printed %q", out)
	}
	mounts := te.inspect(id).Mounts
	if len(mounts) != 2 || mounts[0].Destination != "/home/sailor" {
		t.Fatalf("mounts %+v", mounts)
	}
	if data, err := os.ReadFile(filepath.Join(mounts[0].Source, "log")); err != nil || string(data) != "more\n" {
		t.Errorf("in the volume: %q, %v", data, err)
	}
	if err := te.ContainerRemove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mounts[0].Source); err != nil {
		t.Errorf("volume went with the container though nobody asked: %v", err)
	}
	id = te.create("", req)
	source := te.inspect(id).Mounts[0].Source
	if err := te.ContainerRemove(t.Context(), id, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(source); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("volume is left: %v", err)
	}
}

func TestAttachBeforeStart(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh", "-c", "echo first; cat; echo last")
	req.OpenStdin, req.StdinOnce = true, true
	id := te.create("", req)
	s, err := te.ContainerAttach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := te.ContainerStart(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "middle\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out := demux(t, s); out != "first\nmiddle\nlast\n" {
		t.Errorf("attached to %q", out)
	}
	te.wait(id, container.WaitConditionNotRunning)
	if out, _ := te.logs(id); out != "first\nmiddle\nlast\n" {
		t.Errorf("logged %q", out)
	}
}

func TestTerminal(t *testing.T) {
	te := newTestEngine(t)
	req := request("sh")
	req.Tty, req.OpenStdin = true, true
	req.HostConfig.ConsoleSize = [2]uint{30, 100}
	id := te.create("", req)
	s, err := te.ContainerAttach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil || !s.TTY() {
		t.Fatalf("attach: %v", err)
	}
	if err := te.ContainerStart(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, s: s}
	term.say("stty size\n")
	term.expect("30 100")
	if err := te.ContainerResize(t.Context(), id, 40, 120); err != nil {
		t.Fatal(err)
	}
	term.say("stty size; echo $TERM\n")
	term.expect("40 120")
	term.expect("xterm")
	if _, err := io.WriteString(s, "\x10\x11"); !errors.Is(err, errDetached) {
		t.Errorf("detach keys: %v", err)
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Errorf("read after detach: %v", err)
	}
	if !te.inspect(id).State.Running {
		t.Error("the container ended with the attachment")
	}
	s, err = te.ContainerAttach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	term = &terminal{t: t, s: s}
	term.say("exit 9\n")
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Errorf("read to the end: %v", err)
	}
	if code := te.wait(id, container.WaitConditionNotRunning); code != 9 {
		t.Errorf("exit code %d", code)
	}
}

// terminal types and waits for answers.
type terminal struct {
	t   *testing.T
	s   Stream
	got string
}

func (r *terminal) say(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.s, text); err != nil {
		r.t.Fatalf("type %q: %v", text, err)
	}
}

func (r *terminal) expect(text string) {
	r.t.Helper()
	buf := make([]byte, 1024)
	for !strings.Contains(r.got, text) {
		n, err := r.s.Read(buf)
		if err != nil {
			r.t.Fatalf("%q did not come, but %q: %v", text, r.got, err)
		}
		r.got += string(buf[:n])
	}
	_, r.got, _ = strings.Cut(r.got, text)
}
