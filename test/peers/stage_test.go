//go:build peers

// Package peers runs other people's engines with berth-oci in the place of
// their own runtime: Podman, buildah, containerd and Docker, and a caller that
// does what conmon and containerd's shim do. They live in namespaces and
// directories of their own, of which nothing is left (package stage).
package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/bench/stage"
	"github.com/berth-containers/berth/test/busybox"
)

// image is the name of the image all engines are given.
const image = "localhost/busybox:latest"

// place is what the tests have in their namespaces.
type place struct {
	work    string // a directory on a disk
	cgroup  string // below this path, in each hierarchy, containers belong
	runtime string // berth-oci
	archive string // the image
	rootfs  string // its files as a tar
}

func thePlace() place {
	s := stage.Current()
	return place{
		work: s.Work, cgroup: s.Base, runtime: filepath.Join(s.Work, "berth-oci"),
		archive: filepath.Join(s.Work, "busybox.tar"), rootfs: filepath.Join(s.Work, "rootfs.tar"),
	}
}

// TestMain makes the place and runs the tests in it.
func TestMain(m *testing.M) {
	code, err := 0, error(nil)
	switch role := stage.CurrentRole(); {
	case os.Geteuid() != 0:
		code = m.Run() // which skips all
	case role == stage.Init:
		code, err = stage.RunInit()
	case role == stage.Inside:
		if err = furnish(); err == nil {
			code = m.Run()
		}
	default:
		err = goInside()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// goInside runs this program in the place, and removes the place.
func goInside() (err error) {
	dir, err := onDisk()
	if err != nil {
		return err
	}
	s, err := stage.New(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Remove(), nothingLeft()) }()
	if err := provideRuntime(filepath.Join(s.Work, "berth-oci")); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	return s.Run(ctx, os.Args[1:])
}

// onDisk is a directory for the engines' stores. These are overlays, which
// cannot lie on another one.
func onDisk() (string, error) {
	for _, dir := range []string{"/var/tmp", "/var/lib"} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if st.Type != unix.OVERLAYFS_SUPER_MAGIC && st.Type != unix.TMPFS_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("neither /var/tmp nor /var/lib is on a disk")
}

// provideRuntime builds berth-oci, or copies the one that the environment names.
func provideRuntime(path string) error {
	built := os.Getenv("BERTH_OCI")
	command := []string{"make", "-s", "-C", "../..", "build", "BIN=" + filepath.Dir(path), "BINARIES=" + filepath.Base(path)}
	if built != "" {
		command = []string{"cp", built, path}
	}
	cmd := exec.Command(command[0], command[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", command, err, out)
	}
	return nil
}

// nothingLeft looks for cgroups that buildah places at the root.
func nothingLeft() error {
	left, err := filepath.Glob("/sys/fs/cgroup/*/buildah-*")
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("cgroups are left: %v", left)
	}
	return err
}

// furnish prepares the place for the engines.
func furnish() error {
	p := thePlace()
	for _, prepare := range []func() error{p.ownTemp, p.ownState, p.onlyBerth, p.makeImage, trustAll} {
		if err := prepare(); err != nil {
			return fmt.Errorf("prepare for the engines: %w", err)
		}
	}
	return nil
}

// ownTemp: engines leave files in the directory for temporary files.
func (p place) ownTemp() error {
	tmp := filepath.Join(p.work, "tmp")
	if err := os.Mkdir(tmp, 0o1777); err != nil {
		return err
	}
	return errors.Join(os.Chmod(tmp, 0o1777|os.ModeSticky), os.Chmod(p.work, 0o755), os.Setenv("TMPDIR", tmp))
}

// ownState: engines write to places in /var/lib that no option moves.
func (p place) ownState() error {
	if strings.HasPrefix(p.work, "/var/lib/") {
		return nil // of a machine that is thrown away
	}
	own := filepath.Join(p.work, "private", "state")
	for _, d := range []string{"upper", "scratch"} {
		if err := os.MkdirAll(filepath.Join(own, d), 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", "/var/lib", "overlay", 0,
		"lowerdir=/var/lib,upperdir="+own+"/upper,workdir="+own+"/scratch")
}

// onlyBerth makes sure that no engine uses another runtime in silence: they
// find those of the host, but these do nothing.
func (p place) onlyBerth() error {
	none := filepath.Join(p.work, "no-runtime")
	if err := os.WriteFile(none, []byte("#!/bin/sh\necho \"$0 was called, not berth-oci\" >&2\nexit 1\n"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"runc", "crun", "kata-runtime", "runsc", "youki"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		if err := unix.Mount(none, path, "", unix.MS_BIND, ""); err != nil {
			return &os.PathError{Op: "cover", Path: path, Err: err}
		}
	}
	return nil
}

func (p place) makeImage() error {
	rootfs, err := busybox.Rootfs()
	if err != nil {
		return err
	}
	archive, err := busybox.Archive(image, rootfs)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(p.rootfs, rootfs, 0o644), os.WriteFile(p.archive, archive, 0o644))
}

// trustAll lets Podman and buildah take images that are not signed, where the
// host has no policy.
func trustAll() error {
	const path = "/etc/containers/policy.json"
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644)
}
