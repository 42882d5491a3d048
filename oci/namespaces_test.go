package oci

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

// holder is a process in namespaces of its own, for others to join.
func holder(t *testing.T, flags ...string) int {
	t.Helper()
	cmd := exec.Command("unshare", append(flags, "sh", "-c", "echo ready; exec sleep 1000")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	return cmd.Process.Pid
}

// setNamespace replaces or adds a namespace of the specification.
func setNamespace(s *specs.Spec, kind specs.LinuxNamespaceType, path string) {
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == kind {
			s.Linux.Namespaces[i].Path = path
			return
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

// userNamespaced gives a container whose root is at dir a user namespace.
func userNamespaced(t *testing.T, s *specs.Spec, dir string) {
	t.Helper()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	setNamespace(s, specs.UserNamespace, "")
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
}

var nsFiles = map[specs.LinuxNamespaceType]string{
	specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid",
	specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time", specs.UserNamespace: "user", specs.MountNamespace: "mnt",
}

// TestNamespacesByPath joins each type alone, with and without a new user
// namespace beside it.
func TestNamespacesByPath(t *testing.T) {
	needRoot(t)
	pid := holder(t, "--mount", "--net", "--ipc", "--uts", "--cgroup", "--time", "--pid", "--fork", "--kill-child")
	root := rootfs(t)
	for kind, file := range nsFiles {
		if kind == specs.UserNamespace {
			continue
		}
		for _, newUser := range []bool{false, true} {
			if newUser && kind == specs.MountNamespace { // refused: TestWrongNamespacesAreRefused
				continue
			}
			t.Run(fmt.Sprintf("%s, new user namespace %t", kind, newUser), func(t *testing.T) {
				path := fmt.Sprintf("/proc/%d/ns/%s", pid, file)
				if kind == specs.PIDNamespace || kind == specs.TimeNamespace {
					path += "_for_children"
				}
				want, err := os.Readlink(path)
				if err != nil {
					t.Fatal(err)
				}
				s := specFor(root, "sh", "-c", "readlink /proc/self/ns/"+file+"; echo $(readlink /proc/self/ns/user)")
				s.Root.Readonly = false
				if kind == specs.UTSNamespace {
					s.Hostname = ""
				}
				if newUser {
					userNamespaced(t, s, root)
				}
				setNamespace(s, kind, path)
				if _, err := os.Stat("/dev/mqueue"); err != nil { // a joined one's mqueue would be the host's
					s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
				}
				host, err := os.Readlink("/proc/self/ns/user")
				if err != nil {
					t.Fatal(err)
				}
				got := strings.Fields(mustRun(t, s))
				if len(got) != 2 || got[0] != want || (got[1] == host) == newUser {
					t.Errorf("got %q, want %s", got, want)
				}
			})
		}
	}
}

// TestJoinedUserNamespace: all the other namespaces belong to it, and mappings in
// the specification must be its own.
func TestJoinedUserNamespace(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) {
		s.Linux.CgroupsPath += "-first"
		userNamespaced(t, s, s.Root.Path)
	})
	root := s.req.Spec.Root.Path
	path := fmt.Sprintf("/proc/%d/ns/user", s.init.Pid)
	want, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	second := func() *specs.Spec {
		c := specFor(root, "sh", "-c", "readlink /proc/self/ns/user; id -u; hostname; mount -t tmpfs x /tmp && echo mounted; echo $$; cat /proc/self/oom_score_adj")
		setNamespace(c, specs.UserNamespace, path)
		adj := 77
		c.Process.OOMScoreAdj = &adj
		caps := []string{"CAP_SYS_ADMIN"}
		c.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		return c
	}
	for _, mapped := range []bool{false, true} {
		c := second()
		if mapped {
			c.Linux.UIDMappings, c.Linux.GIDMappings = s.req.Spec.Linux.UIDMappings, s.req.Spec.Linux.GIDMappings
		}
		if got, want := mustRun(t, c), want+"\n0\nberth\nmounted\n1\n77"; got != want {
			t.Errorf("mappings given %t: got %q, want %q", mapped, got, want)
		}
	}
	c := second()
	c.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 5, Size: 10}}
	c.Linux.GIDMappings = c.Linux.UIDMappings
	if _, _, err := run(t, c); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "linux.uidMappings: the user namespace that is joined has others: \"0 100000 65536\"") {
		t.Errorf("got %v", err)
	}
	// A namespace of the first container's beside the joined user namespace.
	c = second()
	c.Hostname = ""
	setNamespace(c, specs.UTSNamespace, fmt.Sprintf("/proc/%d/ns/uts", s.init.Pid))
	setNamespace(c, specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", s.init.Pid))
	if got := strings.Fields(mustRun(t, c)); len(got) != 6 || got[0] != want || got[2] != "berth" || got[3] != "mounted" || got[4] == "1" {
		t.Errorf("got %q", got)
	}
}

// TestMappingsByTheParent: the process makes its user namespace itself, as it
// must where newuidmap writes the mappings, and everything works as otherwise.
func TestMappingsByTheParent(t *testing.T) {
	pid := 0
	s := startSleeper(t, func(s *specs.Spec) {
		pid = holder(t, "--net")
		userNamespaced(t, s, s.Root.Path)
		setNamespace(s, specs.NetworkNamespace, fmt.Sprintf("/proc/%d/ns/net", pid))
	})
	net, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	got, code, err := s.exec(s.process("sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map; cat /proc/self/setgroups; readlink /proc/1/ns/net; cat /proc/1/comm; ls -d /dev/null"))
	if want := "0\n 0 100000 65536\nallow\n" + net + "\nsleep\n/dev/null"; err != nil || code != 0 || got != want {
		t.Errorf("%v, %d: got %q, want %q", err, code, got, want)
	}
}

// TestTimeOffsets: the clocks of init and of execs are moved, with and without a
// pid and a user namespace.
func TestTimeOffsets(t *testing.T) {
	const day = 86400
	for name, set := range map[string]func(*specs.Spec){
		"default":          func(*specs.Spec) {},
		"user namespace":   func(s *specs.Spec) { userNamespaced(t, s, s.Root.Path) },
		"no pid namespace": func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			s := startSleeper(t, func(s *specs.Spec) {
				setNamespace(s, specs.TimeNamespace, "")
				s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000 * day, Nanosecs: 5}, "monotonic": {Secs: 3 * day}}
				set(s)
			})
			offsets, err := os.ReadFile(fmt.Sprintf("/proc/%d/timens_offsets", s.init.Pid))
			if got := strings.Join(strings.Fields(string(offsets)), " "); err != nil || got != "monotonic 259200 0 boottime 86400000 5" {
				t.Errorf("init: %q, %v", got, err)
			}
			out, code, err := s.exec(s.process("sh", "-c", "cut -d. -f1 /proc/uptime; [ $(readlink /proc/self/ns/time) = $(readlink /proc/"+insidePid(t, s)+"/ns/time) ] && echo same"))
			fields := strings.Fields(out)
			if err != nil || code != 0 || len(fields) != 2 {
				t.Fatal(out, code, err)
			}
			if up, err := strconv.Atoi(fields[0]); err != nil || up < 1000*day {
				t.Errorf("uptime %s, %v", fields[0], err)
			}
			if self, err := os.Readlink("/proc/self/ns/time"); err != nil || self == mustReadlink(t, fmt.Sprintf("/proc/%d/ns/time", s.init.Pid)) {
				t.Errorf("init is in the host's time namespace (%v)", err)
			}
		})
	}
}

func mustReadlink(t *testing.T, path string) string {
	t.Helper()
	link, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// insidePid is the sleeper's first process as its container sees it.
func insidePid(t *testing.T, s *sleeper) string {
	t.Helper()
	pid, err := pidInside(s.init.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(pid)
}

func TestWrongNamespacesAreRefused(t *testing.T) {
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	for want, set := range map[string]func(*specs.Spec){
		"new user namespace together with a joined mount namespace": func(s *specs.Spec) {
			setNamespace(s, specs.UserNamespace, "")
			setNamespace(s, specs.MountNamespace, "/proc/1/ns/mnt")
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		},
		"they need a user namespace":                    func(s *specs.Spec) { s.Linux.UIDMappings = ids },
		"a new user namespace needs both":               func(s *specs.Spec) { setNamespace(s, specs.UserNamespace, "") },
		"linux.timeOffsets: needs a new time namespace": func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} },
		"linux.timeOffsets: unknown clock \"realtime\"": func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {}} },
		"1000000000 nanoseconds are more than a second": func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Nanosecs: 1e9}}
		},
		"linux.netDevices: needs a network namespace": func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.NetDevices = nil, map[string]specs.LinuxNetDevice{"eth0": {}}
			s.Hostname = ""
		},
		"\"a/b\" is no name of a network device": func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a/b": {}} },
		"e0 and e1 have the same name x": func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"e0": {Name: "x"}, "e1": {Name: "x"}}
		},
		"e0: \"%d%d\" is no name of a network device": func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"e0": {Name: "%d%d"}} },
	} {
		s := specFor("/nonexistent", "true")
		s.Root.Readonly = false
		s.Mounts = nil
		set(s)
		if _, err := Compile(s, "/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// ip runs ip(8) on the host.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// vethPair makes a network device with an address. Its name is this process's alone:
// tests of other packages have devices too. Where it has moved to a container, whose
// network namespace the kernel takes apart some time later, it goes with its peer.
func vethPair(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("bn%d", os.Getpid())
	peer := name + "p"
	ip(t, "link", "add", name, "type", "veth", "peer", "name", peer)
	t.Cleanup(func() {
		out, err := exec.Command("ip", "link", "del", peer).CombinedOutput()
		// It may have gone with the container, or just be going.
		if err != nil && !strings.Contains(string(out), "Cannot find device") && !strings.Contains(string(out), "No such device") {
			t.Errorf("ip link del %s: %v: %s", peer, err, out)
		}
	})
	ip(t, "addr", "add", "192.0.2.7/24", "dev", name)
	return name
}

// TestNetDevices: the device is in the container, under its name there, up, with
// its addresses, and no longer on the host; and a kernel parameter of it is set.
func TestNetDevices(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	for _, as := range []string{"", "inside", "eth%d"} {
		for _, user := range []bool{false, true} {
			t.Run(fmt.Sprintf("as %q, user namespace %t", as, user), func(t *testing.T) {
				device := vethPair(t)
				ip(t, "link", "set", device, "mtu", "1400", "up")
				name := as
				switch as {
				case "":
					name = device
				case "eth%d":
					name = "eth0"
				}
				s := specFor(root, "sh", "-c", "cd /sys/class/net; echo *; cat "+name+"/mtu; ip -o addr show dev "+name+" | grep -o '192[.][^ ]*'; ip link show "+name+" | grep -o 'UP[,>]' | head -1; cat /proc/sys/net/ipv4/conf/"+name+"/forwarding")
				s.Root.Readonly = false
				if user {
					userNamespaced(t, s, root)
				}
				s.Linux.NetDevices = map[string]specs.LinuxNetDevice{device: {Name: as}}
				s.Linux.Sysctl = map[string]string{"net/ipv4/conf/" + name + "/forwarding": "1"}
				want := []string{name, "lo", "1400", "192.0.2.7/24", "UP,", "1"}
				if got := strings.Fields(mustRun(t, s)); strings.Join(got, " ") != strings.Join(want, " ") {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

// TestNetDeviceThatCannotBeMoved: the error names it, and it stays as it was.
func TestNetDeviceThatCannotBeMoved(t *testing.T) {
	needRoot(t)
	device := vethPair(t)
	missing := device + "x"
	ip(t, "link", "set", device, "up")
	for _, c := range []struct{ name, as, want string }{
		{device, "lo", "linux.netDevices: " + device + ": the network namespace has a device lo already"},
		{missing, "", "linux.netDevices: " + missing + ": no network device " + missing},
		{"lo", "lo2", "linux.netDevices: lo: move network device to the namespace as lo2: invalid argument"},
	} {
		s := specFor(rootfs(t), "true")
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{c.name: {Name: c.as}}
		if _, _, err := run(t, s); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if got := ip(t, "-o", "addr", "show", "dev", device); !strings.Contains(got, "192.0.2.7/24") {
		t.Errorf("the device has changed: %s", got)
	}
}

// TestJoinedPIDNamespaceIsEnteredLast: what a command is given is there too when its
// process enters another container's pid namespace as the last of all.
func TestJoinedPIDNamespaceIsEnteredLast(t *testing.T) {
	other := startSleeper(t, func(s *specs.Spec) { s.Linux.CgroupsPath += "-other" })
	root := rootfs(t)
	spec := func(script string) *specs.Spec {
		s := specFor(root, "sh", "-c", script)
		setNamespace(s, specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", other.init.Pid))
		s.Root.Readonly = false
		s.Process.User = specs.User{UID: 12, GID: 13}
		s.Process.NoNewPrivileges = false
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 50, Hard: 50}}
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}}}
		return s
	}
	const script = `id -u; id -g; grep processes /proc/self/limits | tr -s " " | cut -d" " -f3; mkdir /tmp/d 2>&1 | grep -o 'not permitted'; cat /proc/1/comm; grep CapEff /proc/self/status | cut -f2`
	const want = "12\n13\n50\nnot permitted\nsleep\n0000000000000000"
	if got := mustRun(t, spec(script)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	// With an init, whose child the command is.
	s := spec(script)
	s.Linux.CgroupsPath += "-init"
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pr, err := runner(t).Start(&StartRequest{ID: "init", Spec: s, Bundle: t.TempDir(), Stdio: Stdio{Out: w, Err: w}, Cgroup: group(t, s), Init: true})
	w.Close()
	if out, oerr := output(t, r, pr, err); oerr != nil || out != want {
		t.Errorf("with an init: %q, %v", out, oerr)
	}

	// Created, and started later.
	s = spec("exit 7")
	s.Linux.CgroupsPath += "-created"
	c := newContainer(t, &Store{Root: t.TempDir()}, "created", s)
	if pr, err = c.Launch(runner(t), s, LaunchOptions{Wait: true}); err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if err := c.Start(); err != nil {
		t.Error(err)
	}
	if ws, err := pr.Wait(); err != nil || ws.ExitStatus() != 7 {
		t.Errorf("created: %v, %v", ws, err)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}
