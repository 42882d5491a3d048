package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// CVE-2019-5736: the runtime's binary, reached through /proc/self/exe of the
// process that is about to become the container's.
func TestHostBinaryIsOutOfReach(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	write(t, root, "bin/evil", "#!/proc/self/exe\n")
	if err := os.Chmod(filepath.Join(root, "bin/evil"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	// The interpreter of the script is the set-up's own sealed executable: it
	// finds no program and ends, with nothing of the host.
	if out, ws, err := run(t, specFor(root, "/bin/evil")); err != nil || ws.ExitStatus() != 255 || out != "" {
		t.Errorf("#!/proc/self/exe: %v, status %d, output %q", err, ws.ExitStatus(), out)
	}
	s := specFor(root, "sh", "-c", "for f in /proc/*/exe; do echo x >>$f; readlink $f; done 2>/dev/null | sort -u")
	if out := mustRun(t, s); strings.Contains(out, self) {
		t.Errorf("the container sees the host's %s", out)
	}
	sleeping := startSleeper(t, func(s *specs.Spec) { s.Root.Path = root })
	if out, code, err := sleeping.exec(sleeping.process("/bin/evil")); err != nil || code != 255 || out != "" {
		t.Errorf("exec #!/proc/self/exe: %v, status %d, output %q", err, code, out)
	}
	after, err := os.ReadFile(self)
	if err != nil || string(before) != string(after) {
		t.Errorf("%s has changed (%v)", self, err)
	}
}

// hostDirectory is an open directory of the host with a file "bait" in it.
func hostDirectory(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "bait", "bait")
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// chdirByPath enters the working directory by its path, as chdir(2) does.
func chdirByPath(prog *p.Program, op *p.Op) {
	if cwd, ok := strings.CutPrefix(op.Step, "change to "); ok && op.Sys == p.Fchdir {
		op.Sys, op.Args = p.Chdir, [6]p.Arg{prog.Str(cwd)}
	}
	followLinks(prog, op)
}

// CVE-2024-21626: the working directory is a descriptor of the host: one that
// leaked, a standard stream, or one that was passed on.
func TestWorkingDirectoryIsNoHostDescriptor(t *testing.T) {
	needRoot(t)
	host := hostDirectory(t)
	s := specFor(rootfs(t), "cat", "bait")
	a := attack(t, s)
	a.in, a.extra = host, []*os.File{host}
	for _, cwd := range []string{
		"/proc/self/fd/0", "/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5", "/proc/self/fd/7", "/proc/self/fd/7/../../..",
		"/proc/1/fd/8", "/proc/self/cwd", "/proc/self/root", "/dev/fd/0", "/dev/stdin",
	} {
		s.Process.Cwd = cwd
		if out, err := a.try(nil); err == nil {
			t.Errorf("working directory %s was accepted: %s", cwd, out)
		}
	}
	s.Process.Cwd = "/dev/fd/3"
	if out, err := a.try(chdirByPath); err != nil || out != "bait" {
		t.Errorf("a naive runtime does not lead there (%q, %v): this test tests nothing", out, err)
	}
}

// The same for exec --cwd, and with a link of the image on the way that comes
// and goes.
func TestExecWorkingDirectoryIsNoHostDescriptor(t *testing.T) {
	host := hostDirectory(t)
	s := startSleeper(t, func(s *specs.Spec) {
		write(t, s.Root.Path, "here/mark", "inside", "there", "-> /proc/self/fd/3")
	})
	pr := s.process("cat", "bait")
	for _, cwd := range []string{
		"/proc/self/fd/0", "/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5", "/proc/thread-self/fd/3", "/proc/1/root/proc/self/fd/3",
		"/there", "/dev/fd/0", "/dev/fd/3/..", "/dev/stdin",
	} {
		pr.Cwd = cwd
		if out, err := s.try(pr, nil, host, host); err == nil {
			t.Errorf("working directory %s was accepted: %s", cwd, out)
		}
	}
	pr.Cwd = "/here"
	// Such a process is in the container's pid namespace earlier, or its /proc/self
	// would lead nowhere.
	pr.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	pr.Args = []string{"sh", "-c", "cat mark bait 2>/dev/null"}
	swapping(t, s.req.Spec.Root.Path+"/here", s.req.Spec.Root.Path+"/there")
	inside := 0
	for range raceRounds {
		switch out, err := s.try(pr, nil, nil, host); {
		case err != nil:
		case out == "inside":
			inside++
		default:
			t.Fatalf("exec is in a directory of the host: %q", out)
		}
	}
	escaped := false
	for i := 0; i < naiveRounds && !escaped; i++ {
		out, _ := s.try(pr, chdirByPath, nil, host)
		escaped = out == "bait"
	}
	if inside == 0 || !escaped {
		t.Errorf("inside %d times, a naive runtime outside: %t; this test tests nothing", inside, escaped)
	}
}

// leak opens descriptors that execve keeps, at numbers low, middling and high.
func leak(t *testing.T) {
	t.Helper()
	f := hostDirectory(t)
	for _, n := range []int{30, 63, 64, 500} { // or the next that is free
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
}

// keepAll leaves all descriptors open.
func keepAll(_ *p.Program, op *p.Op) {
	if op.Sys == p.CloseRange {
		op.Sys, op.Args = p.Umask, [6]p.Arg{}
	}
}

// CVE-2024-21626 and CVE-2016-9962 both began with a descriptor that leaked.
func TestNoDescriptorLeaks(t *testing.T) {
	needRoot(t)
	leak(t)
	const script = "ls /proc/self/fd" // the listing itself is the last
	s := specFor(rootfs(t), "sh", "-c", script)
	host := hostDirectory(t)
	for _, c := range []struct {
		name     string
		extra    []*os.File
		terminal bool
		want     string
	}{
		{"streams", nil, false, "0 1 2 3"},
		{"extra files", []*os.File{host, host, host}, false, "0 1 2 3 4 5 6"},
		{"terminal", nil, true, "0 1 2 3"},
		{"terminal and extra files", []*os.File{host, host}, true, "0 1 2 3 4 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.Process.Terminal = c.terminal
			a := attack(t, s)
			a.extra = c.extra
			if out, err := a.try(nil); err != nil || strings.Join(strings.Fields(out), " ") != c.want {
				t.Errorf("init has %q, want %s; %v", out, c.want, err)
			}
			sleeping := startSleeper(t, nil)
			pr := sleeping.process("sh", "-c", script)
			pr.Terminal = c.terminal
			if out, err := sleeping.try(pr, nil, nil, c.extra...); err != nil || strings.Join(strings.Fields(out), " ") != c.want {
				t.Errorf("exec has %q, want %s; %v", out, c.want, err)
			}
			if out, err := a.try(keepAll); err != nil || len(strings.Fields(out)) <= len(strings.Fields(c.want)) {
				t.Errorf("a naive runtime leaks nothing (%q, %v): this test tests nothing", out, err)
			}
			if out, err := sleeping.try(pr, keepAll, nil, c.extra...); err != nil || len(strings.Fields(out)) <= len(strings.Fields(c.want)) {
				t.Errorf("a naive exec leaks nothing (%q, %v): this test tests nothing", out, err)
			}
		})
	}
}
