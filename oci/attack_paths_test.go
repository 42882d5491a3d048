package oci

import (
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	p "github.com/berth-containers/berth/kernel/program"
)

// CVE-2026-41579, CVE-2026-47766 and their kin, CVE-2023-28642 for /proc: /dev,
// /proc or /sys of the image is a symbolic link that leads somewhere else.
func TestHostileLinksForMountPoints(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	for _, name := range []string{"dev", "proc", "sys"} {
		for _, target := range []string{outside, "../../../../../../../.." + outside, "/tmp", "/proc/self/root"} {
			root := rootfs(t)
			write(t, root, name, "-> "+target)
			_, _, err := run(t, specFor(root, "true"))
			if err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
				t.Errorf("/%s -> %s: %v", name, target, err)
			}
		}
	}
	if left := entries(t, outside); len(left) > 0 {
		t.Errorf("something was made outside the root: %v", left)
	}
}

// The same without anything mounted on /dev: the nodes themselves would be made
// where the image's link leads.
func TestDeviceNodesStayInsideTheRoot(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	root := rootfs(t)
	write(t, root, "dev", "-> "+outside)
	s := specFor(root, "true")
	s.Root.Readonly = false
	s.Mounts = s.Mounts[:1] // /proc
	a := attack(t, s)
	if _, err := a.try(nil); err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("/dev as a link: %v", err)
	}
	if left := entries(t, outside); len(left) > 0 {
		t.Errorf("nodes were made outside the root: %v", left)
	}
	if _, err := a.try(followLinks); err != nil || len(entries(t, outside)) == 0 {
		t.Errorf("a naive runtime makes no nodes there (%v): this test tests nothing", err)
	}
}

// CVE-2024-45310 and others: mount points reached through links are made inside
// the root, never on the host.
func TestLinksStayInsideTheRoot(t *testing.T) {
	needRoot(t)
	outside, src := t.TempDir(), t.TempDir()
	write(t, src, "f", "bound")
	root := rootfs(t)
	write(t, root, "link", "-> "+outside)
	// Inside the root the link's target is missing: nothing may be made for it.
	s := specFor(root, "true")
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link", Source: src, Options: []string{"bind"}})
	if _, _, err := run(t, s); err == nil {
		t.Error("a dangling link was followed")
	}
	// When it is there, it is the container's.
	write(t, root, outside[1:]+"/", "")
	s = specFor(root, "cat", outside+"/sub/f")
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/sub", Source: src, Options: []string{"bind"}})
	a := attack(t, s)
	if out, err := a.try(nil); err != nil || out != "bound" {
		t.Errorf("got %q, %v", out, err)
	}
	if left := entries(t, outside); len(left) > 0 {
		t.Errorf("something was made outside the root: %v", left)
	}
	if _, err := a.try(followLinks); err != nil || len(entries(t, outside)) == 0 {
		t.Errorf("a naive runtime makes nothing there (%v): this test tests nothing", err)
	}
}

// CVE-2021-30465, CVE-2024-45310: while a container is made, another that shares
// a volume with it lets a directory of the volume and a link change places, to
// have mount points made, or mounts put, where the link leads on the host.
func TestSwappedDirectoriesOfASharedVolume(t *testing.T) {
	needRoot(t)
	outside, volume, src := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, src, "f", "bound")
	write(t, volume, "x/masked", "hidden", "x/deep/", "", "y", "-> "+outside)
	s := specFor(rootfs(t), "true")
	s.Root.Readonly = false
	mount := func(dest, source string) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Source: source, Options: []string{"bind"}})
	}
	mount("/vol", volume)
	mount("/vol/x/sub", src)
	mount("/vol/x/deep/new/dir", src)
	mount("/vol/x/file", src+"/f")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol/x/tmp", Type: "tmpfs", Source: "tmpfs"})
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/vol/x/null", Type: "c", Major: 1, Minor: 3}}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/vol/x/masked")
	s.Process.Cwd = "/vol/x/cwd"
	before := hostMounts(t)
	a := attack(t, s)
	stop := swapping(t, volume+"/x", volume+"/y")
	failed := 0
	for range raceRounds {
		if _, err := a.try(nil); err != nil {
			failed++
		}
	}
	if left := entries(t, outside); len(left) > 0 {
		t.Errorf("made outside the root: %v", left)
	}
	if failed == 0 {
		t.Error("no container met the link: this test tests nothing")
	}
	for range naiveRounds {
		if a.try(followLinks); len(entries(t, outside)) > 0 {
			break
		}
	}
	stop()
	if len(entries(t, outside)) == 0 {
		t.Error("a naive runtime makes nothing there: this test tests nothing")
	}
	if after := hostMounts(t); after != before {
		t.Errorf("mounts are left:\n%s", after)
	}
}

// CVE-2025-31133: a masked path's replacement comes from the host's /dev/null,
// not from the image's, which may be a link or become one at any moment.
func TestMaskIsTheHostsNull(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	write(t, root, "dev/null", "", "dev/link", "-> ../secret", "secret", "secret", "etc/masked", "hidden")
	s := specFor(root, "sh", "-c", "stat -c %t:%T /etc/masked; cat /etc/masked")
	s.Root.Readonly = false
	s.Mounts = s.Mounts[:1] // nothing covers the image's /dev
	s.Linux.MaskedPaths = []string{"/etc/masked"}
	a := attack(t, s)
	stop := swapping(t, filepath.Join(root, "dev/null"), filepath.Join(root, "dev/link"))
	for range raceRounds {
		if out, err := a.try(nil); err == nil && out != "1:3" {
			t.Fatalf("the masked file is %q", out)
		}
	}
	shown := false
	for i := 0; i < naiveRounds && !shown; i++ {
		out, _ := a.try(maskFromImage)
		shown = strings.Contains(out, "secret")
	}
	stop()
	if !shown {
		t.Error("a naive runtime shows no secret: this test tests nothing")
	}
}

// maskFromImage takes /dev/null by its name below the container's root.
func maskFromImage(prog *p.Program, op *p.Op) {
	if op.Sys == p.OpenTree && strings.HasPrefix(op.Step, "mask ") && text(prog, op.Args[1]) == "/dev/null" {
		for i := range prog.Len() {
			if o := prog.Op(i); o.Sys == p.Openat2 && o.Step == op.Step {
				op.Args[0] = o.Args[0]
			}
		}
		op.Args[1] = prog.Str("dev/null")
		op.Args[2] = p.Int(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	}
}
