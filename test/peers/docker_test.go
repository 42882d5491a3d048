//go:build peers

package peers

import (
	"os"
	"path/filepath"
	"testing"
)

// docker is Docker's client, with daemons behind it that have the image and
// berth-oci as their only runtime.
func docker(t *testing.T) *engine {
	t.Helper()
	need(t, "docker", "dockerd", "containerd", "containerd-shim-runc-v2", "iptables")
	p := thePlace()
	dir := filepath.Join(p.work, "docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// The host's own configuration is not to matter.
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const containerd, socket = "/run/docker-test/containerd", "/run/docker-test/docker"
	serve(t, "containerd", "--config", "/dev/null", "--root", filepath.Join(dir, "containerd"), "--state", "/run/docker-test/state", "--address", containerd)
	serve(t, "dockerd", "--config-file", config, "--data-root", filepath.Join(dir, "data"), "--exec-root", "/run/docker-test/exec",
		"--pidfile", "/run/docker-test/pid", "--host", "unix://"+socket, "--containerd", containerd,
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", p.cgroup+"/docker",
		"--add-runtime", "berth="+p.runtime, "--default-runtime", "berth")
	e := &engine{
		argv:   []string{"docker"},
		env:    []string{"DOCKER_HOST=unix://" + socket, "DOCKER_CONFIG=" + dir, "DOCKER_BUILDKIT=0"},
		remove: []string{"rm", "-f"},
	}
	e.must(t, "load", "-i", p.archive)
	t.Cleanup(func() {
		if left := e.must(t, "ps", "-aq"); left != "" {
			t.Errorf("containers are left: %s", left)
		}
	})
	return e
}

func TestDocker(t *testing.T) {
	e := docker(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"run", func(t *testing.T, e *engine) { e.play(t) }}, {"errors", testErrors}, {"life", testLife}, {"exec", testExec},
		{"terminal", testTerminal}, {"standard input", testStdin}, {"bridge", testBridge}, {"health", testDockerHealth},
		{"restart", testRestart}, {"update", testUpdate}, {"files", testFiles}, {"build", testDockerBuild}, {"out of memory", testDockerOOM}, {"propagation", testPropagation},
		{"AppArmor", testAppArmor},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

func testDockerHealth(t *testing.T, e *engine) {
	e.detached(t, "health", []string{"--network", "none", "--health-cmd", "true", "--health-interval", "1s"}, "sleep 1000")
	e.awaits(t, "health_status: healthy", "events", "--since", "2000-01-01T00:00:00", "--filter", "container=health", "--format", "{{.Status}}")
}

func testDockerBuild(t *testing.T, e *engine) {
	t.Cleanup(func() { e.must(t, "rmi", "-f", "localhost/built") })
	e.must(t, "build", "--network", "none", "-t", "localhost/built", buildContext(t))
	checkBuilt(t, func(args ...string) string {
		return e.must(t, append([]string{"run", "--rm", "--network", "none", "localhost/built"}, args...)...)
	})
}

// testDockerOOM: that the kernel killed for want of memory is known to the engine. It
// hears of that from elsewhere than of an end, and what comes after the end it drops:
// so the container outlives the first such kill.
func testDockerOOM(t *testing.T, e *engine) {
	e.detached(t, "greedy", []string{"--network", "none", "--memory", "20m"}, "sleep 1000")
	until(t, "an event of memory's end", func() bool {
		if r := e.try(t, "", "exec", "greedy", "tail", "/dev/zero"); r.code != 137 {
			t.Fatalf("exit code %d, want 137\n%s", r.code, r.err)
		}
		said := e.must(t, "events", "--since", "2000-01-01T00:00:00", "--until", "0s", "--filter", "container=greedy", "--filter", "event=oom")
		return said != ""
	})
	e.must(t, "kill", "greedy")
	if got := e.must(t, "wait", "greedy"); got != "137" {
		t.Errorf("exit code %s, want 137", got)
	}
	if got := e.must(t, "inspect", "--format", "{{.State.OOMKilled}}", "greedy"); got != "true" {
		t.Errorf("killed for its memory: %s", got)
	}
}
