//go:build peers

package peers

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/test/typist"
)

// containerd is containerd's client, with a daemon behind it that has the image.
func containerd(t *testing.T) *engine {
	t.Helper()
	need(t, "containerd", "ctr", "containerd-shim-runc-v2")
	p := thePlace()
	const socket = "/run/containerd-test/socket"
	serve(t, "containerd", "--config", "/dev/null", "--root", filepath.Join(p.work, "containerd"), "--state", "/run/containerd-test/state", "--address", socket)
	e := &engine{
		argv:       []string{"ctr", "--address", socket},
		runOptions: []string{"--runc-binary", p.runtime},
	}
	e.must(t, "images", "import", p.archive)
	t.Cleanup(func() {
		if left := e.must(t, "containers", "ls", "-q"); left != "" {
			t.Errorf("containers are left: %s", left)
		}
	})
	return e
}

// ctrRun is the command line that runs args in a new container.
func (e *engine) ctrRun(id string, options []string, args ...string) []string {
	argv := append([]string{"run", "--cgroup", thePlace().cgroup + "/containerd/" + id}, e.runOptions...)
	return append(append(append(argv, options...), image, id), args...)
}

// ctrDetached starts a container that is removed when the test ends, and
// returns the id of its process.
func (e *engine) ctrDetached(t *testing.T, id string, options []string, script string) (pid int) {
	t.Helper()
	t.Cleanup(func() {
		e.try(t, "", "tasks", "rm", "-f", id) // it may be gone
		e.must(t, "containers", "rm", id)
	})
	e.must(t, e.ctrRun(id, append([]string{"-d"}, options...), "sh", "-c", script)...)
	pid, status := e.task(t, id)
	if status != "RUNNING" {
		t.Fatalf("the task is %s", status)
	}
	return pid
}

// readiness is what a script needs that says on /host/ready how far it is, and
// waits for its word.
func readiness(t *testing.T) (options []string, wait func()) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "ready")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(name, os.O_RDWR, 0) // so that neither side waits for the other
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fifo.Close() })
	return []string{"--mount", "type=bind,src=" + dir + ",dst=/host,options=rbind"}, func() {
		t.Helper()
		if err := fifo.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := fifo.Read(make([]byte, 16)); err != nil {
			t.Fatalf("it does not become ready: %v", err)
		}
	}
}

// task is what "tasks ls" says of one; status is "" when it is not there.
func (e *engine) task(t *testing.T, id string) (pid int, status string) {
	t.Helper()
	for line := range strings.Lines(e.must(t, "tasks", "ls")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return pid, f[2]
		}
	}
	return 0, ""
}

func TestContainerd(t *testing.T) {
	e := containerd(t)
	t.Run("run", func(t *testing.T) { testContainerdRun(t, e) })
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"errors", testContainerdErrors}, {"life", testContainerdLife}, {"exec", testContainerdExec}, {"terminal", testContainerdTerminal},
		{"limits", testContainerdLimits},
		{"processes", testContainerdProcesses}, {"joined network", testContainerdJoins}, {"lost shim", testContainerdLostShim},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

func testContainerdRun(t *testing.T, e *engine) {
	for i, s := range []scene{
		{name: "output", script: "echo out; echo err >&2", want: "out"},
		{name: "exit code", script: "exit 7", code: 7},
		{name: "environment and directory", options: []string{"--env", "CARGO=tea", "--cwd", "/tmp"}, script: "echo $CARGO; pwd", want: "tea\n/tmp"},
		{name: "read-only", options: []string{"--read-only"}, script: "touch /x 2>/dev/null || echo refused", want: "refused"},
		{name: "bind mount", options: []string{"--mount", "type=bind,src=" + t.TempDir() + ",dst=/host,options=rbind:ro"},
			script: "touch /host/x 2>/dev/null || echo refused", want: "refused"},
		{name: "privileged", options: []string{"--privileged"}, script: "grep CapEff /proc/self/status", want: "CapEff:\t" + ownCapabilities(t)},
		{name: "capabilities", options: []string{"--cap-drop", "CAP_MKNOD", "--cap-add", "CAP_SYS_PTRACE"},
			script: "grep CapEff /proc/self/status", want: "CapEff:\t00000000a00c25fb"},
		{name: "seccomp", options: []string{"--seccomp"}, script: "grep Seccomp: /proc/self/status", want: "Seccomp:\t2"},
		{name: "no new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t1"},
		{name: "network of the host", options: []string{"--net-host"}, script: "readlink /proc/self/ns/net", want: ownNamespaces(t, "net")},
		{name: "device", options: []string{"--device", "/dev/fuse"}, script: "(: </dev/fuse) && echo read", want: "read"},
	} {
		t.Run(s.name, func(t *testing.T) {
			r := e.try(t, "", e.ctrRun("run"+strconv.Itoa(i), append([]string{"--rm"}, s.options...), "sh", "-c", s.script)...)
			if r.out != s.want || r.code != s.code {
				t.Errorf("%v: %s\nprints %q, exit code %d\nwant   %q, exit code %d\n%s", s.options, s.script, r.out, r.code, s.want, s.code, r.err)
			}
		})
	}
}

// testContainerdErrors: the runtime's words reach the user, and nothing is left.
func testContainerdErrors(t *testing.T, e *engine) {
	r := e.try(t, "", e.ctrRun("wrong", []string{"--rm"}, "nosuch")...)
	if r.code == 0 || !strings.Contains(r.err, "nosuch: no such file or directory") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

// testContainerdLife is a container with each verb of a task.
func testContainerdLife(t *testing.T, e *engine) {
	pid := e.ctrDetached(t, "life", nil, "trap 'exit 3' TERM; touch /trapped; sleep 1000 & wait")
	// Until then the signal would be lost.
	e.must(t, "tasks", "exec", "--exec-id", "trapped", "life", "sh", "-c", "until [ -e /trapped ]; do :; done")
	status := func(want string) {
		t.Helper()
		if _, got := e.task(t, "life"); got != want {
			t.Errorf("the task is %s, want %s", got, want)
		}
	}
	e.must(t, "tasks", "pause", "life")
	status("PAUSED")
	e.must(t, "tasks", "resume", "life")
	status("RUNNING")
	if got := e.must(t, "tasks", "metrics", "life"); !strings.Contains(got, "pids.current") {
		t.Errorf("metrics are %s", got)
	}
	e.must(t, "tasks", "kill", "-s", "SIGTERM", "life")
	awaitExit(t, pid)
	// It is ErrNotFound for containerd only by the runtime's words.
	if r := e.try(t, "", "tasks", "kill", "-s", "SIGKILL", "life"); r.code == 0 || !strings.Contains(r.err, "process already finished") {
		t.Errorf("killing what has ended: exit code %d: %s", r.code, r.err)
	}
	until(t, "known by the shim to have ended", func() bool {
		_, status := e.task(t, "life")
		return status == "STOPPED"
	})
	if r := e.try(t, "", "tasks", "rm", "life"); !strings.Contains(r.err, "exit code 3") {
		t.Errorf("removing the task tells %q", r.err)
	}
}

func testContainerdExec(t *testing.T, e *engine) {
	e.ctrDetached(t, "exec", nil, "sleep 1000")
	r := e.try(t, "", "tasks", "exec", "--exec-id", "one", "--cwd", "/tmp", "exec", "sh", "-c", "pwd; until grep -q sleep /proc/1/comm; do :; done; exit 4")
	if r.out != "/tmp" || r.code != 4 {
		t.Errorf("prints %q, exit code %d: %s", r.out, r.code, r.err)
	}
	if r := e.try(t, "", "tasks", "exec", "--exec-id", "two", "--user", "1000:1000", "exec", "id", "-u"); r.out != "1000" || r.code != 0 {
		t.Errorf("prints %q, exit code %d: %s", r.out, r.code, r.err)
	}
	if r := e.try(t, "", "tasks", "exec", "--exec-id", "three", "exec", "nosuch"); r.code == 0 || !strings.Contains(r.err, "no such file or directory") {
		t.Errorf("a command that is not there: exit code %d: %s", r.code, r.err)
	}
}

func testContainerdTerminal(t *testing.T, e *engine) {
	p := typist.Sit(t, e.command(t.Context(), e.ctrRun("terminal", []string{"--rm", "-t"}, "sh")...))
	p.Sees("/ #")
	p.Types("tty; until stty size 2>/dev/null | grep '30 90'; do sleep 0.01; done; echo sized\r")
	p.Sees("/dev/pts/0")
	p.Sees("\r\nsized")
	p.Resize(41, 101)
	p.Types("until stty size | grep '41 101'; do sleep 0.01; done; echo followed\r")
	p.Sees("\r\nfollowed")
	p.Types("exit 6\r")
	if code := p.Exits(); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
	e.ctrDetached(t, "screen", nil, "sleep 1000")
	p = typist.Sit(t, e.command(t.Context(), "tasks", "exec", "--exec-id", "shell", "-t", "screen", "sh"))
	p.Sees("/ #")
	p.Types("tty; test -t 0 -a -t 1 -a -t 2 && echo on a terminal\r")
	p.Sees("/dev/pts/0")
	p.Sees("\r\non a terminal")
	p.Types("exit 5\r")
	if code := p.Exits(); code != 5 {
		t.Errorf("exit code %d of exec, want 5", code)
	}
}

// testContainerdLimits looks at the cgroup from outside: containerd's containers
// see none of it.
func testContainerdLimits(t *testing.T, e *engine) {
	e.ctrDetached(t, "limits", []string{"--memory-limit", "67108864", "--cpus", "0.5"}, "sleep 1000")
	path := thePlace().cgroup + "/containerd/limits"
	for _, l := range []struct{ v1, v2, want string }{
		{"memory/memory.limit_in_bytes", "memory.max", "67108864"}, {"cpu/cpu.cfs_quota_us", "cpu.max", "50000"},
	} {
		controller, file := filepath.Split(l.v1)
		value, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, path, file))
		if errors.Is(err, os.ErrNotExist) {
			value, err = os.ReadFile(filepath.Join("/sys/fs/cgroup", path, l.v2))
		}
		if f := strings.Fields(string(value)); err != nil || len(f) == 0 || f[0] != l.want {
			t.Errorf("%s is %q, %v, want %s", l.v1, value, err, l.want)
		}
	}
}

// testContainerdProcesses: the shim asks the runtime for them.
func testContainerdProcesses(t *testing.T, e *engine) {
	pid := e.ctrDetached(t, "processes", nil, "sleep 1000 & sleep 1001 & wait")
	var lines []string
	until(t, "two children", func() bool {
		lines = strings.Split(e.must(t, "tasks", "ps", "processes"), "\n")
		return len(lines) >= 4
	})
	if len(lines) != 4 || !strings.HasPrefix(lines[1], strconv.Itoa(pid)+" ") {
		t.Errorf("of process %d and its two children it shows %q", pid, lines)
	}
}

// testContainerdJoins: a container in the namespaces of another, as in a pod.
func testContainerdJoins(t *testing.T, e *engine) {
	pid := strconv.Itoa(e.ctrDetached(t, "first", nil, "sleep 1000"))
	var options, want []string
	for _, n := range []struct{ option, name string }{{"network", "net"}, {"ipc", "ipc"}, {"uts", "uts"}, {"pid", "pid"}} {
		path := "/proc/" + pid + "/ns/" + n.name
		options = append(options, "--with-ns", n.option+":"+path)
		name, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	options = append(options, "--rm")
	got := e.must(t, e.ctrRun("second", options, "sh", "-c", "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done")...)
	if got != strings.Join(want, "\n") {
		t.Errorf("it is in %q, want %q", got, want)
	}
}

// testContainerdLostShim: when a shim is killed, containerd has the runtime
// kill and remove the container.
func testContainerdLostShim(t *testing.T, e *engine) {
	pid := e.ctrDetached(t, "lost", nil, "sleep 1000")
	shim := parent(t, pid)
	if comm, err := os.ReadFile("/proc/" + strconv.Itoa(shim) + "/comm"); err != nil || !bytes.HasPrefix(comm, []byte("containerd-shim")) {
		t.Fatalf("the parent of the container's process is %q, %v", comm, err)
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitExit(t, pid)
	until(t, "containerd has forgotten the task", func() bool { _, s := e.task(t, "lost"); return s == "" })
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nPPid:\t")
	number, _, _ := strings.Cut(rest, "\n")
	ppid, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return ppid
}
