package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/oci"
)

// anybody is a user without rights: Debian's daemon, which newuidmap finds by
// its name. For a test it has the subordinate ids from subordinate on.
const (
	anybody     = 1
	subordinate = 1 << 20
)

// ordinary is an ordinary user's place to run containers from.
type ordinary struct {
	t      *testing.T
	dir    string
	ranges bool // it has subordinate ids
}

func newOrdinary(t *testing.T) *ordinary {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	dir, err := os.MkdirTemp("", "berth-rootless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	build := exec.Command("go", "build", "-o", dir, "../../cmd/berth-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	busybox, err := filepath.Abs("../../demo/make-busybox.sh")
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh", "-ec", `
		chmod 755 .
		mkdir -p bundle/rootfs run
		$0 | tar -x -C bundle/rootfs
		chmod 700 run
		chown -R $1:$1 bundle run
		echo "$1:$2:65536" >subids`, busybox, fmt.Sprint(anybody), fmt.Sprint(subordinate))
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return &ordinary{t: t, dir: dir}
}

// bundle writes the config.json of a container of the user's.
func (o *ordinary) bundle(set func(*specs.Spec), args ...string) {
	o.t.Helper()
	s := oci.DefaultSpec()
	s.Process.Terminal, s.Process.Args = false, args
	s.Root.Readonly = false
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: anybody, Size: 1}}
	if o.ranges {
		s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: subordinate, Size: 65535})
	} else {
		for i, m := range s.Mounts {
			if m.Type == "devpts" { // its group has no id there
				s.Mounts[i].Options = m.Options[:len(m.Options)-1]
			}
		}
	}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	if set != nil {
		set(s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(o.dir+"/bundle/config.json", b, 0o644); err != nil {
		o.t.Fatal(err)
	}
}

// run runs berth-oci as the user.
func (o *ordinary) run(args ...string) (out string, code int) {
	o.t.Helper()
	cmd := exec.Command(o.dir+"/berth-oci", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: anybody, Gid: anybody}}
	if o.ranges {
		cmd = exec.Command("unshare", append([]string{"-m", "sh", "-ec", `
			mount --bind $0/subids /etc/subuid
			mount --bind $0/subids /etc/subgid
			exec setpriv --reuid ` + fmt.Sprint(anybody) + " --regid " + fmt.Sprint(anybody) + ` --clear-groups $0/berth-oci "$@"`, o.dir}, args...)...)
	}
	cmd.Dir = o.dir + "/bundle"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + o.dir + "/run"}
	text, err := os.CreateTemp("", "rootless") // a file: what is left running does not hold it open
	if err != nil {
		o.t.Fatal(err)
	}
	defer os.Remove(text.Name())
	defer text.Close()
	cmd.Stdout, cmd.Stderr = text, text
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	b, err := os.ReadFile(text.Name())
	if err != nil {
		o.t.Fatal(err)
	}
	return string(bytes.TrimSpace(b)), cmd.ProcessState.ExitCode()
}

func (o *ordinary) must(args ...string) string {
	o.t.Helper()
	out, code := o.run(args...)
	if code != 0 {
		o.t.Fatalf("%v: status %d: %s", args, code, out)
	}
	return out
}

// nothingLeft fails the test when a container is left.
func (o *ordinary) nothingLeft() {
	o.t.Helper()
	if left, err := filepath.Glob(o.dir + "/run/berth-oci/*"); err != nil || len(left) > 0 {
		o.t.Errorf("left: %v, %v", left, err)
	}
}

func TestRootlessRun(t *testing.T) {
	o := newOrdinary(t)
	for _, c := range []struct {
		name, script, want string
		ranges             bool
		set                func(*specs.Spec)
	}{
		{"own id", "id -u; tr -s ' ' </proc/self/uid_map; cat /proc/self/setgroups; hostname", "0\n 0 1 1\ndeny\nberth", false, nil},
		{"devices of the host", "echo x >/dev/null; head -c 2 /dev/zero | wc -c; ls -l /dev/null | cut -c1", "2\nc", false, nil},
		{"masked and read-only paths", "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo ro", "0\n0\nro", false, nil},
		{"mounts", "stat -f -c %T /dev /dev/shm /tmp; touch /tmp/x && echo rw", "tmpfs\ntmpfs\ntmpfs\nrw", false, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}})
		}},
		{"read-only bind of a filesystem with locked flags", "grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1; ls /data/loadavg", "ro\n/data/loadavg", false, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: "/proc", Options: []string{"rbind", "ro"}})
		}},
		{"the host's network", "stat -f -c %T /sys; ls -d /sys/class/net/lo", "sysfs\n/sys/class/net/lo", false, func(s *specs.Spec) {
			kept := s.Linux.Namespaces[:0]
			for _, n := range s.Linux.Namespaces {
				if n.Type != specs.NetworkNamespace {
					kept = append(kept, n)
				}
			}
			s.Linux.Namespaces = kept
		}},
		{"oom_score_adj it may not lower", "cat /proc/self/oom_score_adj", "", false, func(s *specs.Spec) {
			adj := -1000
			s.Process.OOMScoreAdj = &adj
		}},
		{"range of ids", "id -u; id -g; id -G; tr -s ' ' </proc/self/uid_map; cat /proc/self/setgroups", "1000\n1001\n1001 7\n 0 1 1\n 1 1048576 65535\nallow", true, func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}}
		}},
		{"clocks", "[ $(cut -d. -f1 /proc/uptime) -gt 86400000 ] && echo $$", "1", true, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 86400000}}
		}},
		{"hooks", "cat /hooked", "createContainer\nstartContainer", false, func(s *specs.Spec) {
			hook := func(file, text string) []specs.Hook {
				return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + text + " >>" + file}, Env: []string{"PATH=/bin"}}}
			}
			s.Hooks = &specs.Hooks{CreateContainer: hook(o.dir+"/bundle/rootfs/hooked", "createContainer"), StartContainer: hook("/hooked", "startContainer")}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o.t, o.ranges = t, c.ranges
			o.bundle(c.set, "sh", "-c", c.script)
			got := o.must("run", "c1")
			if c.want == "" {
				own, err := os.ReadFile("/proc/self/oom_score_adj")
				if err != nil {
					t.Fatal(err)
				}
				c.want = strings.TrimSpace(string(own))
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			o.nothingLeft()
		})
	}
}

func TestRootlessLifecycle(t *testing.T) {
	o := newOrdinary(t)
	for _, o.ranges = range []bool{false, true} {
		o.bundle(nil, "sleep", "1000")
		o.must("create", "c1")
		if st := o.must("state", "c1"); !strings.Contains(st, `"status": "created"`) {
			t.Errorf("state %s", st)
		}
		o.must("start", "c1")
		if got := o.must("exec", "c1", "sh", "-c", "id -u; until grep sleep /proc/1/comm; do :; done; tr -s ' ' </proc/self/uid_map | head -1"); got != "0\nsleep\n 0 1 1" {
			t.Errorf("exec: %q", got)
		}
		if got := o.must("list", "-q"); got != "c1" {
			t.Errorf("list: %q", got)
		}
		if out, code := o.run("pause", "c1"); code == 0 || !strings.Contains(out, "no cgroup") {
			t.Errorf("pause: status %d, %q", code, out)
		}
		o.must("kill", "--all", "c1", "KILL")
		o.must("delete", "--force", "c1")
		o.must("run", "--detach", "c2")
		o.must("delete", "--force", "c2")
		o.nothingLeft()
	}
}

func TestRootlessErrors(t *testing.T) {
	o := newOrdinary(t)
	for _, c := range []struct {
		want string
		set  func(*specs.Spec)
	}{
		{"linux.resources: limits need a cgroup", func(s *specs.Spec) {
			limit := int64(64 << 20)
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		}},
		{"hint: without root a container needs a user namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = s.Linux.Namespaces[:len(s.Linux.Namespaces)-1]
			s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		}},
		{"newgidmap: gid range [0-1) -> [0-1) not allowed", func(s *specs.Spec) { s.Linux.UIDMappings[0] = specs.LinuxIDMapping{HostID: 0, Size: 1} }},
		{"idmap without CAP_SYS_ADMIN on the host: not supported", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/tmp", Options: []string{"bind", "idmap"}})
		}},
		{"hint: leave tmpcopyup out", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"tmpcopyup"}})
		}},
		{"hint: join the user namespace that the mount namespace belongs to", func(s *specs.Spec) {
			for i := range s.Linux.Namespaces {
				if n := &s.Linux.Namespaces[i]; n.Type == specs.MountNamespace {
					n.Path = "/proc/self/ns/mnt"
				}
			}
		}},
	} {
		o.bundle(c.set, "true")
		if out, code := o.run("run", "c1"); code == 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: status %d: %s", c.want, code, out)
		}
		o.nothingLeft()
	}
}
