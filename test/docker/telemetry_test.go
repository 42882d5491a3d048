package docker_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTelemetry: metrics of real containers, and a log that can be turned up
// while the daemon runs.
func TestTelemetry(t *testing.T) {
	d := newDaemon(t)
	if r := d.dockerWith(t, strings.NewReader(string(busyboxRootfs(t))), "import", "-c", `CMD ["sh"]`, "-", "busybox"); r.code != 0 {
		t.Fatal(r)
	}
	d.stop(t)
	before := len(d.logText(t))
	d.start(t, "--log-format", "json")
	id := d.run(t, "--name", "web", "-m", "32m", "busybox", "sleep", "1000")
	d.fails(t, 127, "no such file", "run", "--name", "no", "--network", "none", "busybox", "nosuch")
	text := d.debug(t, "GET", "/metrics")
	for _, want := range []string{
		`berth_containers{state="running"} 1`, `berth_images 1`, `berth_keeper_up 1`,
		`berth_engine_operations_total{operation="start",result="ok"} 1`, `berth_engine_operations_total{operation="keeper_start",result="ok"} 1`,
		`berth_engine_operation_duration_seconds_count{operation="start"} 2`,
		`berth_api_requests_total{code="204",route="POST /containers/{id}/start"} 1`,
		`berth_container_memory_limit_bytes{id="` + id + `",image="busybox",name="web"} 3.3554432e+07`,
		`berth_container_processes{id="` + id + `",image="busybox",name="web"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	expect(t, "level", d.debug(t, "PUT", "/log-level?level=debug"), "DEBUG\n")
	d.ok(t, "ps", "--no-trunc")
	if err := os.WriteFile(filepath.Join(d.dir, "none.toml"), []byte("log-level = \"loud\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.hangUp(t, "want debug, info, warn or error")
	expect(t, "level", d.debug(t, "GET", "/log-level"), "DEBUG\n")
	if err := os.WriteFile(filepath.Join(d.dir, "none.toml"), []byte("log-level = \"error\"\nlabels = [\"dock=seven\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.reload(t, "ERROR\n")
	expect(t, "labels", d.ok(t, "info", "--format", "{{.Labels}}"), "[dock=seven]")
	text = d.logText(t)[before:]
	for line := range strings.Lines(text) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if !strings.Contains(text, `"url":"/v`) {
		t.Errorf("no request in a log at debug:\n%s", text)
	}
}

// debug asks the daemon on its debug socket.
func (d *daemon) debug(t *testing.T, method, path string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(d.runRoot, "debug.sock"))
	}}}
	req, err := http.NewRequest(method, "http://berth"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %s: %s %v %s", method, path, resp.Status, err, body)
	}
	return string(body)
}

func (d *daemon) logText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(d.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hangUp sends SIGHUP and waits until the log has said something.
func (d *daemon) hangUp(t *testing.T, want string) {
	t.Helper()
	if err := d.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, d.log.Name(), unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for !strings.Contains(d.logText(t), want) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("%q does not come into the log: %v", want, err)
		}
		if _, err := unix.Read(watch, buf); err != nil {
			t.Fatal(err)
		}
	}
}

// reload sends SIGHUP and asks for the level until it is the one wanted; each
// question takes the daemon a moment of its own.
func (d *daemon) reload(t *testing.T, level string) {
	t.Helper()
	if err := d.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	last := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if last = d.debug(t, "GET", "/log-level"); last == level {
			return
		}
	}
	t.Errorf("level %q, want %q", last, level)
}
