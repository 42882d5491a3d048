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

// CVE-2025-52565: /dev/pts/ptmx of a running container may be anything.
func TestExecTerminalIsChecked(t *testing.T) {
	s := startSleeper(t, func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == "/dev/pts" {
				s.Mounts = append(s.Mounts[:i], s.Mounts[i+1:]...)
				return
			}
		}
	})
	for _, prepare := range []string{
		"mkdir -p /dev/pts; ln -sf /dev/null /dev/pts/ptmx",
		"rm -f /dev/pts/ptmx; mknod /dev/pts/ptmx c 1 3 || cp -a /dev/null /dev/pts/ptmx",
		"rm -f /dev/pts/ptmx; mkfifo /dev/pts/ptmx",
	} {
		if out, _, err := s.exec(s.process("sh", "-c", prepare)); err != nil {
			t.Fatalf("%s: %v %s", prepare, err, out)
		}
		pr := s.process("true")
		pr.Terminal = true
		if _, _, err := s.exec(pr); err == nil || !strings.HasPrefix(err.Error(), "open terminal") {
			t.Errorf("after %q a terminal was opened: %v", prepare, err)
		}
	}
}

// The same for a container that is made: the image brings a /dev/pts/ptmx of its
// own, and no devpts covers it.
func TestTerminalIsNotTheImages(t *testing.T) {
	needRoot(t)
	for name, prepare := range map[string]func(dir string) error{
		"link":        func(dir string) error { return os.Symlink("/etc/target", dir+"/ptmx") },
		"file":        func(dir string) error { return os.WriteFile(dir+"/ptmx", nil, 0o666) },
		"fifo":        func(dir string) error { return unix.Mkfifo(dir+"/ptmx", 0o666) },
		"null":        func(dir string) error { return unix.Mknod(dir+"/ptmx", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		"host's ptmx": func(dir string) error { return unix.Mknod(dir+"/ptmx", unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))) },
	} {
		root := rootfs(t)
		write(t, root, "dev/pts/", "", "etc/target", "target")
		if err := prepare(root + "/dev/pts"); err != nil {
			t.Fatal(err)
		}
		s := specFor(root, "true")
		s.Process.Terminal, s.Root.Readonly = true, false
		s.Mounts = s.Mounts[:1]
		if _, err := attack(t, s).try(nil); err == nil || !strings.HasPrefix(err.Error(), "open terminal") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// CVE-2025-52565: the terminal was bound on /dev/console by its name, and a link
// there had it bound on a file of /proc that was to be read-only or masked.
func TestConsoleIsBoundOnNothingElse(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	write(t, root, "dev/pts/", "", "etc/target", "target", "dev/console", "", "dev/link", "-> ../etc/target")
	s := specFor(root, "cat", "/etc/target")
	s.Process.Terminal, s.Root.Readonly = true, false
	s.Mounts = []specs.Mount{s.Mounts[0], s.Mounts[2]} // /proc and /dev/pts: /dev is the image's
	a := attack(t, s)
	stop := swapping(t, filepath.Join(root, "dev/console"), filepath.Join(root, "dev/link"))
	opened := 0
	for range raceRounds {
		switch out, err := a.try(nil); {
		case err != nil:
		case out == "target":
			opened++
		default:
			t.Fatalf("/etc/target has %q: the terminal is bound on it", out)
		}
	}
	fooled := false
	for i := 0; i < naiveRounds && !fooled; i++ {
		// Bound on the file, it is the terminal that cat reads: it would wait.
		a.spec.Process.Args = []string{"stat", "-c", "%F", "/etc/target"}
		out, err := a.try(followConsole)
		fooled = err == nil && out == "character special file"
	}
	stop()
	if opened == 0 || !fooled {
		t.Errorf("opened %d terminals, a naive runtime fooled: %t; this test tests nothing", opened, fooled)
	}
}

// followConsole looks /dev/console up through links.
func followConsole(prog *p.Program, op *p.Op) {
	if op.Sys == p.Openat2 && strings.HasPrefix(op.Step, "bind terminal") && text(prog, op.Args[1]) == "console" {
		how := prog.At(op.Args[2])
		copy(how, []byte{0, 0, byte(unix.O_PATH >> 16), byte(unix.O_CLOEXEC >> 24), 0, 0, 0, 0})
		copy(how[16:], make([]byte, 8))
	}
}
