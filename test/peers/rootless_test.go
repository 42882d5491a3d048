//go:build peers

package peers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ann is an ordinary user with subordinate ids.
const (
	annID  = 2000
	annIDs = 200000
)

// rootless is Podman used by an ordinary user, with the image loaded. Without
// cgroups of its own it does without limits.
func rootless(t *testing.T) *engine {
	t.Helper()
	need(t, "podman", "conmon", "newuidmap", "setpriv", "slirp4netns")
	p := thePlace()
	home := filepath.Join(p.work, "home")
	runtimeDir := fmt.Sprintf("/run/user/%d", annID)
	addUser(t, home, runtimeDir)
	openDevices(t)
	// Without this Podman warns of mounts that it would not see.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint(annID)
	e := &engine{
		argv: []string{
			"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps", "-all", "env", "--chdir", home,
			"podman", "--runtime", p.runtime, "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--log-level", "error",
		},
		env:        []string{"CONTAINERS_CONF=" + containersConf(t, p.work), "HOME=" + home, "USER=ann", "XDG_RUNTIME_DIR=" + runtimeDir},
		runOptions: []string{"--log-driver", "k8s-file"},
		remove:     []string{"rm", "-f", "-t", "0"},
		rootless:   true,
	}
	e.must(t, "load", "-i", p.archive)
	t.Cleanup(func() {
		if left := e.must(t, "ps", "-aq"); left != "" {
			t.Errorf("containers are left: %s", left)
		}
	})
	return e
}

// addUser adds the user to the files of /etc, which are the tests' own.
func addUser(t *testing.T, dirs ...string) {
	t.Helper()
	ids := fmt.Sprintf("ann:%d:65536\n", annIDs)
	for _, f := range []struct{ path, line string }{
		{"/etc/passwd", fmt.Sprintf("ann:x:%d:%d::%s:/bin/sh\n", annID, annID, dirs[0])},
		{"/etc/group", fmt.Sprintf("ann:x:%d:\n", annID)}, {"/etc/subuid", ids}, {"/etc/subgid", ids},
	} {
		file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.WriteString(f.line)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range dirs {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o700), os.Chown(dir, annID, annID)); err != nil {
			t.Fatal(err)
		}
	}
}

// openDevices lets every user open what slirp4netns and fuse-overlayfs need,
// as udev does.
func openDevices(t *testing.T) {
	t.Helper()
	for _, d := range []struct {
		path         string
		major, minor uint32
	}{{"/dev/net/tun", 10, 200}, {"/dev/fuse", 10, 229}} {
		node := filepath.Join(thePlace().work, filepath.Base(d.path))
		err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor)))
		if err == nil {
			err = errors.Join(os.Chmod(node, 0o666), unix.Mount(node, d.path, "", unix.MS_BIND, ""))
		}
		if err != nil {
			t.Fatalf("%s: %v", d.path, err)
		}
	}
}

func TestRootlessPodman(t *testing.T) {
	e := rootless(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"run", func(t *testing.T, e *engine) { e.play(t) }}, {"ids", testRootlessIDs}, {"errors", testErrors}, {"life", testLife}, {"exec", testExec},
		{"terminal", testTerminal}, {"standard input", testStdin}, {"network", testSlirp}, {"health", testHealth}, {"pod", testPod},
		{"restart", testRestart}, {"files", testFiles}, {"build", testPodmanBuild}, {"tmpfs", testTmpfs}, {"created", testCreated},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

// testRootlessIDs: root in the container is the user, its other users are the
// user's subordinate ones; or the user stays who it is.
func testRootlessIDs(t *testing.T, e *engine) {
	for _, c := range []struct {
		options      []string
		script, want string
	}{
		{nil, "id -u; cat /proc/self/uid_map", fmt.Sprintf("0 0 %d 1 1 %d 65536", annID, annIDs)},
		{[]string{"--userns", "keep-id"}, "id -u; id -un", fmt.Sprint(annID, " ann")},
		{[]string{"--user", "1000"}, "id -u", "1000"},
	} {
		got := e.must(t, e.run(append([]string{"--rm", "--network", "none"}, c.options...), "sh", "-c", c.script)...)
		if got = strings.Join(strings.Fields(got), " "); got != c.want {
			t.Errorf("%q: ids are %q, want %q", c.options, got, c.want)
		}
	}
}

// testSlirp: a network in user space, with a port the host sees.
func testSlirp(t *testing.T, e *engine) {
	e.detached(t, "web", []string{"--network", "slirp4netns", "-p", "127.0.0.1:8088:80"}, "echo ahoy >/tmp/index.html; httpd -h /tmp; echo ready; sleep 1000")
	e.awaits(t, "ready", "logs", "-f", "web")
	host := engine{argv: []string{"busybox"}}
	if got := host.must(t, "wget", "-q", "-O", "-", "http://127.0.0.1:8088/"); got != "ahoy" {
		t.Errorf("the host reads %q", got)
	}
}
