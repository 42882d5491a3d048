package docker_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDockerCLI runs the docker command line's commands against one daemon.
func TestDockerCLI(t *testing.T) {
	d := newDaemon(t)
	r := d.dockerWith(t, bytes.NewReader(busyboxRootfs(t)), "import", "-c", `CMD ["sh"]`, "-c", "ENV SHIP=berth", "-m", "from a test", "-", "busybox")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "sha256:") {
		t.Fatalf("import: %v", r)
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *daemon)
	}{
		{"version and info", testVersion},
		{"run", testRun},
		{"run on a terminal", testRunTerminal},
		{"lifecycle", testLifecycle},
		{"exec", testExec},
		{"exec on a terminal", testExecTerminal},
		{"logs", testLogs},
		{"attach", testAttach},
		{"observe", testObserve},
		{"limits", testLimits},
		{"images", testImages},
		{"registry", testRegistry},
		{"network", testNetwork},
		{"errors", testErrors},
		{"system", testSystem},
		{"engine restart", testEngineRestart},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, d) }) && d.cmd.ProcessState != nil {
			t.Fatal("the daemon is gone")
		}
	}
	if left := d.ok(t, "ps", "-aq"); left != "" {
		t.Errorf("containers left: %s", left)
	}
	if code := d.stop(t); code != 0 {
		t.Errorf("berthd ended with %d on SIGINT", code)
	}
	if _, err := os.Stat(d.socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func testVersion(t *testing.T, d *daemon) {
	if api := d.ok(t, "version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}"); api != "1.56 1.24" {
		t.Errorf("API %s", api)
	}
	if text := d.ok(t, "info"); !strings.Contains(text, "Server Version:") {
		t.Errorf("info: %s", text)
	}
	expect(t, "root", d.ok(t, "info", "--format", "{{.DockerRootDir}}"), d.stateRoot)
}

func testRun(t *testing.T, d *daemon) {
	run := func(args ...string) result {
		return d.docker(t, append([]string{"run", "--rm", "--network", "none"}, args...)...)
	}
	if r := run("busybox", "sh", "-c", "echo out; echo err >&2; exit 7"); r != (result{"out\n", "err\n", 7}) {
		t.Errorf("output and exit code: %v", r)
	}
	if r := run("-e", "A=b", "-w", "/etc", "-u", "sailor", "-h", "mast", "busybox", "sh", "-c", "echo $A $SHIP $(pwd) $(id -u) $(hostname)"); r.stdout != "b berth /etc 1000 mast\n" {
		t.Errorf("environment: %v", r)
	}
	r := d.dockerWith(t, strings.NewReader(strings.Repeat("0123456789abcde\n", 1<<16)), "run", "-i", "--rm", "--network", "none", "busybox", "wc", "-c")
	if r.code != 0 || strings.TrimSpace(r.stdout) != strconv.Itoa(1<<20) {
		t.Errorf("a megabyte of input: %v", r)
	}
	r = run("busybox", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
	if len(r.stdout) != 3000000 {
		t.Errorf("three megabytes of output: %d bytes, exit %d %s", len(r.stdout), r.code, r.stderr)
	}
	if r := run("busybox", "no-such-command"); r.code != 127 {
		t.Errorf("missing command: %v", r)
	}
	if r := run("busybox", "/etc/plain"); r.code != 126 {
		t.Errorf("not executable: %v", r)
	}
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "note"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run("-v", host+":/mnt:ro", "--tmpfs", "/scratch", "busybox", "sh", "-c", "cat /mnt/note; touch /scratch/x && echo writable; touch /mnt/x || echo read-only"); !strings.HasPrefix(r.stdout, "from the host\nwritable\nread-only") {
		t.Errorf("mounts: %v", r)
	}
}

func testRunTerminal(t *testing.T, d *daemon) {
	term := d.onTerminal(t, 31, 97, "run", "-it", "--rm", "--network", "none", "busybox", "sh")
	term.types("stty size\n")
	term.shows("31 97")
	term.types("tty && echo ready$((40+2))\n")
	term.shows("/dev/pts/0")
	term.shows("ready42")
	term.types("exit 5\n")
	if code := term.end(); code != 5 {
		t.Errorf("exit %d, want 5", code)
	}
}

func testLifecycle(t *testing.T, d *daemon) {
	id := d.run(t, "--name", "ship", "--label", "sea=north", "busybox", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 1 & wait $!; done")
	expect(t, "first line", d.logLines(t, 1, "ship")[0], "hello")
	expect(t, "ps", d.ok(t, "ps", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Image}} {{.State}}", "--filter", "label=sea"), id+" ship busybox running")
	expect(t, "state", d.ok(t, "inspect", "-f", "{{.State.Status}} {{.Name}} {{.Config.Image}}", "ship"), "running /ship busybox")
	if top := d.ok(t, "top", "ship"); !strings.Contains(top, "PID") || !strings.Contains(top, "trap") {
		t.Errorf("top: %s", top)
	}
	d.ok(t, "pause", "ship")
	expect(t, "paused", d.ok(t, "inspect", "-f", "{{.State.Paused}}", "ship"), "true")
	d.ok(t, "unpause", "ship")
	d.ok(t, "rename", "ship", "boat")
	d.ok(t, "stop", "-t", "60", "boat")
	expect(t, "exit code after stop", d.ok(t, "wait", "boat"), "3")
	expect(t, "state", d.ok(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id[:12]), "exited 3")
	if lines := d.ok(t, "logs", "boat"); lines != "hello\nbye" {
		t.Errorf("log %q", lines)
	}
	d.ok(t, "start", "boat")
	d.logLines(t, 3, "boat")
	d.ok(t, "restart", "-t", "60", "boat")
	d.logLines(t, 5, "boat")
	d.ok(t, "kill", "boat")
	expect(t, "exit code after kill", d.ok(t, "wait", "boat"), "137")
	d.ok(t, "rm", "boat")
	d.fails(t, 1, "no such", "inspect", "boat")

	created := d.ok(t, "create", "--network", "none", "--name", "later", "busybox", "sh", "-c", "echo now; exit 4")
	expect(t, "created", d.ok(t, "ps", "-a", "--no-trunc", "--filter", "status=created", "--format", "{{.ID}}"), created)
	if r := d.docker(t, "start", "-a", "later"); r.stdout != "now\n" || r.code != 4 {
		t.Errorf("start -a: %v", r)
	}
	if pruned := d.ok(t, "container", "prune", "-f"); !strings.HasPrefix(pruned, "Deleted Containers:\n"+created+"\n") {
		t.Errorf("prune: %q", pruned)
	}
}

func testExec(t *testing.T, d *daemon) {
	id := d.run(t, "busybox", "sleep", "1000")
	r := d.docker(t, "exec", "-e", "X=y", "-w", "/tmp", "-u", "sailor", id, "sh", "-c", "echo $X $(pwd) $(id -un); echo err >&2; exit 9")
	if r != (result{"y /tmp sailor\n", "err\n", 9}) {
		t.Errorf("exec: %v", r)
	}
	if r := d.dockerWith(t, strings.NewReader("one\ntwo\n"), "exec", "-i", id, "cat"); r != (result{"one\ntwo\n", "", 0}) {
		t.Errorf("exec -i: %v", r)
	}
	d.ok(t, "exec", "-d", id, "sh", "-c", "echo done >/tmp/flag; mkfifo /tmp/f; cat /tmp/f")
	d.ok(t, "exec", id, "sh", "-c", "until [ -p /tmp/f ]; do :; done; cat /tmp/flag; : >/tmp/f")
	if r := d.docker(t, "exec", id, "no-such-command"); r.code != 127 || !strings.Contains(r.stdout+r.stderr, "no-such-command") {
		t.Errorf("missing command: %v", r)
	}
	if r := d.docker(t, "exec", id, "/etc/plain"); r.code != 126 {
		t.Errorf("not executable: %v", r)
	}
}

func testExecTerminal(t *testing.T, d *daemon) {
	id := d.run(t, "busybox", "sleep", "1000")
	term := d.onTerminal(t, 30, 100, "exec", "-it", id, "sh")
	term.types("stty size\n")
	term.shows("30 100")
	term.resize(44, 111)
	// The client tells the new size in its own time.
	term.types("until [ \"$(stty size)\" = '44 111' ]; do :; done; echo size-$((1+1))\n")
	term.shows("size-2")
	term.types("exit 6\n")
	if code := term.end(); code != 6 {
		t.Errorf("exit %d, want 6", code)
	}
}

func testLogs(t *testing.T, d *daemon) {
	// The order of lines is only certain within one stream: they are two pipes.
	both := d.run(t, "busybox", "sh", "-c", "echo out; echo err >&2")
	d.ok(t, "wait", both)
	if r := d.docker(t, "logs", both); r != (result{"out\n", "err\n", 0}) {
		t.Errorf("logs: %v", r)
	}
	id := d.run(t, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; sleep 1000")
	d.logLines(t, 5, id)
	expect(t, "logs", d.ok(t, "logs", id), "line 1\nline 2\nline 3\nline 4\nline 5")
	expect(t, "logs --tail", d.ok(t, "logs", "--tail", "2", id), "line 4\nline 5")
	stamped := d.ok(t, "logs", "-t", "--tail", "5", id)
	stamp, rest, _ := strings.Cut(strings.Split(stamped, "\n")[0], " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || rest != "line 1" {
		t.Errorf("logs -t: %q", stamped)
	}
	expect(t, "since the future", d.ok(t, "logs", "--since", "2100-01-01T00:00:00", id), "")
	expect(t, "until the past", d.ok(t, "logs", "--until", "2001-01-01T00:00:00", id), "")

	// Following ends when the container does, with the last line.
	ends := d.run(t, "-i", "busybox", "sh", "-c", "echo begin; read line; echo end $line")
	d.logLines(t, 1, ends)
	follow := make(chan result, 1)
	go func() { follow <- d.docker(t, "logs", "-f", ends) }()
	if r := d.dockerWith(t, strings.NewReader("well\n"), "attach", ends); !strings.Contains(r.stdout, "end well") {
		t.Errorf("attach: %v", r)
	}
	if r := <-follow; r.stdout != "begin\nend well\n" || r.code != 0 {
		t.Errorf("logs -f: %v", r)
	}
}

func testAttach(t *testing.T, d *daemon) {
	id := d.run(t, "-it", "busybox", "cat")
	term := d.onTerminal(t, 24, 80, "attach", id)
	term.types("ping\n")
	term.shows("ping\r\nping")
	term.types("\x10\x11") // ctrl-p ctrl-q
	term.shows("read escape sequence")
	term.end()
	expect(t, "state after detaching", d.ok(t, "inspect", "-f", "{{.State.Status}}", id), "running")
	term = d.onTerminal(t, 24, 80, "attach", id)
	term.types("pong\n")
	term.shows("pong\r\npong")
	term.types("\x04") // end of input ends cat
	if code := term.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	expect(t, "state after the end", d.ok(t, "inspect", "-f", "{{.State.Status}}", id), "exited")
}

func testObserve(t *testing.T, d *daemon) {
	before := strconv.FormatInt(time.Now().Unix()-1, 10)
	id := d.run(t, "--name", "seen", "busybox", "sleep", "1000")
	var stats struct{ Container, Name, CPUPerc, MemUsage, PIDs string }
	if err := json.Unmarshal([]byte(d.ok(t, "stats", "--no-stream", "--format", "json", "seen")), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Name != "seen" || !strings.HasSuffix(stats.CPUPerc, "%") || strings.HasPrefix(stats.MemUsage, "0B") || stats.PIDs != "1" {
		t.Errorf("stats: %+v", stats)
	}
	d.ok(t, "kill", id)
	d.ok(t, "wait", id)
	d.ok(t, "rm", id)
	after := strconv.FormatInt(time.Now().Unix()+1, 10)
	events := d.ok(t, "events", "--since", before, "--until", after, "--filter", "container="+id, "--format", "{{.Action}}")
	want := []string{"create", "start", "kill", "die", "destroy"}
	i := 0
	for line := range strings.Lines(events) {
		if i < len(want) && strings.TrimSpace(line) == want[i] {
			i++
		}
	}
	if i < len(want) {
		t.Errorf("events %q lack %s", events, want[i])
	}
}

func testLimits(t *testing.T, d *daemon) {
	r := d.docker(t, "run", "--name", "hog", "--network", "none", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "x=a; while :; do x=$x$x; done")
	t.Cleanup(func() { d.docker(t, "rm", "-f", "hog") })
	if r.code != 137 && r.code != 2 {
		t.Errorf("memory hog: %v", r)
	}
	if r.code == 137 {
		expect(t, "OOMKilled", d.ok(t, "inspect", "-f", "{{.State.OOMKilled}}", "hog"), "true")
	}
	id := d.run(t, "--cpus", "0.5", "--pids-limit", "20", "-m", "64m", "busybox", "sleep", "1000")
	expect(t, "limits", d.ok(t, "inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.Memory}}", id), "500000000 20 67108864")
	d.ok(t, "update", "-m", "128m", "--memory-swap", "128m", id)
	expect(t, "updated", d.ok(t, "inspect", "-f", "{{.HostConfig.Memory}}", id), "134217728")
}

func testImages(t *testing.T, d *daemon) {
	id := d.ok(t, "images", "-q", "--no-trunc", "busybox")
	expect(t, "inspect", d.ok(t, "image", "inspect", "-f", "{{.Id}} {{.Os}} {{.Config.Cmd}}", "busybox"), id+" linux [sh]")
	d.ok(t, "tag", "busybox", "harbour/box:v1")
	expect(t, "tags", d.ok(t, "images", "--format", "{{.Repository}}:{{.Tag}}", "harbour/box"), "harbour/box:v1")
	if history := d.ok(t, "history", "busybox"); !strings.Contains(history, "from a test") {
		t.Errorf("history: %s", history)
	}

	archive := filepath.Join(t.TempDir(), "box.tar")
	d.ok(t, "save", "-o", archive, "harbour/box:v1")
	d.ok(t, "rmi", "harbour/box:v1")
	d.fails(t, 1, "no such image", "image", "inspect", "harbour/box:v1")
	expect(t, "load", d.ok(t, "load", "-i", archive), "Loaded image: harbour/box:v1")
	expect(t, "loaded id", d.ok(t, "images", "-q", "--no-trunc", "harbour/box"), id)

	container := d.run(t, "busybox", "sh", "-c", "echo cargo >/root/hold; sleep 1000")
	d.ok(t, "exec", container, "sh", "-c", "until [ -s /root/hold ]; do :; done")
	d.ok(t, "commit", "-m", "loaded", "-a", "a test", "-c", "ENV HOLD=full", container, "harbour/full")
	expect(t, "committed", d.ok(t, "run", "--rm", "--network", "none", "harbour/full", "sh", "-c", "cat /root/hold; echo $HOLD $SHIP"), "cargo\nfull berth")
	if r := d.docker(t, "export", container); !tarHas(t, r.stdout, "root/hold") {
		t.Error("export lacks root/hold")
	}
	d.docker(t, "rm", "-f", container)
	d.ok(t, "rmi", "harbour/full", "harbour/box:v1")
	d.ok(t, "image", "prune", "-f")
	if left := d.ok(t, "images", "--format", "{{.Repository}}"); left != "busybox" {
		t.Errorf("images left: %s", left)
	}
}

// tarHas says whether a tar contains a file.
func tarHas(t *testing.T, text, name string) bool {
	t.Helper()
	for r := tar.NewReader(strings.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimPrefix(h.Name, "./") == name {
			return true
		}
	}
}

func testRegistry(t *testing.T, d *daemon) {
	for _, tool := range []string{"docker-registry", "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	address := startRegistry(t)
	archive := filepath.Join(t.TempDir(), "box.tar")
	d.ok(t, "save", "-o", archive, "busybox")
	push := exec.Command("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "docker-archive:"+archive, "docker://"+address+"/fleet/box:v2")
	if out, err := push.CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	name := address + "/fleet/box:v2"
	out := d.ok(t, "pull", name)
	for _, want := range []string{"v2: Pulling from fleet/box", "Digest: sha256:", "Status: Downloaded newer image for " + name} {
		if strings.Count(out, want) != 1 {
			t.Errorf("pull: %q has not one %q", out, want)
		}
	}
	if again := d.ok(t, "pull", name); !strings.Contains(again, "Image is up to date") {
		t.Errorf("second pull: %s", again)
	}
	expect(t, "run", d.ok(t, "run", "--rm", "--network", "none", name, "echo", "pulled"), "pulled")
	digest := d.ok(t, "image", "inspect", "-f", "{{index .RepoDigests 0}}", name)
	expect(t, "quiet pull by digest", d.ok(t, "pull", "-q", digest), digest)
	d.fails(t, 1, "no such image", "pull", address+"/fleet/none:v1")
	d.ok(t, "rmi", "-f", name)
	d.docker(t, "rmi", "-f", digest)
	d.fails(t, 1, "127.0.0.1:1", "pull", "127.0.0.1:1/a/b")
}

// startRegistry runs a registry on a free loopback port.
func startRegistry(t *testing.T) (address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + dir + "}}\nhttp: {addr: '" + address + "'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := exec.Command("docker-registry", "serve", config)
	if err := registry.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.Process.Kill(); _ = registry.Wait() })
	dialUntil(t, address)
	return address
}

// dialUntil returns when something listens at address.
func dialUntil(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func testNetwork(t *testing.T, d *daemon) {
	names := strings.Fields(d.ok(t, "network", "ls", "--format", "{{.Name}}"))
	if strings.Join(names, " ") != "bridge host none" {
		t.Errorf("networks: %v", names)
	}
	expect(t, "subnet", d.ok(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge"), subnet)

	id := d.ok(t, "run", "-d", "-p", "127.0.0.1::8080", "busybox", "httpd", "-f", "-p", "8080", "-h", "/www")
	t.Cleanup(func() { d.docker(t, "rm", "-f", id) })
	// API 1.51 and older: the address is beside the networks as well.
	ip := d.ok(t, "inspect", "-f", "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Networks.bridge.IPAddress}}", id)
	if a, b, _ := strings.Cut(ip, " "); a != b || !strings.HasPrefix(a, "10.214.0.") {
		t.Errorf("addresses %q", ip)
	}
	at := d.ok(t, "port", id, "8080/tcp")
	dialUntil(t, at)
	resp, err := http.Get("http://" + at + "/index.html")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "hello from a berth\n" {
		t.Errorf("published port: %q %v", body, err)
	}
	http.DefaultClient.CloseIdleConnections()
	if r := d.docker(t, "run", "--rm", "-p", at+":80", "busybox", "true"); r.code != 125 {
		t.Errorf("port taken: %v", r)
	}
	if line := strings.Fields(d.ok(t, "exec", id, "sh", "-c", "grep $(hostname) /etc/hosts")); len(line) != 2 || line[1] != id[:12] {
		t.Errorf("hosts: %q", line)
	}
}

func testErrors(t *testing.T, d *daemon) {
	d.fails(t, 1, "no such container: nobody", "logs", "nobody")
	d.fails(t, 1, "no such container: nobody", "rm", "nobody")
	d.fails(t, 125, "no-such-image", "run", "--pull", "never", "no-such-image")
	id := d.run(t, "--name", "taken", "busybox", "sleep", "1000")
	d.fails(t, 125, "taken", "run", "--name", "taken", "--network", "none", "busybox", "true")
	d.fails(t, 1, "running", "rm", id)
	d.fails(t, 1, "conflict: unable to remove repository reference", "rmi", "busybox")
	d.fails(t, 125, "memory", "run", "--network", "none", "-m", "1k", "busybox", "true")
	d.fails(t, 1, "not supported by this version of Berth", "network", "create", "n")
	d.fails(t, 1, "not supported by this version of Berth", "search", "x")
	d.fails(t, 125, "unable to find user nobody-here", "run", "--rm", "--network", "none", "-u", "nobody-here", "busybox", "true")
}

func testSystem(t *testing.T, d *daemon) {
	if df := d.ok(t, "system", "df"); !strings.Contains(df, "Images") {
		t.Errorf("df: %s", df)
	}
	testVolumes(t, d)
	testCopy(t, d)
	d.ok(t, "system", "prune", "-f")
}

// testVolumes: named volumes as the docker command makes, lists and removes
// them.
func testVolumes(t *testing.T, d *daemon) {
	expect(t, "volumes", d.ok(t, "volume", "ls", "-q"), "")
	expect(t, "volume create", d.ok(t, "volume", "create", "--label", "a=b", "vol"), "vol")
	d.ok(t, "run", "--rm", "--network", "none", "-v", "vol:/v", "busybox", "sh", "-c", "echo kept > /v/f")
	expect(t, "content", d.ok(t, "run", "--rm", "--network", "none", "--mount", "type=volume,src=vol,dst=/v,readonly", "busybox", "cat", "/v/f"), "kept")
	expect(t, "volume ls", d.ok(t, "volume", "ls", "--filter", "label=a", "--format", "{{.Driver}} {{.Name}} {{.Labels}}"), "local vol a=b")
	user := d.run(t, "--volumes-from", d.run(t, "-v", "vol:/v", "busybox", "sleep", "1000"), "busybox", "sleep", "1000")
	d.fails(t, 1, "volume is in use", "volume", "rm", "vol")
	expect(t, "inherited", d.ok(t, "exec", user, "cat", "/v/f"), "kept")
	d.ok(t, "rm", "-f", user)
	if df := d.ok(t, "system", "df", "-v"); !strings.Contains(df, "Local Volumes space usage") {
		t.Errorf("df -v: %s", df)
	}
	d.fails(t, 1, "no such volume", "volume", "inspect", "w")
}

// testCopy: docker cp and docker diff, in and out, of a container that runs
// and one that does not.
func testCopy(t *testing.T, d *daemon) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("copied\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{d.run(t, "busybox", "sleep", "1000"), d.ok(t, "create", "--network", "none", "busybox", "sleep", "1000")} {
		d.ok(t, "cp", dir, id+":/tmp/dir")
		d.ok(t, "cp", "-a", dir+"/.", id+":/tmp/dir")
		d.ok(t, "cp", id+":/tmp/dir", filepath.Join(dir, id))
		text, err := os.ReadFile(filepath.Join(dir, id, "file"))
		if err != nil || string(text) != "copied\n" {
			t.Errorf("came back as %q, %v", text, err)
		}
		expect(t, "tar", d.ok(t, "cp", id+":/etc/passwd", "-")[:6], "passwd")
		d.fails(t, 1, "could not find the file", "cp", id+":/nosuch", dir)
		if diff := d.ok(t, "diff", id); !strings.Contains(diff, "A /tmp/dir/file") || !strings.Contains(diff, "C /tmp") {
			t.Errorf("diff: %s", diff)
		}
	}
}

// testEngineRestart: the engine is killed while a container counts; it counts
// on, and no line is lost.
func testEngineRestart(t *testing.T, d *daemon) {
	id := d.run(t, "--name", "counter", "busybox", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 1000; done")
	d.logLines(t, 50, id)
	pid := d.ok(t, "inspect", "-f", "{{.State.Pid}}", id)
	d.kill(t)
	d.start(t)
	expect(t, "pid after the kill", d.ok(t, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", id), "running "+pid)
	n := strings.Count(d.ok(t, "logs", id), "\n")
	for i, line := range d.logLines(t, n+100, id) {
		if line != strconv.Itoa(i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	d.ok(t, "stop", "-t", "0", id)
	expect(t, "exit code", d.ok(t, "wait", id), "137")
}
