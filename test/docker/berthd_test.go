package docker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBerthd is about the daemon itself: how it is started, addressed, stopped.
func TestBerthd(t *testing.T) {
	d := newDaemon(t)
	if r := d.dockerWith(t, strings.NewReader(string(busyboxRootfs(t))), "import", "-c", `CMD ["sh"]`, "-", "busybox"); r.code != 0 {
		t.Fatal(r)
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *daemon)
	}{
		{"second daemon", testSecondDaemon},
		{"many at once", testManyAtOnce},
		{"stop while streaming", testStopWhileStreaming},
		{"loopback port", testLoopbackPort},
		{"socket activation", testSocketActivation},
		{"old clients", testOldClients},
		{"purge refused", testPurgeRefused},
		{"purge spares mounts", testPurgeSparesMounts},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, d) })
	}
}

// berthd runs the daemon's binary to its end.
func (d *daemon) berthd(args ...string) (output string, code int) {
	cmd := exec.Command(filepath.Join(d.bin, "berthd"), args...)
	out, _ := cmd.CombinedOutput() // the exit code is the answer
	return string(out), cmd.ProcessState.ExitCode()
}

// testSecondDaemon: a second one on the same roots says whose they are; for
// one that was started because none seemed to run that is no error.
func testSecondDaemon(t *testing.T, d *daemon) {
	out, code := d.berthd(d.arguments()...)
	if want := fmt.Sprintf("another berthd is running: pid %d uses run root %s", d.cmd.Process.Pid, d.runRoot); code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "hint: ") {
		t.Errorf("exit %d, %q, want %q", code, out, want)
	}
	if out, code := d.berthd(d.arguments("--auto")...); code != 0 || out != "" {
		t.Errorf("--auto: exit %d, %q", code, out)
	}
	out, code = d.berthd(append(d.arguments(), "--run-root", filepath.Join(d.dir, "other"))...)
	if code != 1 || !strings.Contains(out, "uses state root") {
		t.Errorf("same state root: exit %d, %q", code, out)
	}
	if err := os.RemoveAll(filepath.Join(d.dir, "other")); err != nil {
		t.Error(err)
	}
}

// testManyAtOnce: twenty containers at once, each with its own output and exit
// code.
func testManyAtOnce(t *testing.T, d *daemon) {
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			r := d.docker(t, "run", "--rm", "busybox", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			if r.stdout != fmt.Sprintln(i) || r.code != i {
				t.Errorf("container %d: %v", i, r)
			}
		})
	}
	all.Wait()
	expect(t, "containers left", d.ok(t, "ps", "-aq"), "")
}

// testStopWhileStreaming: followed logs, events, waits and terminals do not
// hold the daemon up, and the container runs on.
func testStopWhileStreaming(t *testing.T, d *daemon) {
	id := d.run(t, "-it", "busybox", "sh", "-c", "echo begin; sleep 1000")
	d.logLines(t, 1, id)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var clients sync.WaitGroup
	for _, args := range [][]string{{"logs", "-f", id}, {"events"}, {"wait", id}, {"attach", "--no-stdin", id}} {
		client := d.command(ctx, args...)
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		clients.Go(func() { _ = client.Wait() }) // how it ends is its own affair
	}
	// Docker's own command goes on for ever once it has shown something.
	api := newAPI(t, d.socket())
	clients.Go(func() { _, _ = api.raw(ctx, "GET", "/containers/"+id+"/stats", nil) })
	for d.underWay(t, api) < 5 {
		if ctx.Err() != nil {
			t.Fatal("not all clients are served")
		}
	}
	if code := d.stop(t); code != 0 {
		t.Errorf("berthd ended with %d", code)
	}
	clients.Wait()
	if ctx.Err() != nil {
		t.Error("a client outlived the daemon")
	}
	d.start(t)
	expect(t, "state after the restart", d.ok(t, "inspect", "-f", "{{.State.Status}}", id), "running")
}

// underWay is how many requests are.
func (d *daemon) underWay(t *testing.T, api *api) int {
	t.Helper()
	text, err := api.raw(t.Context(), "GET", "/berth/operations", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ ID string }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return len(list)
}

// testLoopbackPort: the API over TCP, on loopback only.
func testLoopbackPort(t *testing.T, d *daemon) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "tcp://" + free.Addr().String()
	free.Close()
	d.stop(t)
	d.start(t, "-H", address, "-H", "unix://"+d.socket())
	for _, host := range []string{address, "unix://" + d.socket()} {
		expect(t, host, d.ok(t, "-H", host, "images", "--format", "{{.Repository}}"), "busybox")
	}
	if out, code := d.berthd(d.arguments("-H", "tcp://0.0.0.0:0")...); code != 2 || !strings.Contains(out, "only loopback") {
		t.Errorf("open port: exit %d, %q", code, out)
	}
	d.stop(t)
	d.start(t)
}

// testSocketActivation: the socket is systemd's; the daemon serves it, and
// leaves it when it ends.
func testSocketActivation(t *testing.T, d *daemon) {
	d.stop(t)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // removes the socket as well
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	client := make(chan result, 1)
	go func() { client <- d.docker(t, "images", "-q") }() // waits in the socket's queue
	// LISTEN_PID is the daemon's own pid, which only its process knows.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`, filepath.Join(d.bin, "berthd")}, d.arguments()...)...)
	cmd.ExtraFiles = []*os.File{file}
	d.startCommand(t, cmd)
	if r := <-client; r.code != 0 || r.stdout == "" {
		t.Errorf("client that came first: %v", r)
	}
	if code := d.stop(t); code != 0 {
		t.Errorf("berthd ended with %d", code)
	}
	conn, err := net.DialTimeout("unix", d.socket(), time.Second)
	if err != nil {
		t.Errorf("the daemon took systemd's socket down: %v", err)
	} else {
		conn.Close()
	}
	listener.Close()
	d.start(t)
}

// testPurgeRefused: under a running daemon nothing is removed.
func testPurgeRefused(t *testing.T, d *daemon) {
	if out, code := d.berthd(d.arguments("--purge")...); code != 1 || !strings.Contains(out, "another berthd is running") {
		t.Errorf("exit %d, %q", code, out)
	}
	expect(t, "images", d.ok(t, "images", "--format", "{{.Repository}}"), "busybox")
}

// testOldClients: the same commands in API versions from the oldest on.
func testOldClients(t *testing.T, d *daemon) {
	for _, version := range []string{"1.24", "1.41", "1.44"} {
		t.Run(version, func(t *testing.T) {
			t.Setenv("DOCKER_API_VERSION", version)
			expect(t, "run", d.ok(t, "run", "--rm", "busybox", "echo", "run"), "run")
			id := d.run(t, "--name", "old", "busybox", "sh", "-c", "echo log; sleep 1000")
			if r := d.dockerWith(t, strings.NewReader("in"), "exec", "-i", id, "cat"); r != (result{"in", "", 0}) {
				t.Errorf("exec: %v", r)
			}
			expect(t, "logs", d.logLines(t, 1, id)[0], "log")
			expect(t, "images", d.ok(t, "images", "--format", "{{.Repository}}"), "busybox")
			expect(t, "ps", d.ok(t, "ps", "--format", "{{.Names}}"), "old")
		})
	}
}

// testPurgeSparesMounts: a purge ends what runs, but what somebody has mounted
// below a root is not the engine's to remove.
func testPurgeSparesMounts(t *testing.T, d *daemon) {
	pid := d.ok(t, "inspect", "-f", "{{.State.Pid}}", d.ok(t, "run", "-d", "busybox", "sleep", "1000"))
	d.stop(t)
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(d.stateRoot, "volumes", "mounted")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	out, code := d.berthd(d.arguments("--purge")...)
	if code != 1 || !strings.Contains(out, at+" is a mount") {
		t.Errorf("exit %d, %q", code, out)
	}
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/" + pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the container lives on: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
}
