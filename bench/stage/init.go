package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RunInit is the first process of the namespaces. It returns the exit status
// of the one that does the work; all others are killed by the kernel when it
// exits.
func RunInit() (int, error) {
	s := Current()
	if err := s.prepare(); err != nil {
		return 1, fmt.Errorf("prepare namespaces: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = s.environ(Inside)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	return collect(cmd.Process.Pid)
}

// collect reaps orphans until the process pid has ended.
func collect(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, os.NewSyscallError("wait4", err)
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case ended == pid:
			return status.ExitStatus(), nil
		}
	}
}

// prepare makes the namespaces fit for the daemons, each of which writes to
// places on the host that no flag moves.
func (s Stage) prepare() error {
	resolver, _ := os.ReadFile("/etc/resolv.conf") // there may be none
	if err := mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for dir, mode := range map[string]string{"/run": "755", "/dev/shm": "1777"} {
		if err := mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode="+mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir("/run/lock", 0o755); err != nil {
		return err
	}
	private := filepath.Join(s.Work, "private")
	if err := os.Mkdir(private, 0o755); err != nil {
		return err
	}
	// An overlay's changes cannot be on another overlay, which the host's root may be.
	if err := mount("tmpfs", private, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"/etc", "/opt"} {
		if err := s.overlay(dir); err != nil {
			return err
		}
	}
	if err := keepResolver(resolver); err != nil {
		return err
	}
	if err := s.ownCgroupRoot(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback link: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return &os.PathError{Op: "mount " + kind, Path: target, Err: err}
	}
	return nil
}

// overlay sends what is written below dir to the working directory.
func (s Stage) overlay(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	upper := filepath.Join(s.Work, "private", dir, "upper")
	scratch := filepath.Join(s.Work, "private", dir, "scratch")
	for _, d := range []string{upper, scratch} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+scratch)
}

// keepResolver replaces a link into the host's /run by the file it led to.
func keepResolver(text []byte) error {
	const path = "/etc/resolv.conf"
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// cgroupRoot is where the hierarchies are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// ownCgroupRoot replaces the tmpfs that holds the hierarchies of cgroup v1 by
// one of our own: crun leaves directories in it for those that are not mounted.
func (s Stage) ownCgroupRoot() error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: cgroupRoot, Err: err}
	}
	if st.Type != unix.TMPFS_MAGIC {
		return nil
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	own := filepath.Join(s.Work, "private", "cgroup")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", own, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return err
	}
	for _, m := range mounts {
		dir := filepath.Join(own, filepath.Base(m.dir))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := mount(m.dir, dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := copyLinks(cgroupRoot, own); err != nil {
		return err
	}
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "umount", Path: cgroupRoot, Err: err}
	}
	return mount(own, cgroupRoot, "", unix.MS_MOVE, "")
}

// copyLinks copies the symbolic links of a directory, such as cpu to
// cpu,cpuacct.
func copyLinks(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := os.Readlink(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
