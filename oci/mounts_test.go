package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// TestEveryMountOption: each option of the specification's table has its effect
// on a tmpfs, a bind mount, or both; "-" where it does not apply.
func TestEveryMountOption(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	src := t.TempDir()
	// Mounts of the test's own: those of the machine have flags of their own.
	if err := errors.Join(unix.Mount("src", src, "tmpfs", 0, ""), unix.Mount("", src, "", unix.MS_PRIVATE, ""), os.Mkdir(src+"/sub", 0o755),
		unix.Mount("sub", src+"/sub", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(src, unix.MNT_DETACH)
	const def = "rw,relatime"
	const sub = "rw,nosuid,nodev,noexec,relatime"
	for _, c := range []struct{ option, tmpfs, bind, below string }{
		{"async", def, def, sub}, {"atime", def, def, sub}, {"defaults", def, def, sub}, {"dev", def, def, sub},
		{"diratime", def, def, sub}, {"dirsync", def + " dirsync", "-", ""}, {"exec", def, def, sub}, {"iversion", def, def, sub},
		{"lazytime", def + " lazytime", "-", ""}, {"loud", def, def, sub}, {"mand", def, def, sub},
		{"noatime", "rw,noatime", "rw,noatime", sub}, {"nodev", "rw,nodev,relatime", "rw,nodev,relatime", sub},
		{"nodiratime", "rw,nodiratime,relatime", "rw,nodiratime,relatime", sub}, {"noexec", "rw,noexec,relatime", "rw,noexec,relatime", sub},
		{"noiversion", def, def, sub}, {"nolazytime", def, def, sub}, {"nomand", def, def, sub}, {"norelatime", "rw", "rw", sub},
		{"nostrictatime", def, def, sub}, {"nosuid", "rw,nosuid,relatime", "rw,nosuid,relatime", sub},
		{"nosymfollow", "rw,relatime,nosymfollow", "rw,relatime,nosymfollow", sub}, {"private", def, def, sub},
		{"ratime", "-", def, sub}, {"rdev", "-", def, "rw,nosuid,noexec,relatime"}, {"rdiratime", "-", def, sub},
		{"relatime", def, def, sub}, {"rexec", "-", def, "rw,nosuid,nodev,relatime"},
		{"rnoatime", "-", "rw,noatime", "rw,nosuid,nodev,noexec,noatime"}, {"rnodiratime", "-", "rw,nodiratime,relatime", "rw,nosuid,nodev,noexec,nodiratime,relatime"},
		{"rnoexec", "-", "rw,noexec,relatime", sub}, {"rnodev", "-", "rw,nodev,relatime", sub}, {"rnorelatime", "-", "rw", "rw,nosuid,nodev,noexec"},
		{"rnostrictatime", "-", def, sub}, {"rnosuid", "-", "rw,nosuid,relatime", sub},
		{"rnosymfollow", "-", "rw,relatime,nosymfollow", sub + ",nosymfollow"}, {"ro", "ro,relatime", "ro,relatime", sub},
		{"rprivate", def, def, sub}, {"rrelatime", "-", def, sub}, {"rro", "-", "ro,relatime", "ro,nosuid,nodev,noexec,relatime"},
		{"rrw", "-", def, sub}, {"rshared", def + " shared", def + " shared", sub + " shared"}, {"rslave", def, def, sub},
		{"rstrictatime", "-", "rw", "rw,nosuid,nodev,noexec"}, {"rsuid", "-", def, "rw,nodev,noexec,relatime"},
		{"rsymfollow", "-", def, sub}, {"runbindable", def + " unbindable", def + " unbindable", sub + " unbindable"}, {"rw", def, def, sub},
		{"shared", def + " shared", def + " shared", sub}, {"silent", def, def, sub}, {"slave", def, def, sub},
		{"strictatime", "rw", "rw", sub}, {"suid", def, def, sub}, {"symfollow", def, def, sub}, {"sync", def + " sync", "-", ""},
		{"unbindable", def + " unbindable", def + " unbindable", sub},
	} {
		t.Run(c.option, func(t *testing.T) {
			s := specFor(root, "cat", "/proc/self/mountinfo")
			s.Root.Readonly = false
			if c.tmpfs != "-" {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{c.option}})
			}
			if c.bind != "-" {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/b", Source: src, Options: []string{"rbind", c.option}})
			}
			table := mountTable(mustRun(t, s))
			for at, want := range map[string]string{"/t": c.tmpfs, "/b": c.bind, "/b/sub": c.below} {
				if want != "-" && want != "" && table[at] != want {
					t.Errorf("%s: %q, want %q", at, table[at], want)
				}
			}
		})
	}
}

// mountTable reads a mountinfo: the options of each mount, its propagation and
// those of its filesystem that all filesystems have.
func mountTable(mountinfo string) map[string]string {
	table := map[string]string{}
	for _, line := range strings.Split(mountinfo, "\n") {
		own, fs, _ := strings.Cut(line, " - ")
		f := strings.Fields(own)
		if len(f) < 6 {
			continue
		}
		text := f[5]
		for _, tag := range f[6:] {
			kind, _, _ := strings.Cut(tag, ":")
			if kind == "shared" || kind == "unbindable" {
				text += " " + kind
			}
		}
		for _, o := range strings.Split(fs[strings.LastIndexByte(fs, ' ')+1:], ",") {
			if o == "sync" || o == "dirsync" || o == "lazytime" {
				text += " " + o
			}
		}
		table[f[4]] = text
	}
	return table
}

func TestMountForms(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	src := t.TempDir()
	if err := errors.Join(os.WriteFile(src+"/f", []byte("one"), 0o644), os.WriteFile(src+"/g", []byte("two"), 0o644),
		os.Mkdir(src+"/upper", 0o755), os.Mkdir(src+"/work", 0o755)); err != nil {
		t.Fatal(err)
	}
	lower, long := t.TempDir(), t.TempDir()+"/"+strings.Repeat("l", 200)
	if err := errors.Join(os.WriteFile(lower+"/f", []byte("one"), 0o644), os.MkdirAll(long, 0o755), os.Mkdir(src+"/empty", 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, script, want string
		mounts             []specs.Mount
	}{
		{"options in one string", "grep ' /x ' /proc/self/mountinfo | cut -d' ' -f6; stat -c %a,%u,%g /x", "rw,nosuid,relatime\n750,3,4", []specs.Mount{
			{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid,mode=750,uid=3", "gid=4"}}}},
		{"the later of two covers", "cat /etc/conf", "two", []specs.Mount{
			{Destination: "/etc/conf", Source: src + "/f", Options: []string{"bind"}},
			{Destination: "/etc/conf", Source: src + "/g", Options: []string{"bind"}}}},
		{"relative destination and source", "cat /etc/rel", "one", []specs.Mount{
			{Destination: "etc/rel", Source: "f", Options: []string{"bind"}}}},
		{"file over a missing file in a missing directory", "cat /a/b/c", "one", []specs.Mount{
			{Destination: "/a/b/c", Source: src + "/f", Options: []string{"bind,ro"}}}},
		{"overlay", "echo new >/o/n; cat /o/f; ls /o", "onef\nn", []specs.Mount{
			{Destination: "/o", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + lower + ":" + root + "/tmp", "upperdir=" + root + "/upper,workdir=" + root + "/work"}}}},
		{"overlay with a long list", "cat /o/f", "one", []specs.Mount{
			{Destination: "/o", Type: "overlay", Source: "overlay", Options: []string{"ro", "lowerdir=" + long + ":" + src + "/empty:" + lower}}}},
		{"remount", "grep -E ' /x ' /proc/self/mountinfo | cut -d' ' -f6; df -k /x | tail -1 | tr -s ' ' | cut -d' ' -f2", "ro,nosuid,relatime\n64", []specs.Mount{
			{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=32k"}},
			{Destination: "/x", Type: "tmpfs", Options: []string{"remount", "ro", "nosuid", "size=64k"}}}},
		{"read-only with mount points in it", "cat /x/y/z; touch /x/w 2>/dev/null || echo ro", "onero", []specs.Mount{
			{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}},
			{Destination: "/x/y/z", Source: src + "/f", Options: []string{"bind"}}}},
		{"proc of the host", "[ -e /proc/" + fmt.Sprint(os.Getpid()) + " ] && echo seen", "seen", []specs.Mount{
			{Destination: "/proc", Source: "/proc", Options: []string{"rbind"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := errors.Join(os.MkdirAll(root+"/upper", 0o755), os.MkdirAll(root+"/work", 0o755)); err != nil {
				t.Fatal(err)
			}
			s := specFor(root, "sh", "-c", c.script)
			s.Root.Readonly = false
			for i := range s.Mounts {
				if c.mounts[0].Destination == "/proc" && s.Mounts[i].Destination == "/proc" {
					s.Mounts[i] = c.mounts[0]
				}
			}
			if c.mounts[0].Destination == "/proc" {
				s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
			} else {
				s.Mounts = append(s.Mounts, c.mounts...)
			}
			if c.mounts[0].Source == "f" {
				s.Mounts[len(s.Mounts)-1].Source = src + "/f"
			}
			if got := mustRun(t, s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestMountOverTheRoot: a mount for "/" is the root from there on.
func TestMountOverTheRoot(t *testing.T) {
	needRoot(t)
	image, other := t.TempDir(), rootfs(t)
	s := specFor(other, "sh", "-c", "ls /; grep -c ' / / ' /proc/self/mountinfo; touch /x 2>/dev/null || echo ro")
	s.Root.Path = image
	s.Mounts = append([]specs.Mount{{Destination: "/", Source: other, Options: []string{"rbind"}}}, s.Mounts...)
	if got := mustRun(t, s); !strings.HasPrefix(got, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n") || !strings.HasSuffix(got, "ro") {
		t.Errorf("got %q", got)
	}
}

// TestTmpCopyUp: the tmpfs begins with what the image has, links and owners
// included, and the image keeps its own.
func TestTmpCopyUp(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	dir := root + "/etc/up"
	if err := errors.Join(os.MkdirAll(dir+"/sub", 0o750), os.WriteFile(dir+"/sub/f", []byte("content"), 0o640), os.Symlink("/etc/shadow", dir+"/link"),
		os.Chown(dir+"/sub/f", 7, 8), os.Chmod(dir, 0o711), unix.Mkfifo(dir+"/fifo", 0o600), os.Chmod(dir+"/sub/f", os.ModeSetuid|0o755)); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "sh", "-c", "cat /etc/up/sub/f; echo; cd /etc/up; stat -c %a:%u:%g:%F sub/f sub link fifo .; readlink link; echo x >new; stat -f -c %T .")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/up", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "nosuid", "size=1m"}})
	want := "content\n4755:7:8:regular file\n750:0:0:directory\n777:0:0:symbolic link\n600:0:0:fifo\n711:0:0:directory\n/etc/shadow\ntmpfs"
	if got := mustRun(t, s); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := os.Stat(dir + "/new"); err == nil {
		t.Error("the image has been written")
	}
}

// TestTmpCopyUpStaysInTheImage: a link of the image in the place to copy leads
// nowhere else.
func TestTmpCopyUpStaysInTheImage(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if err := os.Symlink("/../../../../../../../etc", root+"/etc/up"); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "sh", "-c", "ls /etc/up/")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/up/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	s.Root.Readonly = false
	if got := mustRun(t, s); got != "up\nx" {
		t.Errorf("got %q", got)
	}
}

// TestPropagation: what is mounted below an rshared bind in a container with a
// shared root shows on the host, what the host mounts below an rslave one shows in the container,
// and neither below a private one.
func TestPropagation(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	for _, rootProp := range []string{"", "rshared", "rslave", "rprivate"} {
		for _, c := range []struct {
			option    string
			out, into bool
		}{{"rshared", true, true}, {"rslave", false, true}, {"rprivate", false, false}} {
			if rootProp == "rprivate" && c.option != "rprivate" || rootProp == "rslave" && c.option == "rshared" {
				continue // the root's, set last and recursively, is what holds then
			}
			t.Run(rootProp+" "+c.option, func(t *testing.T) {
				src := t.TempDir()
				if err := unix.Mount("shared", src, "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(src, unix.MNT_DETACH)
				if err := errors.Join(unix.Mount("", src, "", unix.MS_SHARED, ""), os.Mkdir(src+"/in", 0o755), os.Mkdir(src+"/out", 0o755)); err != nil {
					t.Fatal(err)
				}
				s := startSleeper(t, func(s *specs.Spec) {
					s.Root.Path = root
					s.Linux.RootfsPropagation = rootProp
					s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Source: src, Options: []string{"rbind", c.option}})
					s.Root.Readonly = false
					caps := []string{"CAP_SYS_ADMIN"}
					s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
				})
				if out, code, err := s.exec(s.process("mount", "-t", "tmpfs", "from-inside", "/mnt/out")); err != nil || code != 0 {
					t.Fatal(out, code, err)
				}
				if err := unix.Mount("from-outside", src+"/in", "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(src+"/in", unix.MNT_DETACH)
				// Not by mountinfo, which may lack a line while others mount.
				var top, out unix.Stat_t
				if err := errors.Join(unix.Stat(src, &top), unix.Stat(src+"/out", &out)); err != nil {
					t.Fatal(err)
				}
				if got := top.Dev != out.Dev; got != (c.out && rootProp == "rshared") {
					t.Errorf("the container's mount shows on the host: %t", got)
				}
				inside, _, err := s.exec(s.process("stat", "-c", "%d", "/mnt", "/mnt/in"))
				if err != nil {
					t.Fatal(err)
				}
				devices := strings.Fields(inside)
				if got := len(devices) == 2 && devices[0] != devices[1]; got != c.into {
					t.Errorf("the host's mount shows in the container: %t", got)
				}
			})
		}
	}
}

func TestRootfsPropagation(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	for name, want := range map[string]string{
		"shared": "shared", "rshared": "shared", "slave": "", "rslave": "", "private": "", "rprivate": "", "unbindable": "unbindable", "runbindable": "unbindable", "": "",
	} {
		s := specFor(root, "cat", "/proc/self/mountinfo")
		s.Linux.RootfsPropagation = name
		table := mountTable(mustRun(t, s))
		if _, got, _ := strings.Cut(table["/"], " "); got != want {
			t.Errorf("%s: / is %q", name, table["/"])
		}
		below := ""
		if strings.HasPrefix(name, "r") {
			below = want
		}
		if _, got, _ := strings.Cut(table["/dev"], " "); got != below {
			t.Errorf("%s: /dev is %q", name, table["/dev"])
		}
	}
}

// TestIDMappedMounts: files of the host's user 5 belong to who the mapping says,
// and what the container's root makes there belongs to 5 on the host.
func TestIDMappedMounts(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	user := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	}
	one := func(from, to uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: from, HostID: to, Size: 1}}
	}
	for _, c := range []struct {
		name, file, below string
		made              uint32 // owner on the host of what the container makes; 0: it is not asked to
		set               func(*specs.Spec)
		mount             specs.Mount
	}{
		{"own mappings", "1000:1001", "5:6", 0, nil, specs.Mount{UIDMappings: one(5, 1000), GIDMappings: one(6, 1001), Options: []string{"rbind", "idmap"}}},
		{"recursive", "1000:1001", "1000:1001", 0, nil, specs.Mount{UIDMappings: one(5, 1000), GIDMappings: one(6, 1001), Options: []string{"rbind", "ridmap"}}},
		{"without the option", "0:0", "5:6", 5, nil, specs.Mount{UIDMappings: one(5, 0), GIDMappings: one(6, 0), Options: []string{"rbind"}}},
		{"of the user namespace", "5:6", "5:6", 0, user, specs.Mount{Options: []string{"rbind", "ridmap"}}},
		{"own, in a user namespace", "0:0", "65534:65534", 5, user, specs.Mount{UIDMappings: one(5, 100000), GIDMappings: one(6, 100000), Options: []string{"rbind", "idmap"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := t.TempDir()
			if err := errors.Join(os.Mkdir(src+"/sub", 0o755), unix.Mount("sub", src+"/sub", "tmpfs", 0, "mode=755"), os.WriteFile(src+"/f", nil, 0o644),
				os.WriteFile(src+"/sub/f", nil, 0o644), os.Chown(src+"/f", 5, 6), os.Chown(src+"/sub/f", 5, 6), os.Chown(src, 5, 6)); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(src+"/sub", unix.MNT_DETACH)
			script := "stat -c %u:%g /data/f /data/sub/f"
			if c.made != 0 {
				script += "; touch /data/made"
			}
			s := specFor(root, "sh", "-c", script)
			if c.set != nil {
				c.set(s)
			}
			c.mount.Destination, c.mount.Source = "/data", src
			s.Root.Readonly = false
			s.Mounts = append(s.Mounts, c.mount)
			if got, want := mustRun(t, s), c.file+"\n"+c.below; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if c.made == 0 {
				return
			}
			var st unix.Stat_t
			if err := unix.Stat(src+"/made", &st); err != nil || st.Uid != c.made {
				t.Errorf("made file: owner %d, %v", st.Uid, err)
			}
		})
	}
}

// TestIDMappedFilesystems: what is mounted for the container alone may have its ids
// mapped too, where the kernel maps them in such a filesystem.
func TestIDMappedFilesystems(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	write(t, root, "copied/file", "content")
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000), os.Chown(root+"/copied/file", 5, 6)); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=5:6", disk, "4M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	ids := func(from, to uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: from, HostID: to, Size: 1}}
	}
	for _, c := range []struct {
		name, file, want string
		user             bool
		mount            specs.Mount
	}{
		{"tmpfs", "", "1000:1001", false, specs.Mount{Type: "tmpfs", Options: []string{"uid=5", "gid=6"}, UIDMappings: ids(5, 1000), GIDMappings: ids(6, 1001)}},
		{"read-only", "", "1000:1001", false, specs.Mount{Type: "tmpfs", Options: []string{"uid=5", "gid=6", "ro"}, UIDMappings: ids(5, 1000), GIDMappings: ids(6, 1001)}},
		{"of the user namespace", "", "5:6", true, specs.Mount{Type: "tmpfs", Options: []string{"uid=5", "gid=6", "idmap"}}},
		{"copied up", "/file", "1000:1001", false, specs.Mount{Destination: "/copied", Type: "tmpfs", Options: []string{"tmpcopyup"}, UIDMappings: ids(5, 1000), GIDMappings: ids(6, 1001)}},
		{"ext4", "", "1000:1001", false, specs.Mount{Type: "ext4", UIDMappings: ids(5, 1000), GIDMappings: ids(6, 1001)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mount.Type == "ext4" {
				c.mount.Source = attachLoop(t, disk)
			}
			if c.mount.Destination == "" {
				c.mount.Destination = "/data"
			}
			s := specFor(root, "stat", "-c", "%u:%g", c.mount.Destination+c.file)
			s.Root.Readonly = false
			if c.user {
				userNamespaced(t, s, root)
			}
			s.Mounts = append(s.Mounts, c.mount)
			if got := mustRun(t, s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	s := specFor(root, "true")
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "ramfs", UIDMappings: ids(5, 1000), GIDMappings: ids(6, 1001)})
	if _, _, err := run(t, s); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "mounts: /data: map ids of ramfs: invalid argument: the kernel maps none in ramfs") {
		t.Errorf("ramfs: %v", err)
	}
	s.Mounts[len(s.Mounts)-1] = specs.Mount{Destination: "/data", Source: "/proc", Options: []string{"bind"}, UIDMappings: ids(5, 1000), GIDMappings: ids(6, 1001)}
	if _, _, err := run(t, s); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "the kernel maps none in proc") {
		t.Errorf("bound proc: %v", err)
	}
}

// attachLoop makes a block device of a file.
func attachLoop(t *testing.T, file string) string {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("no loop devices: %v", err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v: %s", err, out)
		}
	})
	return device
}

// TestBindFromOutOfReach: a user namespace's root may be given what it could not
// reach by path, as with runc.
func TestBindFromOutOfReach(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	src := t.TempDir() // below a directory of mode 0700
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000), os.MkdirAll(src+"/a/b", 0o700),
		os.WriteFile(src+"/a/b/f", []byte("content"), 0o644), os.Chmod(src+"/a/b", 0o755)); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "cat", "/data/f")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Root.Readonly = false
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: src + "/a/b", Options: []string{"rbind", "ro"}})
	if got := mustRun(t, s); got != "content" {
		t.Errorf("got %q", got)
	}
}

// TestBindByDescriptor: a source resolved before, which the caller holds open,
// is bound whatever its path leads to by now.
func TestBindByDescriptor(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	if err := errors.Join(os.Mkdir(src+"/good", 0o755), os.WriteFile(src+"/good/f", []byte("held"), 0o644)); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(src+"/good", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := errors.Join(os.Rename(src+"/good", src+"/moved"), os.Symlink("/etc", src+"/good")); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"/proc/self/fd/%d", "/dev/fd/%d"} {
		s := specFor(rootfs(t), "sh", "-c", "cat /data/f; ls /data")
		s.Root.Readonly = false
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: fmt.Sprintf(format, held.Fd()), Options: []string{"rbind"}})
		if got := mustRun(t, s); got != "heldf" {
			t.Errorf("%s: got %q", format, got)
		}
	}
}

// TestUserNamespaceKeepsLockedFlags: a mount's flags that are locked by the user
// namespace are no obstacle to a read-only bind.
func TestUserNamespaceKeepsLockedFlags(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	src := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chmod(filepath.Dir(src), 0o755), os.Chown(root, 100000, 100000),
		unix.Mount("locked", src, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(src, unix.MNT_DETACH)
	for _, sysAdmin := range []bool{true, false} {
		s := specFor(root, "sh", "-c", "grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6")
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		s.Root.Readonly = false
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: src, Options: []string{"rbind", "ro"}})
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		in := &compileInput{spec: s, bundle: "/"}
		if in.host, err = thisHost(false); err != nil {
			t.Fatal(err)
		}
		in.host.sysAdmin = sysAdmin
		plan, err := compile(in)
		if err != nil {
			t.Fatal(err)
		}
		pr, err := runner(t).launch(plan, Stdio{Out: w, Err: w}, nil, launchHooks{})
		w.Close()
		if err != nil {
			t.Fatalf("sysAdmin %t: %v", sysAdmin, err)
		}
		b := make([]byte, 200)
		n, _ := r.Read(b)
		r.Close()
		if _, err := pr.Wait(); err != nil {
			t.Error(err)
		}
		pr.Close()
		if got, want := strings.TrimSpace(string(b[:n])), "ro,nosuid,nodev,noexec,relatime"; got != want {
			t.Errorf("sysAdmin %t: got %q, want %q", sysAdmin, got, want)
		}
	}
}

// TestKernelFilesystemsOfUserNamespaces: what a user namespace may not mount
// without a namespace of its own is the host's.
func TestKernelFilesystemsOfUserNamespaces(t *testing.T) {
	needRoot(t)
	root := rootfs(t)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	s := specFor(root, "sh", "-c", "ls /sys/class/net; stat -f -c %T /sys /dev/mqueue; touch /sys/x 2>/dev/null || echo ro")
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace}, {Type: specs.UserNamespace}}
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	if _, err := os.Stat("/dev/mqueue"); err != nil { // not even the host has one
		s.Process.Args[2] = strings.ReplaceAll(s.Process.Args[2], "/dev/mqueue", "")
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
	}
	host, err := exec.Command("ls", "/sys/class/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := mustRun(t, s); !strings.HasPrefix(got, string(host)+"sysfs\n") || !strings.HasSuffix(got, "\nro") {
		t.Errorf("got %q", got)
	}
}

func TestWrongMountsAreRefused(t *testing.T) {
	one := []specs.LinuxIDMapping{{Size: 1}}
	for _, c := range []struct {
		want  string
		class error
		mount specs.Mount
	}{
		{"idmap: needs uidMappings and gidMappings", errdefs.ErrInvalid, specs.Mount{Destination: "/x", Source: "/", Options: []string{"bind", "idmap"}}},
		{"one needs the other", errdefs.ErrInvalid, specs.Mount{Destination: "/x", Source: "/", Options: []string{"bind"}, UIDMappings: one}},
		{"idmap of mqueue", errdefs.ErrUnsupported, specs.Mount{Destination: "/x", Type: "mqueue", UIDMappings: one, GIDMappings: one}},
		{"idmap of what is mounted already", errdefs.ErrUnsupported, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"remount"}, UIDMappings: one, GIDMappings: one}},
		{"idmap of overlay with options of such length", errdefs.ErrUnsupported, specs.Mount{Destination: "/x", Type: "overlay", UIDMappings: one, GIDMappings: one,
			Options: []string{"lowerdir=" + strings.Repeat("/a", 400)}}},
		{"idmap: needs uidMappings", errdefs.ErrInvalid, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"idmap"}}},
		{"idmap: needs uidMappings", errdefs.ErrInvalid, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"tmpcopyup", "idmap"}}},
		{"tmpcopyup: is for tmpfs", errdefs.ErrInvalid, specs.Mount{Destination: "/x", Type: "ramfs", Options: []string{"tmpcopyup"}}},
		{"must not be inside /proc", errdefs.ErrInvalid, specs.Mount{Destination: "/proc/self", Type: "tmpfs"}},
		{"only proc may be mounted there", errdefs.ErrInvalid, specs.Mount{Destination: "/proc", Type: "tmpfs"}},
		{"the kernel takes less than a page", errdefs.ErrInvalid, specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir=" + strings.Repeat("/a", 4000)}}},
	} {
		s := specFor("/nonexistent", "true")
		s.Mounts = append(s.Mounts, c.mount)
		if _, err := Compile(s, "/"); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	s := specFor("/nonexistent", "true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc", Source: "/tmp", Options: []string{"rbind"}})
	host, err := thisHost(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compile(&compileInput{spec: s, bundle: "/", host: host}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a directory over /proc: %v", err)
	}
}
