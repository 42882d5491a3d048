package docker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What engine and keeper may occupy at most, whatever containers do
// (docs/scale.md states it).
const (
	engineMost = 96 << 10 // KiB
	keeperMost = 64 << 10
)

// sizes are how bad the containers are. BERTH_TEST_BIG makes them as bad as
// they get; it takes minutes and 2 GiB of disk.
type sizes struct{ line, processes, levels, files int }

func hostileSizes() sizes {
	if os.Getenv("BERTH_TEST_BIG") != "" {
		return sizes{line: 1 << 30, processes: 10_000, levels: 10_000, files: 1_000_000}
	}
	return sizes{line: 48 << 20, processes: 200, levels: 1500, files: 1000}
}

// TestHostile: containers that do their worst. Engine and keeper answer, end
// and remove them all the same, and stay within their memory.
func TestHostile(t *testing.T) {
	d := newDaemon(t)
	d.importBusybox(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *daemon, sizes)
	}{
		{"one endless line", testEndlessLine},
		{"output nobody reads", testUnreadOutput},
		{"stopped init", testStoppedInit},
		{"frozen cgroup", testFrozenCgroup},
		{"closed stdio", testClosedStdio},
		{"mounts inside", testMountsInside},
		{"busy root", testBusyRoot},
		{"hostile passwd", testHostilePasswd},
		{"fifo for a log", testFifoLog},
		{"many processes", testManyProcesses},
		{"deep tree", testDeepTree},
		{"many files", testManyFiles},
		{"full disk", testFullDisk},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, d, hostileSizes())
			d.checkMemory(t)
		})
	}
}

func (d *daemon) importBusybox(t *testing.T) {
	t.Helper()
	if r := d.dockerWith(t, bytes.NewReader(busyboxRootfs(t)), "import", "-c", `CMD ["sh"]`, "-", "busybox"); r.code != 0 {
		t.Fatal(r)
	}
}

// checkMemory compares the most that engine and keeper have occupied so far
// with what they may.
func (d *daemon) checkMemory(t *testing.T) {
	t.Helper()
	check := func(what, pid string, most int) {
		text, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "VmHWM:")
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		if kib > most {
			t.Errorf("%s has occupied %d KiB, may at most %d", what, kib, most)
		}
	}
	check("berthd", strconv.Itoa(d.cmd.Process.Pid), engineMost)
	check("keeper", d.keeperPid(t), keeperMost)
}

// keeperPid finds the keeper by its executable and parent directory.
func (d *daemon) keeperPid(t *testing.T) string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && exe == filepath.Join(d.bin, "berth-oci") {
			return strings.Split(link, "/")[2]
		}
	}
	t.Fatal("there is no keeper")
	return ""
}

// answers asks for what must never wait for a container.
func (d *daemon) answers(t *testing.T, id, status string) {
	t.Helper()
	if ids := d.ok(t, "ps", "-q", "--no-trunc"); !strings.Contains(ids, id) {
		t.Errorf("ps does not show %s: %q", id, ids)
	}
	expect(t, "status", d.ok(t, "inspect", "-f", "{{.State.Status}}", id), status)
}

// ends stops and removes a container.
func (d *daemon) ends(t *testing.T, id string) {
	t.Helper()
	d.ok(t, "stop", "-t", "0", id)
	d.ok(t, "rm", id)
}

// inspect is one field of a container.
func (d *daemon) inspect(t *testing.T, id, field string) string {
	t.Helper()
	return d.ok(t, "inspect", "-f", "{{"+field+"}}", id)
}

func testEndlessLine(t *testing.T, d *daemon, n sizes) {
	const count = `head -c %d /dev/zero | tr '\0' x; while :; do echo >&2 done; sleep 0.1; done`
	id := d.run(t, "--log-opt", "max-size=10m", "busybox", "sh", "-c", fmt.Sprintf(count, n.line))
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	logs := d.command(ctx, "logs", "-f", "--tail", "1", id)
	pipe, err := logs.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Start(); err != nil {
		t.Fatal(err)
	}
	d.answers(t, id, "running")
	if line, err := bufio.NewReader(pipe).ReadString('\n'); line != "done\n" {
		t.Errorf("the line's end: %q, %v", line, err)
	}
	cancel()
	_ = logs.Wait() // it was killed
	d.answers(t, id, "running")
	d.ends(t, id)
}

// testUnreadOutput: a container that writes as fast as it can, a follower, an
// attached client and an exec's client that read nothing.
func testUnreadOutput(t *testing.T, d *daemon, _ sizes) {
	id := d.run(t, "--log-opt", "max-size=1m", "--log-opt", "max-file=2", "busybox", "yes", strings.Repeat("a", 100))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients []*exec.Cmd
	for _, args := range [][]string{{"logs", "-f", id}, {"attach", "--no-stdin", id}, {"exec", id, "yes"}} {
		client := d.command(ctx, args...)
		pipe, err := client.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		// It reads, until now.
		if _, err := pipe.Read(make([]byte, 1)); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		clients = append(clients, client)
	}
	d.answers(t, id, "running")
	expect(t, "exec beside them", d.ok(t, "exec", id, "echo", "hi"), "hi")
	d.ends(t, id)
	cancel()
	for _, client := range clients {
		_ = client.Wait()
	}
}

func testStoppedInit(t *testing.T, d *daemon, _ sizes) {
	id := d.run(t, "busybox", "sleep", "1000")
	pid, err := strconv.Atoi(d.inspect(t, id, ".State.Pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.answers(t, id, "running")
	expect(t, "exec", d.ok(t, "exec", id, "echo", "hi"), "hi")
	d.ok(t, "stop", "-t", "1", id)
	d.ok(t, "rm", id)
}

// freeze freezes a container behind the engine's back, and returns when all of its
// processes stand still.
func freeze(t *testing.T, id string) {
	t.Helper()
	v1, v2 := "/sys/fs/cgroup/freezer"+cgroup+"/"+id, "/sys/fs/cgroup"+cgroup+"/"+id
	for _, f := range []struct{ file, value, told, frozen string }{
		{v1 + "/freezer.state", "FROZEN", v1 + "/freezer.state", "FROZEN"},
		{v2 + "/cgroup.freeze", "1", v2 + "/cgroup.events", "frozen 1"},
	} {
		err := os.WriteFile(f.file, []byte(f.value), 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		for deadline := time.Now().Add(patience); ; {
			state, rerr := os.ReadFile(f.told)
			if err := errors.Join(err, rerr); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(state), f.frozen) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it does not freeze: %s", state)
			}
		}
	}
	t.Fatal("the container has no freezer")
}

func testFrozenCgroup(t *testing.T, d *daemon, _ sizes) {
	for _, end := range [][]string{{"rm", "-f"}, {"stop", "-t", "0"}, {"kill"}} {
		id := d.run(t, "busybox", "sleep", "1000")
		freeze(t, id)
		d.answers(t, id, "running")
		r := d.docker(t, "exec", id, "true")
		if r.code == 0 || !strings.Contains(r.stderr, "is frozen") {
			t.Errorf("exec: %v", r)
		}
		d.ok(t, append(end, id)...)
	}
}

func testClosedStdio(t *testing.T, d *daemon, _ sizes) {
	id := d.run(t, "busybox", "sh", "-c", "exec sleep 1000 <&- >&- 2>&-")
	d.answers(t, id, "running")
	expect(t, "logs", d.ok(t, "logs", id), "")
	expect(t, "exec", d.ok(t, "exec", id, "echo", "hi"), "hi")
	d.ends(t, id)
}

func testMountsInside(t *testing.T, d *daemon, _ sizes) {
	id := d.run(t, "--privileged", "busybox", "sh", "-c",
		"mount --make-rshared /; for i in $(seq 200); do mkdir -p /m/$i; mount -t tmpfs t /m/$i; done; mkdir /x; mount --rbind / /x; echo done; exec sleep 1000")
	expect(t, "mounts are made", d.logLines(t, 1, id)[0], "done")
	d.answers(t, id, "running")
	expect(t, "exec", d.ok(t, "exec", id, "echo", "hi"), "hi")
	d.ends(t, id)
}

// testBusyRoot: somebody has mounted things in a container's files, works there
// and has a file open. The container is removed at once, its files are, and
// what was mounted stays whole.
func testBusyRoot(t *testing.T, d *daemon, _ sizes) {
	id := d.run(t, "busybox", "sh", "-c", "mkdir /dir; echo > /file; echo made; exec sleep 1000")
	d.logLines(t, 1, id)
	upper := filepath.Join(d.stateRoot, "image/containers", id, "upper")
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(filepath.Join(upper, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	worker := exec.Command("sleep", "1000")
	worker.Dir = upper
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = worker.Process.Kill(); _ = worker.Wait() }()
	for _, at := range []string{filepath.Join(upper, "dir"), upper, filepath.Join(d.stateRoot, "containers", id)} {
		if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	d.ok(t, "rm", "-f", id)
	expect(t, "containers", d.ok(t, "ps", "-aq"), "")
	d.emptiesTrash(t)
	if _, err := os.Stat(filepath.Join(precious, "data")); err != nil {
		t.Errorf("what was mounted: %v", err)
	}
}

// emptiesTrash waits until what was removed is deleted.
func (d *daemon) emptiesTrash(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * patience)
	for {
		left, err := os.ReadDir(filepath.Join(d.stateRoot, "image/trash"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the trash has %v", left)
		}
		d.ok(t, "ps", "-q") // it answers meanwhile
	}
}

func testHostilePasswd(t *testing.T, d *daemon, _ sizes) {
	for _, spoil := range []string{
		"rm /etc/passwd; mkfifo /etc/passwd",
		"rm /etc/passwd; ln -s /proc/self/mem /etc/passwd; rm /etc/group; ln -s group /etc/group",
		"head -c 20000000 /dev/zero | tr '\\0' x > /etc/passwd",
	} {
		id := d.run(t, "busybox", "sh", "-c", spoil+"; echo done; exec sleep 1000")
		d.logLines(t, 1, id)
		expect(t, "exec", d.ok(t, "exec", id, "echo", "hi"), "hi")
		expect(t, "exec by number", d.ok(t, "exec", "-u", "7:8", id, "id", "-g"), "8")
		if r := d.docker(t, "exec", "-u", "nobody", id, "true"); r.code == 0 {
			t.Errorf("exec by a name nobody can look up: %v", r)
		}
		d.ok(t, "restart", "-t", "0", id)
		d.ends(t, id)
	}
}

// testFifoLog: nobody writes to, reads from or waits for what is in a log's place.
func testFifoLog(t *testing.T, d *daemon, _ sizes) {
	id := d.ok(t, "create", "--network", "none", "busybox", "true")
	path := filepath.Join(d.stateRoot, "containers", id, id+"-json.log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d.fails(t, 1, "not a regular file", "start", id)
	d.fails(t, 1, "not a regular file", "logs", id)
	d.fails(t, 1, "not a regular file", "logs", "-f", id)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	d.ok(t, "start", "-a", id)
	d.ok(t, "rm", id)
}

func testManyProcesses(t *testing.T, d *daemon, n sizes) {
	id := d.run(t, "--pids-limit", strconv.Itoa(n.processes), "busybox", "sh", "-c",
		fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 1000 & i=$((i+1)); done; echo done; wait", n.processes-20))
	d.logLines(t, 1, id)
	d.answers(t, id, "running")
	if lines := strings.Count(d.ok(t, "top", id), "\n"); lines < n.processes-20 {
		t.Errorf("top shows %d processes", lines)
	}
	d.ok(t, "stats", "--no-stream", id)
	d.ends(t, id)
}

func testDeepTree(t *testing.T, d *daemon, n sizes) {
	id := d.run(t, "busybox", "sleep", "1000")
	fd, err := unix.Open("/proc/"+d.inspect(t, id, ".State.Pid")+"/root", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; i < n.levels && err == nil; i++ {
		if err := unix.Mkdirat(fd, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, oerr := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd, err = next, oerr
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	d.answers(t, id, "running")
	d.ok(t, "rm", "-f", id)
	d.emptiesTrash(t)
}

func testManyFiles(t *testing.T, d *daemon, n sizes) {
	id := d.run(t, "busybox", "sh", "-c",
		fmt.Sprintf("mkdir /d; cd /d; seq %d | xargs touch; echo done; exec sleep 1000", n.files))
	expect(t, "files are made", d.logLines(t, 1, id)[0], "done")
	d.answers(t, id, "running")
	d.ok(t, "rm", "-f", id)
	d.emptiesTrash(t)
}

// testFullDisk: a container fills the file system that engine and keeper write
// to as well. It can be looked at, stopped and removed, and then there is room.
func testFullDisk(t *testing.T, d *daemon, _ sizes) {
	d.stop(t)
	if err := unix.Mount("berth-test", d.stateRoot, "tmpfs", 0, "size=24m,mode=711"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		d.stop(t)
		if out, code := d.berthd(d.arguments("--purge")...); code != 0 {
			t.Errorf("purge: %s", out)
		}
		if err := unix.Unmount(d.stateRoot, 0); err != nil {
			t.Error(err)
		}
		d.start(t)
		d.run(t, "busybox", "true") // starts a keeper again
	}()
	d.start(t)
	d.importBusybox(t)
	id := d.run(t, "busybox", "sh", "-c", "cat /dev/zero > /full 2>/dev/null; echo full; while :; do echo more; echo x >> /full; done 2>/dev/null")
	for d.docker(t, "exec", id, "sh", "-c", "echo x > /probe").code == 0 { // until it is full
		d.answers(t, id, "running")
	}
	d.answers(t, id, "running")
	d.ok(t, "rm", "-f", id)
	d.emptiesTrash(t)
	expect(t, "room again", d.ok(t, "run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo x > /f; cat /f"), "x")
}
