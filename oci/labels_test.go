package oci

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/lsm"
)

// A profile or label the kernel cannot heed is an error, never left out.
func TestMissingSecurityModulesAreNamed(t *testing.T) {
	no := func() bool { return false }
	for _, c := range []struct {
		want string
		set  func(*specs.Spec)
	}{
		{"process.apparmorProfile: not supported: needs AppArmor in the kernel", func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }},
		{"process.selinuxLabel: not supported: needs SELinux in the kernel", func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }},
		{"", func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" }},
		{"", func(s *specs.Spec) { s.Linux.MountLabel = "x" }},
	} {
		s := specFor("/nonexistent", "true")
		c.set(s)
		host := anyHost()
		host.appArmor, host.seLinux = no, no
		plans := map[string]func() (*Plan, error){
			"init": func() (*Plan, error) {
				return compile(&compileInput{spec: s, bundle: "/", host: host, cgroups: []cgroupMount{{Source: "/x"}}})
			},
			"exec": func() (*Plan, error) {
				return compileExec(&compileInput{spec: s, host: host}, s.Process, inherited{name: "init"}, 1)
			},
		}
		for name, plan := range plans {
			pl, err := plan()
			switch {
			case c.want != "":
				if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), c.want) || errdefs.Hint(err) == "" {
					t.Errorf("%s: %v (%s), want %s", name, err, errdefs.Hint(err), c.want)
				}
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case name == "init" && s.Linux.MountLabel != "" && (len(pl.Warnings) != 1 || !strings.Contains(pl.Warnings[0], "linux.mountLabel")):
				t.Errorf("a label without a use: warnings %q", pl.Warnings)
			}
		}
	}
}

// CVE-2019-19921 and its kin: what is written to /proc goes to the host's, not
// to what a joined mount namespace shows under that name.
func TestProcOfAJoinedNamespaceIsNotWritten(t *testing.T) {
	var root string
	s := startSleeper(t, func(s *specs.Spec) {
		root = s.Root.Path
		for _, name := range []string{"proc/self/oom_score_adj", "proc/sys/kernel/shmmni"} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755),
				os.WriteFile(filepath.Join(root, name), []byte("trap"), 0o666)); err != nil {
				t.Fatal(err)
			}
		}
		s.Root.Readonly = false
		s.Mounts, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
	})
	adj := 500
	joining := specFor("/", "cat", "/proc/self/oom_score_adj", "/proc/sys/kernel/shmmni")
	joining.Linux.CgroupsPath = s.req.Spec.Linux.CgroupsPath + "-second"
	joining.Mounts, joining.Linux.MaskedPaths, joining.Linux.ReadonlyPaths, joining.Root.Readonly = nil, nil, nil, false
	joining.Process.OOMScoreAdj = &adj
	joining.Linux.Sysctl = map[string]string{"kernel.shmmni": "1234"}
	for i, n := range joining.Linux.Namespaces {
		if n.Type == specs.MountNamespace {
			joining.Linux.Namespaces[i].Path = "/proc/" + strconv.Itoa(s.init.Pid) + "/ns/mnt"
		}
	}
	if out := mustRun(t, joining); out != "traptrap" {
		t.Errorf("the files are %q now", out)
	}
}

// profile lets everything pass but one file.
const profile = `profile berth-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  deny /secret rw,
}
`

func TestAppArmorProfile(t *testing.T) {
	if !lsm.AppArmor() {
		t.Skip("the kernel has no AppArmor")
	}
	needRoot(t)
	load := func(how string) error {
		parser := exec.Command("apparmor_parser", how)
		parser.Stdin = strings.NewReader(profile)
		if out, err := parser.CombinedOutput(); err != nil {
			return errors.New(string(out))
		}
		return nil
	}
	if err := load("-Kr"); err != nil {
		t.Fatal(err)
	}
	s := startSleeper(t, func(s *specs.Spec) {
		if err := os.WriteFile(filepath.Join(s.Root.Path, "secret"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		if err := load("-R"); err != nil {
			t.Error(err)
		}
	})
	const look = "cat /proc/self/attr/apparmor/current; cat /secret 2>&1; cat /proc/1/attr/apparmor/current; cat /etc/profile 2>&1"
	spec := *s.req.Spec
	spec.Root = &specs.Root{Path: s.req.Spec.Root.Path}
	linux := *spec.Linux
	linux.CgroupsPath += "-second"
	spec.Linux = &linux
	for _, user := range []uint32{0, 1000} {
		for _, nnp := range []bool{true, false} {
			pr := s.process("sh", "-c", look)
			pr.User.UID, pr.NoNewPrivileges, pr.ApparmorProfile = user, nnp, "berth-test"
			spec.Process = pr
			denied := "berth-test (enforce)\ncat: can't open '/secret': Permission denied\n"
			if out, _, err := run(t, &spec); err != nil || !strings.HasPrefix(out, denied+"berth-test (enforce)\n") {
				t.Errorf("init as %d: %v, %q", user, err, out)
			}
			if out, _, err := s.exec(pr); err != nil || !strings.HasPrefix(out, denied+"unconfined\n") {
				t.Errorf("exec as %d: %v, %q", user, err, out)
			}
			pr.ApparmorProfile = "unconfined"
			if out, _, err := s.exec(pr); err != nil || !strings.HasPrefix(out, "unconfined\nsecret") {
				t.Errorf("exec as %d, unconfined: %v, %q", user, err, out)
			}
			pr.ApparmorProfile = "nosuch"
			_, _, initErr := run(t, &spec)
			_, _, execErr := s.exec(pr)
			for _, err := range []error{initErr, execErr} {
				if !errors.Is(err, unix.ENOENT) || !strings.HasPrefix(err.Error(), "set AppArmor profile nosuch") || errdefs.Hint(err) == "" {
					t.Errorf("a profile that is not loaded: %v (%s)", err, errdefs.Hint(err))
				}
			}
		}
	}
	// An exec that names none has the container's.
	s.req.Spec.Process.ApparmorProfile = "berth-test"
	if out, _, err := s.exec(&specs.Process{Args: []string{"cat", "/proc/self/attr/apparmor/current"}, Cwd: "/"}); err != nil || out != "berth-test (enforce)" {
		t.Errorf("exec without a profile: %v, %q", err, out)
	}
}

func TestSELinuxLabels(t *testing.T) {
	if !lsm.SELinux() {
		t.Skip("the kernel has no SELinux")
	}
	needRoot(t)
	const label, files = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	s := startSleeper(t, func(s *specs.Spec) {
		s.Process.SelinuxLabel, s.Linux.MountLabel = label, files
		s.Process.NoNewPrivileges = false // the policy may forbid new labels then
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/own", Type: "tmpfs", Source: "tmpfs", Options: []string{`context="` + strings.ReplaceAll(files, "c2", "c3") + `"`}})
		if err := os.WriteFile(filepath.Join(s.Root.Path, "secret"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(s.Root.Path, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			l := files
			if d.Name() == "secret" {
				l = "system_u:object_r:shadow_t:s0"
			}
			return unix.Lsetxattr(path, "security.selinux", []byte(l), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	if b, err := os.ReadFile("/proc/" + strconv.Itoa(s.init.Pid) + "/attr/current"); err != nil || strings.Trim(string(b), "\x00\n") != label {
		t.Errorf("init: %v, %q", err, b)
	}
	if out, _, err := s.exec(s.process("cat", "/proc/self/attr/current")); err != nil || strings.Trim(out, "\x00") != label {
		t.Errorf("exec: %v, %q", err, out)
	}
	out, _, err := s.exec(s.process("sh", "-c", "grep -F context= /proc/self/mountinfo | cut -d' ' -f5 | sort | tr '\\n' ' '; grep ' /own ' /proc/self/mountinfo"))
	if err != nil || !strings.HasPrefix(out, "/dev /dev/pts /dev/shm /own ") || !strings.Contains(out, "c1,c3") {
		t.Errorf("mounts: %v, %q", err, out)
	}
	b := make([]byte, 256)
	if n, err := unix.Getxattr("/proc/"+strconv.Itoa(s.init.Pid)+"/root/dev/mqueue", "security.selinux", b); err != nil || strings.Trim(string(b[:n]), "\x00") != files {
		t.Errorf("/dev/mqueue: %v, %q", err, b[:max(n, 0)])
	}
	pr := s.process("true")
	pr.SelinuxLabel = "no:such:label"
	if _, _, err := s.exec(pr); !errors.Is(err, unix.EINVAL) || errdefs.Hint(err) == "" {
		t.Errorf("a label the policy does not know: %v (%s)", err, errdefs.Hint(err))
	}
	enforce(t)
	if out, _, err := s.exec(s.process("sh", "-c", "cat /proc/self/attr/current; cat /secret 2>&1")); err != nil || !strings.Contains(out, label) || !strings.Contains(out, "Permission denied") {
		t.Errorf("enforcing: %v, %q", err, out)
	}
}

// enforce makes SELinux act on its policy until the test ends.
func enforce(t *testing.T) {
	t.Helper()
	const file = "/sys/fs/selinux/enforce"
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte("1"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// What hides a file of /proc must not get what is written to it.
func TestCoveredProcIsNotWritten(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread() // and never unlocked: the thread's mounts end with it
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")); err != nil {
		t.Fatal(err)
	}
	cover := t.TempDir()
	trap := filepath.Join(cover, "kernel/shmmni")
	if err := errors.Join(os.Mkdir(filepath.Dir(trap), 0o755), os.WriteFile(trap, []byte("trap"), 0o644),
		unix.Mount(cover, "/proc/sys", "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	s := specFor(rootfs(t), "true")
	s.Linux.Sysctl = map[string]string{"kernel.shmmni": "1234"}
	if _, _, err := run(t, s); !errors.Is(err, unix.EXDEV) || !strings.HasPrefix(err.Error(), "set kernel.shmmni") || errdefs.Hint(err) == "" {
		t.Errorf("%v (%s)", err, errdefs.Hint(err))
	}
	if b, err := os.ReadFile(trap); err != nil || string(b) != "trap" {
		t.Errorf("the file has %q (%v)", b, err)
	}
}

func TestSysctlsOfAJoinedNamespace(t *testing.T) {
	needRoot(t)
	key := "net.ipv4.ip_unprivileged_port_start"
	before, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		t.Fatal(err)
	}
	s := specFor(rootfs(t), "true")
	s.Linux.Sysctl = map[string]string{key: "79"}
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = "/proc/self/ns/net"
		}
	}
	if _, _, err := run(t, s); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), key) {
		t.Errorf("the host's: %v", err)
	}
	if after, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || string(after) != string(before) {
		t.Errorf("the host has %q now (%v)", after, err)
	}

	other := startSleeper(t, nil)
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = "/proc/" + strconv.Itoa(other.init.Pid) + "/ns/net"
		}
	}
	s.Linux.CgroupsPath += "-second"
	s.Process.Args = []string{"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"}
	if got := mustRun(t, s); got != "79" {
		t.Errorf("another container's: %q", got)
	}
}

func TestSysctlOfAUserNamespace(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	s := specFor(root, "cat", "/proc/sys/user/max_ipc_namespaces")
	s.Linux.Sysctl = map[string]string{"user.max_ipc_namespaces": "17"}
	if err := check(s); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("without a user namespace: %v", err)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	if got := mustRun(t, s); got != "17" {
		t.Errorf("got %q", got)
	}
}
