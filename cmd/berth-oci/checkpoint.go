package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/oci"
)

// defineCheckpoint has the options that checkpoint and restore share.
func defineCheckpoint(fs *flag.FlagSet, o *oci.CheckpointOptions) {
	fs.StringVar(&o.Images, "image-path", "checkpoint", "`directory` of the image files")
	fs.StringVar(&o.Work, "work-path", "", "`directory` of CRIU's log (default: that of the images)")
	fs.BoolVar(&o.TCPEstablished, "tcp-established", false, "allow open TCP connections")
	fs.BoolVar(&o.ExtUnixSockets, "ext-unix-sk", false, "allow unix sockets connected to the outside")
	fs.BoolVar(&o.ShellJob, "shell-job", false, "allow a terminal from outside")
	fs.BoolVar(&o.FileLocks, "file-locks", false, "allow file locks")
	fs.BoolVar(&o.AutoDedup, "auto-dedup", false, "leave out memory that earlier images have")
	fs.StringVar(&o.CgroupMode, "manage-cgroups-mode", "", "`mode` of CRIU's cgroups: soft, full, strict or ignore")
	fs.Func("empty-ns", "`network`: make the namespace and leave it empty", func(v string) error {
		if v != "network" {
			return fmt.Errorf("only network")
		}
		o.EmptyNetwork = true
		return nil
	})
	fs.BoolVar(&o.LazyPages, "lazy-pages", false, "leave memory where it is until it is used (criu lazy-pages)")
}

func runCheckpoint(a *app, fs *flag.FlagSet, args []string) (int, error) {
	o := oci.CheckpointOptions{Program: a.criu}
	defineCheckpoint(fs, &o)
	fs.StringVar(&o.Parent, "parent-path", "", "`directory` of earlier images of the same container, relative to --image-path")
	fs.BoolVar(&o.LeaveRunning, "leave-running", false, "let the container run on")
	fs.BoolVar(&o.PreDump, "pre-dump", false, "save only its memory, and let it run on")
	fs.BoolVar(&o.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are being made")
	fs.BoolVar(&o.LinkRemap, "link-remap", false, "let CRIU link unlinked files back")
	fs.Func("page-server", "send the memory to the page server at `ADDRESS:PORT`", func(v string) error {
		host, port, err := net.SplitHostPort(v)
		if err == nil {
			o.PageServer = host
			o.PagePort, err = strconv.Atoi(port)
		}
		return err
	})
	fs.Func("status-fd", "`descriptor` to which a NUL byte is written when --lazy-pages serves the memory", func(v string) (err error) {
		o.Status, err = writable(v)
		return err
	})
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	c, err := a.store().Open(id)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	spec, err := c.Spec()
	if err != nil {
		return 1, err
	}
	if err := c.Checkpoint(spec, &o); err != nil {
		return 1, err
	}
	if o.LeaveRunning || o.PreDump {
		return 0, nil
	}
	return 0, c.Delete(true)
}

// writable is the descriptor of that number, which the caller has passed.
func writable(number string) (*os.File, error) {
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 0 {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%q is no descriptor", number))
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("descriptor %d is not open for writing", fd))
	}
	return os.NewFile(uintptr(fd), "status"), nil
}

func runRestore(a *app, fs *flag.FlagSet, args []string) (int, error) {
	o := oci.CheckpointOptions{Program: a.criu}
	defineCheckpoint(fs, &o)
	var l launchFlags
	fs.StringVar(&l.bundle, "bundle", ".", "`directory` with config.json and the root filesystem")
	fs.StringVar(&l.bundle, "b", ".", "same as --bundle")
	fs.StringVar(&l.consoleSocket, "console-socket", "", "unix `socket` that receives the terminal's master")
	fs.StringVar(&l.pidFile, "pid-file", "", "`file` to write the process's id to")
	fs.StringVar(&o.LSMProfile, "lsm-profile", "", "AppArmor or SELinux profile: `TYPE:NAME`")
	fs.StringVar(&o.LSMMountContext, "lsm-mount-context", "", "SELinux `context` of the mounts")
	fs.Bool("no-pivot", false, "accepted and without effect: CRIU makes the root")
	fs.Bool("no-subreaper", false, "accepted and without effect: only the container's own process is waited for")
	detach := boolFlag(fs, "detach", "d", false, "do not wait for the container")
	id, code, err := parseID(fs, args, 1)
	if err != nil {
		return code, err
	}
	spec, raw, err := l.bundled()
	if err == errNeedsSocket && !*detach {
		err = nil
	}
	if err != nil {
		return 1, err
	}
	if a.systemd {
		return 1, fmt.Errorf("restore --systemd-cgroup: %w", errdefs.ErrUnsupported)
	}
	caught, err := catchSignals(*detach)
	if err != nil {
		return 1, err
	}
	c, err := a.store().New(id, l.bundle, raw)
	if err != nil {
		return 1, err
	}
	pr, err := c.Restore(spec, oci.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, &o)
	if err != nil {
		return 1, err
	}
	defer pr.Close()
	if err := l.handOver(pr, *detach); err != nil {
		if derr := c.Delete(true); derr != nil {
			err = fmt.Errorf("%w; %w", err, derr)
		}
		return 1, err
	}
	if *detach {
		c.Close()
		return 0, nil
	}
	if err := c.Unlock(); err != nil {
		return 1, err
	}
	code, err = foreground(pr, caught, &notification{})
	if err == nil {
		err = c.DeleteEnded()
	}
	return code, err
}
