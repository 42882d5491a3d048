// Package docker_test runs the docker command line against berthd: real
// processes, real containers. It needs root, a docker CLI and a static busybox.
package docker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds what must happen; it is never waited out when all is well.
const patience = 60 * time.Second

// daemon is a berthd with roots, bridge and cgroup of its own.
type daemon struct {
	dir, runRoot, stateRoot string
	bin                     string // directory of berthd and berth-oci
	cmd                     *exec.Cmd
	exited                  chan struct{}
	log                     *os.File
}

// bridge and subnet are the daemon's own; a Berth on this host keeps its.
const (
	bridge = "berthtest0"
	subnet = "10.214.0.0/24"
	cgroup = "/berth-test-docker"
)

// newDaemon builds the binaries and starts a daemon; both end with the test,
// which fails when anything is left.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	requireHost(t)
	dir, err := os.MkdirTemp("", "berthd-test-") // short: socket paths have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir, runRoot: filepath.Join(dir, "run"), stateRoot: filepath.Join(dir, "state"), bin: filepath.Join(dir, "bin")}
	t.Cleanup(func() { d.checkLeftovers(t) })
	build := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+d.bin, "BINARIES=berthd berth-oci")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if d.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.showLog(t) })
	t.Cleanup(func() { d.purge(t) })
	d.start(t)
	return d
}

// requireHost skips on hosts that cannot run the suite, and says why.
func requireHost(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made")
	}
	for _, tool := range []string{"docker", "busybox", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
}

// arguments are the daemon's flags.
func (d *daemon) arguments(more ...string) []string {
	return append([]string{
		"--config", filepath.Join(d.dir, "none.toml"), "--run-root", d.runRoot, "--state-root", d.stateRoot,
		"--bridge", bridge, "--bridge-subnet", subnet, "--cgroup-parent", cgroup,
	}, more...)
}

// socket is the API's address.
func (d *daemon) socket() string { return filepath.Join(d.runRoot, "berth.sock") }

// start starts the daemon and returns when it says that it is ready.
func (d *daemon) start(t *testing.T, more ...string) {
	t.Helper()
	d.startCommand(t, exec.Command(filepath.Join(d.bin, "berthd"), d.arguments(more...)...))
}

// startCommand starts the daemon by the given command.
func (d *daemon) startCommand(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, "none.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(d.dir, "notify")
	_ = os.Remove(address)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	d.cmd = cmd
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		notify.Close()
		t.Fatal(err)
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // the state is in cmd.ProcessState
		close(exited)
		notify.Close() // wakes the read below when it did not get ready
	}(d.cmd, d.exited)
	state := make([]byte, 64)
	if err := notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := notify.Read(state)
	if err != nil || string(state[:n]) != "READY=1" {
		d.end()
		t.Fatalf("berthd is not ready: %q %v", state[:n], err)
	}
}

// stop ends the daemon in order and returns its exit code.
func (d *daemon) stop(t *testing.T) int {
	t.Helper()
	return d.signal(t, os.Interrupt)
}

// kill ends the daemon without a chance to tidy up.
func (d *daemon) kill(t *testing.T) { t.Helper(); d.signal(t, os.Kill) }

// end makes sure of a daemon's end that does not do what it should: it would be in
// the way of all tests that follow. Its log then says what it waits for.
func (d *daemon) end() {
	_ = d.cmd.Process.Signal(unix.SIGQUIT) // it may have ended
	<-d.exited
}

func (d *daemon) signal(t *testing.T, sig os.Signal) int {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.end()
		t.Fatalf("berthd did not end on %v", sig)
	}
	return d.cmd.ProcessState.ExitCode()
}

// purge stops the daemon and removes everything it owns on the host.
func (d *daemon) purge(t *testing.T) {
	t.Helper()
	defer func() { // also when it does not stop
		if out, code := d.berthd(d.arguments("--purge")...); code != 0 {
			t.Errorf("purge: exit %d\n%s", code, out)
		}
	}()
	select {
	case <-d.exited:
	default:
		if d.exited != nil {
			d.stop(t)
		}
	}
}

// checkLeftovers fails the test for whatever the daemon left on the host.
func (d *daemon) checkLeftovers(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.dir) {
			t.Errorf("left a mount: %s", line)
		}
	}
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Errorf("left the link %s", bridge)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range processes {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, d.dir) {
			t.Errorf("left a process: %s %s", link, exe)
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup" + cgroup)
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range append(groups, legacy...) {
		t.Errorf("left a cgroup: %s", group)
	}
	for _, root := range []string{d.runRoot, d.stateRoot} {
		if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left %s", root)
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		t.Error(err)
	}
}

// showLog shows the daemon's log when the test failed.
func (d *daemon) showLog(t *testing.T) {
	_ = d.log.Close()
	if !t.Failed() {
		return
	}
	text, err := os.ReadFile(d.log.Name())
	t.Logf("berthd's log (%v):\n%s", err, text)
}

// result is what a docker command did.
type result struct {
	stdout, stderr string
	code           int
}

// command prepares a docker command that speaks to the daemon.
func (d *daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket(), "DOCKER_CONFIG="+filepath.Join(d.dir, "docker-config"), "DOCKER_CLI_HINTS=false")
	return cmd
}

// docker runs a docker command to its end.
func (d *daemon) docker(t *testing.T, args ...string) result {
	t.Helper()
	return d.dockerWith(t, nil, args...)
}

// dockerWith runs a docker command with standard input.
func (d *daemon) dockerWith(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // t's own has ended in its cleanups
	defer cancel()
	cmd := d.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("docker %s: hangs\n%s%s", strings.Join(args, " "), &stdout, &stderr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a docker command that must succeed and returns its trimmed output.
func (d *daemon) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := d.docker(t, args...)
	if r.code != 0 {
		t.Fatalf("docker %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// fails runs a docker command that must exit with code and say want.
func (d *daemon) fails(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	r := d.docker(t, args...)
	if r.code != code || !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(want)) {
		t.Errorf("docker %s: exit %d %q, want %d %q", strings.Join(args, " "), r.code, r.stderr, code, want)
	}
}

// run starts a container in the background and removes it with the test.
func (d *daemon) run(t *testing.T, args ...string) (id string) {
	t.Helper()
	id = d.ok(t, append([]string{"run", "-d", "--network", "none"}, args...)...)
	t.Cleanup(func() { d.docker(t, "rm", "-f", id) })
	return id
}

// expect compares an output.
func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// logLines follows a container's log until n lines have come.
func (d *daemon) logLines(t *testing.T, n int, ref string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := d.command(ctx, "logs", "-f", ref)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // it follows on; we have what we want
	var lines []string
	buffer, text := make([]byte, 4096), ""
	for len(lines) < n {
		k, err := pipe.Read(buffer)
		text += string(buffer[:k])
		lines = strings.Split(text, "\n")
		lines = lines[:len(lines)-1]
		if err != nil && len(lines) < n {
			t.Fatalf("log of %s: %d lines, want %d: %v\n%s", ref, len(lines), n, err, text)
		}
	}
	return lines[:n]
}

func (r result) String() string { return fmt.Sprintf("exit %d\n%s%s", r.code, r.stdout, r.stderr) }
