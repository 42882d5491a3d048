package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A container must not reach anything of the host through what its image
// ships. Each test says which attack of the past it repeats.

// CVE-2019-5736: the runtime's binary, reached through /proc/self/exe of the
// process that is about to become the container's.
func TestHostBinaryIsOutOfReach(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	script := "#!/proc/self/exe\n"
	if err := os.WriteFile(filepath.Join(root, "bin/evil"), []byte(script), 0o755); err != nil {
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
	after, err := os.ReadFile(self)
	if err != nil || string(before) != string(after) {
		t.Errorf("%s has changed (%v)", self, err)
	}
}

// CVE-2026-41579 and its kin: /dev, /proc or /sys of the image is a symbolic
// link that leads somewhere else.
func TestHostileLinksForMountPoints(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	for _, name := range []string{"dev", "proc", "sys"} {
		for _, target := range []string{outside, "../../../../../../../.." + outside, "/tmp", "/proc/self/root"} {
			root := rootfs(t)
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			_, _, err := run(t, specFor(root, "true"))
			if err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
				t.Errorf("/%s -> %s: %v", name, target, err)
			}
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("something was made outside the root: %v %v", left, err)
	}
}

// CVE-2024-45310 and others: mount points reached through links are made inside
// the root, never on the host.
func TestLinksStayInsideTheRoot(t *testing.T) {
	needRoot(t)
	outside, src := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("bound"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := rootfs(t)
	if err := os.Symlink("/../../../../../../.."+outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	// Inside the root the link's target is missing: nothing may be made for it.
	s := specFor(root, "true")
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link", Source: src, Options: []string{"bind"}})
	if _, _, err := run(t, s); err == nil {
		t.Error("a dangling link was followed")
	}
	// When it is there, it is the container's.
	if err := os.MkdirAll(filepath.Join(root, outside), 0o755); err != nil {
		t.Fatal(err)
	}
	s = specFor(root, "cat", outside+"/sub/f")
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/sub", Source: src, Options: []string{"bind"}})
	if out := mustRun(t, s); out != "bound" {
		t.Errorf("got %q", out)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("something was made outside the root: %v %v", left, err)
	}
}

// CVE-2024-21626: the working directory is a descriptor of the host.
func TestWorkingDirectoryIsNoHostDescriptor(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/5", "/proc/self/fd/7/../../..", "/proc/1/fd/8"} {
		s := specFor(root, "true")
		s.Process.Cwd = cwd
		if _, _, err := run(t, s); err == nil {
			t.Errorf("working directory %s was accepted", cwd)
		}
	}
}

// CVE-2025-31133: a masked path's replacement comes from the host's /dev/null,
// not from the image's.
func TestMaskIsTheHostsNull(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/secret", filepath.Join(root, "dev/null")); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "sh", "-c", "stat -c %t:%T /etc/masked; cat /etc/masked")
	if err := os.WriteFile(filepath.Join(root, "etc/masked"), []byte("hidden"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/masked")
	if out := mustRun(t, s); out != "1:3" {
		t.Errorf("masked file is %q", out)
	}
}

func TestMountsOverProcAreRefused(t *testing.T) {
	for dest, ok := range map[string]bool{
		"/proc/self/attr": false, "/proc/sys/kernel": false, "//proc/./1": false, "/proc/cpuinfo": true, "/procfs": true, "/proc": false,
	} {
		s := specFor("/nonexistent", "true")
		s.Mounts = []specs.Mount{{Destination: dest, Type: "tmpfs", Source: "tmpfs"}}
		if ok {
			s.Mounts[0] = specs.Mount{Destination: dest, Source: "/etc/hostname", Options: []string{"bind"}}
		}
		if err := check(s); (err == nil) != ok {
			t.Errorf("%s: %v", dest, err)
		}
	}
}
