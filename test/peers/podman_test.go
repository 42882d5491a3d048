//go:build peers

package peers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/test/typist"
)

// podman is Podman as root, with the image loaded.
func podman(t *testing.T) *engine {
	t.Helper()
	need(t, "podman", "conmon")
	p := thePlace()
	dir := filepath.Join(p.work, "podman")
	e := &engine{
		argv: []string{
			"podman", "--root", dir, "--runroot", "/run/podman/containers", "--tmpdir", "/run/podman/tmp",
			"--runtime", p.runtime, "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--log-level", "error",
		},
		env:        []string{"CONTAINERS_CONF=" + containersConf(t, p.work)},
		runOptions: []string{"--cgroup-parent", p.cgroup + "/podman", "--log-driver", "k8s-file"},
		remove:     []string{"rm", "-f", "-t", "0"},
	}
	if r := e.try(t, "", "image", "exists", image); r.code != 0 {
		e.must(t, "load", "-i", p.archive)
	}
	t.Cleanup(func() {
		if left := e.must(t, "ps", "-aq"); left != "" {
			t.Errorf("containers are left: %s", left)
		}
	})
	return e
}

// containersConf tells Podman and buildah the resource limits to ask for: they
// want more than a host without CAP_SYS_RESOURCE has.
func containersConf(t *testing.T, dir string) string {
	t.Helper()
	var limits []string
	for _, l := range []struct {
		name     string
		resource int
	}{{"nofile", unix.RLIMIT_NOFILE}, {"nproc", unix.RLIMIT_NPROC}} {
		var limit unix.Rlimit
		if err := unix.Getrlimit(l.resource, &limit); err != nil {
			t.Fatal(err)
		}
		limits = append(limits, fmt.Sprintf("%q", fmt.Sprintf("%s=%d:%d", l.name, int64(limit.Max), int64(limit.Max))))
	}
	text := "[containers]\ndefault_ulimits = [" + strings.Join(limits, ", ") + "]\n"
	path := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPodman(t *testing.T) {
	e := podman(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"runtime", testPodmanRuntime}, {"run", func(t *testing.T, e *engine) { e.play(t) }}, {"errors", testErrors},
		{"life", testLife}, {"exec", testExec}, {"terminal", testTerminal}, {"standard input", testStdin},
		{"bridge", testBridge}, {"health", testHealth}, {"pod", testPod}, {"restart", testRestart}, {"update", testUpdate}, {"user namespace", testUserNamespace},
		{"files", testFiles}, {"build", testPodmanBuild}, {"tmpfs", testTmpfs}, {"propagation", testPropagation}, {"descriptors", testDescriptors}, {"AppArmor", testAppArmor}, {"created", testCreated},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

// testPodmanRuntime: Podman knows which runtime it uses.
func testPodmanRuntime(t *testing.T, e *engine) {
	if got := e.must(t, "info", "--format", "{{.Host.OCIRuntime.Version}}"); !strings.HasPrefix(got, "berth-oci version ") {
		t.Errorf("its runtime is %q", got)
	}
}

// testErrors: the exit codes of commands that cannot be run are the shell's,
// and the runtime's own words reach the user.
func testErrors(t *testing.T, e *engine) {
	for _, c := range []struct {
		command string
		code    int
		says    string
	}{
		{"nosuch", 127, "no such file or directory"},
		{"/etc/plain", 126, "ermission denied"},
	} {
		r := e.try(t, "", e.run([]string{"--rm", "--network", "none"}, c.command)...)
		if r.code != c.code || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: exit code %d, want %d: %s", c.command, r.code, c.code, r.err)
		}
	}
	r := e.try(t, "", e.run([]string{"--rm", "--network", "none", "--sysctl", "kernel.panic=1"}, "true")...)
	if r.code == 0 || !strings.Contains(r.err, "kernel.panic") {
		t.Errorf("a kernel parameter of the host: exit code %d: %s", r.code, r.err)
	}
}

// testLife is a container from its start to its removal, with each verb.
func testLife(t *testing.T, e *engine) {
	e.detached(t, "life", []string{"--network", "none"}, "trap 'echo bye; exit 3' TERM; echo up; sleep 1000 & wait")
	status := func(want string) {
		t.Helper()
		if got := e.must(t, "inspect", "--format", "{{.State.Status}}", "life"); got != want {
			t.Errorf("the container is %s, want %s", got, want)
		}
	}
	e.awaits(t, "up", "logs", "-f", "life")
	status("running")
	if !e.rootless {
		e.must(t, "pause", "life")
		status("paused")
		if r := e.try(t, "", "exec", "life", "true"); r.code == 0 {
			t.Error("exec in a paused container succeeds")
		}
		e.must(t, "unpause", "life")
		status("running")
		if got := e.must(t, "stats", "--no-stream", "--format", "{{.Name}}", "life"); got != "life" {
			t.Errorf("stats shows %q", got)
		}
	}
	if top := e.must(t, "top", "life"); !strings.Contains(top, "sleep 1000") {
		t.Errorf("top shows %s", top)
	}
	e.must(t, "stop", "life")
	status("exited")
	if got := e.must(t, "wait", "life"); got != "3" {
		t.Errorf("exit code %s, want 3", got)
	}
	if got := e.must(t, "logs", "life"); got != "up\nbye" {
		t.Errorf("the log is %q", got)
	}
	e.must(t, "start", "life")
	status("running")
	e.must(t, "kill", "--signal", "KILL", "life")
	if got := e.must(t, "wait", "life"); got != "137" {
		t.Errorf("exit code %s, want 137", got)
	}
}

// testExec: processes beside the first one.
func testExec(t *testing.T, e *engine) {
	options, limit := []string{"--network", "none", "--memory", "64m"}, "67108864"
	if e.rootless {
		options, limit = options[:2], ""
	}
	e.detached(t, "exec", options, "sleep 1000")
	for _, c := range []struct {
		options []string
		script  string
		want    string
		code    int
	}{
		{nil, "echo out; exit 4", "out", 4},
		{[]string{"-u", "1000:1000", "-w", "/tmp", "-e", "CARGO=tea"}, "id -u; id -g; pwd; echo $CARGO", "1000\n1000\n/tmp\ntea", 0},
		{[]string{"--privileged"}, "ip link set lo mtu 1400 && echo set", "set", 0},
		{nil, "until grep -q sleep /proc/1/comm; do :; done", "", 0},
		{nil, "[ -z '" + limit + "' ] || { " + v1or2("memory/memory.limit_in_bytes", "memory.max") + "}", limit, 0},
	} {
		argv := append(append([]string{"exec"}, c.options...), "exec", "sh", "-c", c.script)
		if r := e.try(t, "", argv...); r.out != c.want || r.code != c.code {
			t.Errorf("%q prints %q, exit code %d; want %q, %d: %s", argv, r.out, r.code, c.want, c.code, r.err)
		}
	}
	if r := e.try(t, "", "exec", "exec", "nosuch"); r.code != 127 && r.code != 126 {
		t.Errorf("a command that is not there: exit code %d: %s", r.code, r.err)
	}
	e.must(t, "exec", "-d", "exec", "sh", "-c", "mkfifo /tmp/fifo; echo done >/tmp/fifo")
	e.awaits(t, "done", "exec", "exec", "sh", "-c", "until [ -p /tmp/fifo ]; do sleep 0.01; done; cat /tmp/fifo")
}

// testTerminal is a user in front of a container, and of an exec.
func testTerminal(t *testing.T, e *engine) {
	p := typist.Sit(t, e.command(t.Context(), e.run([]string{"-it", "--rm", "--network", "none"}, "sh")...))
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
	e.detached(t, "terminal", []string{"--network", "none"}, "sleep 1000")
	p = typist.Sit(t, e.command(t.Context(), "exec", "-it", "terminal", "sh"))
	p.Sees("/ #")
	p.Types("tty; test -t 0 -a -t 1 -a -t 2 && echo on a terminal\r")
	p.Sees("/dev/pts/")
	p.Sees("\r\non a terminal")
	p.Types("exit 5\r")
	if code := p.Exits(); code != 5 {
		t.Errorf("exit code %d of exec, want 5", code)
	}
}

func testStdin(t *testing.T, e *engine) {
	if r := e.try(t, "ahoy", e.run([]string{"-i", "--rm", "--network", "none"}, "cat")...); r.out != "ahoy" || r.code != 0 {
		t.Errorf("cat prints %q, exit code %d: %s", r.out, r.code, r.err)
	}
}

// testBridge: a container on the engine's own network, with a port the host sees.
func testBridge(t *testing.T, e *engine) {
	e.detached(t, "web", []string{"-p", "127.0.0.1:8080:80"}, "echo ahoy >/tmp/index.html; httpd -h /tmp; echo ready; sleep 1000")
	e.awaits(t, "ready", "logs", "-f", "web")
	host := engine{argv: []string{"busybox"}}
	if got := host.must(t, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"); got != "ahoy" {
		t.Errorf("the host reads %q", got)
	}
	if got := e.must(t, e.run([]string{"--rm", "--network", "container:web"}, "wget", "-q", "-O", "-", "http://127.0.0.1/")...); got != "ahoy" {
		t.Errorf("a container beside it reads %q", got)
	}
}

func testHealth(t *testing.T, e *engine) {
	e.detached(t, "health", []string{"--network", "none", "--health-cmd", "test -e /tmp/well", "--health-interval", "disable"}, "sleep 1000")
	if r := e.try(t, "", "healthcheck", "run", "health"); r.code != 1 {
		t.Errorf("the check of an ill container: exit code %d: %s", r.code, r.err)
	}
	e.must(t, "exec", "health", "touch", "/tmp/well")
	e.must(t, "healthcheck", "run", "health")
}

// testPod: containers that share namespaces, held by an infra container.
func testPod(t *testing.T, e *engine) {
	create := []string{"pod", "create", "--name", "fleet", "--infra-image", image, "--infra-command", "sleep 1000",
		"--network", "none", "--share", "net,ipc,uts,pid"}
	if !e.rootless {
		create = append(create, "--cgroup-parent", thePlace().cgroup+"/podman")
	}
	e.must(t, create...)
	t.Cleanup(func() { e.must(t, "pod", "rm", "-f", "-t", "0", "fleet") })
	const script = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done"
	e.must(t, "run", "-d", "--pod", "fleet", "--name", "first", image, "sleep", "1000")
	first := strings.Fields(e.must(t, "exec", "first", "sh", "-c", script))
	second := strings.Fields(e.must(t, "run", "--rm", "--pod", "fleet", image, "sh", "-c", script+"; hostname"))
	if len(first) != 5 || len(second) != 6 {
		t.Fatalf("namespaces are %q and %q", first, second)
	}
	for i, name := range first[:4] {
		if second[i] != name {
			t.Errorf("not shared: %s and %s", name, second[i])
		}
	}
	if first[4] == second[4] || second[5] != "fleet" {
		t.Errorf("mount namespaces %s and %s, host name %s", first[4], second[4], second[5])
	}
	if got := e.must(t, "run", "--rm", "--pod", "fleet", image, "sh", "-c", "cat /proc/[0-9]*/comm | sort | uniq -c | grep sleep"); !strings.Contains(got, "2 sleep") {
		t.Errorf("in the pod run %q, want two sleeps", got)
	}
	if !e.rootless {
		e.must(t, "pod", "pause", "fleet")
		e.must(t, "pod", "unpause", "fleet")
	}
	e.must(t, "pod", "stop", "-t", "0", "fleet")
}

// testRestart: the engine starts a failed container again.
func testRestart(t *testing.T, e *engine) {
	dir := openDir(t)
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Chmod(fifo, 0o666)); err != nil {
		t.Fatal(err)
	}
	told, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	e.detached(t, "restart", []string{"--network", "none", "--restart", "on-failure:2", "-v", dir + ":/host"},
		"echo start >>/starts; wc -l </starts >/host/fifo; exit 5")
	if err := told.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(told)
	for _, want := range []string{"1\n", "2\n", "3\n"} {
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Fatalf("it says %q, %v, want %q", got, err, want)
		}
	}
}

// testUpdate changes the limits of a running container.
func testUpdate(t *testing.T, e *engine) {
	e.detached(t, "update", []string{"--network", "none", "--memory", "64m"}, "sleep 1000")
	e.must(t, "update", "--memory", "96m", "--memory-swap", "128m", "--cpus", "0.25", "update")
	got := e.must(t, "exec", "update", "sh", "-c", v1or2("memory/memory.limit_in_bytes", "memory.max")+v1or2("cpu/cpu.cfs_quota_us", "cpu.max"))
	if want := "100663296\n25000"; got != want {
		t.Errorf("the limits are %q, want %q", got, want)
	}
}

// testUserNamespace: the container's root is nobody on the host.
func testUserNamespace(t *testing.T, e *engine) {
	options := []string{"--rm", "--network", "none", "--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"}
	got := strings.Fields(e.must(t, e.run(options, "sh", "-c", "id -u; cat /proc/self/uid_map; touch /x; stat -c %u /x /bin")...))
	if want := "0 0 100000 65536 0 0"; strings.Join(got, " ") != want {
		t.Errorf("id, map and owners are %q, want %s", got, want)
	}
}

// testFiles: cp, diff and commit of a stopped container.
func testFiles(t *testing.T, e *engine) {
	e.detached(t, "files", []string{"--network", "none"}, "echo cargo >/hold")
	if got := e.must(t, "wait", "files"); got != "0" {
		t.Fatalf("exit code %s", got)
	}
	out := filepath.Join(openDir(t), "hold")
	e.must(t, "cp", "files:/hold", out)
	if b, err := os.ReadFile(out); err != nil || string(b) != "cargo\n" {
		t.Errorf("the copied file is %q, %v", b, err)
	}
	e.must(t, "commit", "files", "localhost/committed")
	t.Cleanup(func() { e.must(t, "rmi", "localhost/committed") })
	if got := e.must(t, append(append([]string{"run"}, e.runOptions...), "--rm", "--network", "none", "localhost/committed", "cat", "/hold")...); got != "cargo" {
		t.Errorf("the committed file is %q", got)
	}
}

// testPodmanBuild: RUN steps are containers too.
func testPodmanBuild(t *testing.T, e *engine) {
	t.Cleanup(func() { e.must(t, "rmi", "-f", "localhost/built") })
	isolation := "oci"
	if e.rootless {
		isolation = "rootless"
	}
	e.must(t, "build", "--isolation", isolation, "--network", "none", "-t", "localhost/built", buildContext(t))
	checkBuilt(t, func(args ...string) string {
		return e.must(t, append(append([]string{"run"}, e.runOptions...), append([]string{"--rm", "--network", "none", "localhost/built"}, args...)...)...)
	})
}

// testTmpfs: Podman wants a tmpfs to begin with what the image has there, also
// when it prepares a container for systemd.
func testTmpfs(t *testing.T, e *engine) {
	for _, c := range []struct {
		options      []string
		script, want string
	}{
		{[]string{"--tmpfs", "/etc"}, "stat -f -c %T /etc; ls /etc/plain", "tmpfs\n/etc/plain"},
		{[]string{"--read-only"}, "touch /run/x && echo written", "written"},
		{[]string{"--systemd", "always"}, "stat -f -c %T /run /tmp; echo $container", "tmpfs\ntmpfs\npodman"},
	} {
		if e.rootless && c.options[0] == "--systemd" {
			continue // it needs a cgroup
		}
		argv := e.run(append([]string{"--rm", "--network", "none"}, c.options...), "sh", "-c", c.script)
		if r := e.try(t, "", argv...); r.out != c.want || r.code != 0 {
			t.Errorf("%q prints %q, exit code %d; want %q: %s", c.options, r.out, r.code, c.want, r.err)
		}
	}
}

// testDescriptors: descriptors are passed on, and no other is.
func testDescriptors(t *testing.T, e *engine) {
	name := filepath.Join(openDir(t), "passed")
	if err := os.WriteFile(name, []byte("through descriptor 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := e.command(t.Context(), e.run([]string{"--rm", "--network", "none", "--preserve-fds", "1"}, "sh", "-c", "cat <&3; for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done; true")...)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.Join(strings.Fields(string(out)), " "); got != "through descriptor 3 0 1 2 3" {
		t.Errorf("it has %q", got)
	}
}

// testCreated: a container that is created, and started later.
func testCreated(t *testing.T, e *engine) {
	argv := append([]string{"create", "--name", "later"}, e.runOptions...)
	e.must(t, append(argv, "--network", "none", image, "echo", "started")...)
	t.Cleanup(func() { e.must(t, append(e.remove, "later")...) })
	e.must(t, "init", "later")
	var state []struct{ State struct{ Status string } }
	if err := json.Unmarshal([]byte(e.must(t, "inspect", "later")), &state); err != nil || state[0].State.Status != "initialized" {
		t.Errorf("the container is %+v, %v", state, err)
	}
	if got := e.must(t, "start", "-a", "later"); got != "started" {
		t.Errorf("it printed %q", got)
	}
}
