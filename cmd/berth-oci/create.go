package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// launchFlags are the options create and run share.
type launchFlags struct {
	bundle, consoleSocket, pidFile, pidfdSocket string
	preserveFDs                                 int
	noPivot, noKeyring                          bool
	trace                                       *oci.Trace    // run --trace
	notify                                      *notification // of run; made by launch
}

func (l *launchFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&l.bundle, "bundle", ".", "`directory` with config.json and the root filesystem")
	fs.StringVar(&l.bundle, "b", ".", "same as --bundle")
	fs.StringVar(&l.consoleSocket, "console-socket", "", "unix `socket` that receives the terminal's master")
	fs.StringVar(&l.pidFile, "pid-file", "", "`file` to write the process's id to")
	fs.StringVar(&l.pidfdSocket, "pidfd-socket", "", "unix `socket` that receives a descriptor of the process")
	fs.IntVar(&l.preserveFDs, "preserve-fds", 0, "pass `N` descriptors to the container, from 3 on, behind those of $LISTEN_FDS")
	fs.BoolVar(&l.noPivot, "no-pivot", false, "change the root only, where the host's root is a ramdisk and cannot be pivoted: less safe")
	fs.BoolVar(&l.noKeyring, "no-new-keyring", false, "leave the caller's session keyring to the container")
}

// bundled reads a bundle's specification.
func (l *launchFlags) bundled() (spec *specs.Spec, raw []byte, err error) {
	if l.bundle, err = filepath.Abs(l.bundle); err != nil {
		return nil, nil, err
	}
	raw, err = oci.ReadSmallFile(filepath.Join(l.bundle, "config.json"))
	if err != nil {
		return nil, nil, errdefs.WithHint(err, "name the bundle's directory with --bundle; berth-oci spec writes a config.json")
	}
	if spec, err = oci.ParseSpec(raw); err != nil {
		return nil, nil, err
	}
	if spec.Process == nil {
		return nil, nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("config.json: process: missing"))
	}
	return spec, raw, l.checkConsole(spec.Process.Terminal, true)
}

func (l *launchFlags) checkConsole(terminal, detached bool) error {
	switch {
	case terminal && detached && l.consoleSocket == "":
		return errNeedsSocket
	case !terminal && l.consoleSocket != "":
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--console-socket: process.terminal is not set"))
	}
	return nil
}

// extraFiles are the descriptors to preserve. The caller's have come through an
// execve: what is closed on one is our own.
func extraFiles(n int) ([]*os.File, error) {
	var files []*os.File
	for fd := 3; fd < 3+n; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--preserve-fds %d: descriptor %d is not open", n, fd))
		}
		files = append(files, os.NewFile(uintptr(fd), "preserved"))
	}
	return files, nil
}

// launch makes the container and its process. The caller closes both.
func (a *app) launch(id string, l *launchFlags, detached bool, spec *specs.Spec, raw []byte, wait bool) (*oci.Container, *oci.Process, error) {
	listen := listenFDs()
	extra, err := extraFiles(l.preserveFDs + listen)
	if err != nil {
		return nil, nil, err
	}
	spec.Process.Env = passListenFDs(spec.Process.Env, listen)
	c, err := a.store().New(id, l.bundle, raw)
	if err != nil {
		return nil, nil, err
	}
	l.trace.Mark("make the container's directory")
	r, err := newRunner()
	if err != nil {
		c.Remove()
		return nil, nil, err
	}
	defer r.Close()
	if err := l.offerNotify(c, spec, wait); err != nil {
		c.Remove()
		return nil, nil, err
	}
	stdio := oci.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	pr, err := c.Launch(r, spec, oci.LaunchOptions{
		Stdio: stdio, ExtraFiles: extra, Wait: wait, NoPivot: l.noPivot, NoKeyring: l.noKeyring, Trace: l.trace, Systemd: a.systemd,
	})
	if err != nil {
		l.notify.close()
		return nil, nil, err
	}
	a.log.warnings(pr.Warnings())
	if err := l.handOver(pr, detached); err != nil {
		pr.Close()
		l.notify.close()
		if derr := c.Delete(true); derr != nil {
			err = fmt.Errorf("%w; %w", err, derr)
		}
		return nil, nil, err
	}
	return c, pr, nil
}

// handOver passes on what others wait for: the terminal, the process and its pid.
func (l *launchFlags) handOver(pr *oci.Process, detached bool) error {
	if l.consoleSocket != "" {
		if err := sendFile(l.consoleSocket, pr.Console); err != nil {
			return err
		}
	}
	if l.pidfdSocket != "" {
		if err := sendFile(l.pidfdSocket, pr.Pidfd); err != nil {
			return err
		}
	}
	return writePidFile(l.pidFile, pr.Pid)
}

// writePidFile writes the pid, atomically: whoever sees the file can read it. It
// follows no link that somebody has put where the new file is made.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := os.OpenFile(tmp, flags, 0o666)
	if errors.Is(err, fs.ErrExist) { // of one that was interrupted
		if err = os.Remove(tmp); err == nil {
			f, err = os.OpenFile(tmp, flags, 0o666)
		}
	}
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

func runCreate(a *app, fs *flag.FlagSet, args []string) (int, error) {
	var l launchFlags
	l.define(fs)
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	spec, raw, err := l.bundled()
	if err != nil {
		return 1, err
	}
	c, pr, err := a.launch(id, &l, true, spec, raw, true)
	if err != nil {
		return 1, err
	}
	c.Close()
	pr.Close()
	return 0, nil
}

func runStart(a *app, fs *flag.FlagSet, args []string) (int, error) {
	return a.onContainer(fs, args, func(c *oci.Container) error {
		n, err := listenNotify(c)
		if err != nil {
			return err
		}
		defer n.close()
		if err := c.Start(); err != nil || n.host == "" {
			return err
		}
		pidfd, err := c.Pidfd()
		if err != nil {
			return nil // it has started, and ended
		}
		defer pidfd.Close()
		if err := c.Unlock(); err != nil {
			return err
		}
		return n.waitReady(pidfd, c.Pid)
	})
}

// onContainer does something to one container named by the only argument.
func (a *app) onContainer(fs *flag.FlagSet, args []string, act func(*oci.Container) error) (int, error) {
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	c, err := a.store().Open(id)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	return 0, act(c)
}
