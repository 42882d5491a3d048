package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/criu"
)

// Restore makes the container's processes again from files. Like [Container.Launch],
// it leaves nothing of the container on error.
func (c *Container) Restore(spec *specs.Spec, stdio Stdio, o *CheckpointOptions) (*Process, error) {
	pr, err := c.restore(spec, stdio, o)
	if err == nil {
		return pr, nil
	}
	if !c.made {
		c.Cgroup = cgroup.State{}
	}
	if derr := c.dismantle(false); derr != nil {
		err = errors.Join(err, derr)
	}
	return nil, err
}

func (c *Container) restore(spec *specs.Spec, stdio Stdio, o *CheckpointOptions) (*Process, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		set  bool
		name string
	}{{!emptyHooks(spec.Hooks), "hooks"}, {spec.Linux.IntelRdt != nil, "linux.intelRdt"}, {len(spec.Linux.NetDevices) > 0, "linux.netDevices"}} {
		if f.set {
			return nil, fmt.Errorf("restore: %w", unsupported(f.name))
		}
	}
	if err := c.warnOfLandlock(spec); err != nil {
		return nil, err
	}
	g, _, err := c.planCgroup(spec, false)
	if err != nil {
		return nil, err
	}
	g.SetOwner(c.ownerName())
	c.group, c.Cgroup = g, g.State()
	if err := c.save(); err != nil {
		return nil, err
	}
	if err := g.Make(Resources(spec)); err != nil {
		return nil, err
	}
	c.made = true
	log := "restore.log"
	defer os.Remove(filepath.Join(c.path, restoreRoot))
	var pr *Process
	err = inOwnMounts(func() error {
		// The directories are opened here: CRIU mounts something in them.
		req, err := o.criuOptions(spec, log)
		if err != nil {
			return err
		}
		defer closeOptions(req)
		req.EvasiveDevs, req.Sibling = true, true
		extra, err := c.describeRestore(spec, o, req)
		defer closeAll(extra)
		if err != nil {
			return err
		}
		if err := c.bindRoot(spec, req); err != nil {
			return err
		}
		pr, err = c.runRestore(stdio, o, req, extra)
		return err
	})
	if err != nil {
		return nil, o.explain(err, log)
	}
	return pr, nil
}

// warnOfLandlock says so when the container would have a Landlock layer had it not
// been restored: CRIU does not know them.
func (c *Container) warnOfLandlock(spec *specs.Spec) error {
	host, err := thisHost(false)
	if err != nil || spec.Process == nil {
		return err
	}
	comp := newCompiler(&compileInput{spec: spec, host: host})
	comp.newUser = hasNamespace(spec.Linux, specs.UserNamespace)
	sets, err := comp.capabilities(spec.Process)
	if err != nil {
		return err
	}
	level, err := comp.landlockLevel(spec.Process, sets)
	if err != nil && !errors.Is(err, errdefs.ErrUnsupported) { // made on another kernel
		return err
	}
	if err != nil || level != landlockOff {
		c.warn(errors.New("restore: the container runs without the Landlock layer it was created with, which CRIU does not know"))
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// inOwnMounts runs act on a thread with a mount namespace of its own, so that
// what it mounts is nowhere else and gone with it. The thread ends with act.
func inOwnMounts(act func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread's namespaces count as the process's, and it cannot
			// end alone: another one is found while this is held.
			defer runtime.UnlockOSThread()
			result <- inOwnMounts(act)
			return
		}
		// Never unlocked: the runtime ends the thread.
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
		}
		if err != nil {
			result <- fmt.Errorf("make a mount namespace: %w", err)
			return
		}
		result <- act()
	}()
	return <-result
}

// bindRoot mounts the root filesystem where nothing lies on top of it, as CRIU
// wants its root to be, with a mount point for every mount.
func (c *Container) bindRoot(spec *specs.Spec, req *criu.Options) error {
	root := filepath.Join(c.path, restoreRoot)
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	from := rootPathOf(spec, c.Bundle)
	if err := unix.Mount(from, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root %s: %w", from, err)
	}
	req.Root = root
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if isCgroups(m) || coveredByTmpfs(spec, m) {
			continue // CRIU makes what is in a filesystem it restores
		}
		if err := makeMountPoint(dir, m, c.Bundle); err != nil {
			return fmt.Errorf("make mount point %s: %w", m.Destination, err)
		}
	}
	return nil
}

// restoreRoot is where the root filesystem is bound, in the container's directory.
const restoreRoot = "criu-root"

func coveredByTmpfs(spec *specs.Spec, m *specs.Mount) bool {
	for i := range spec.Mounts {
		t := &spec.Mounts[i]
		if t.Type == "tmpfs" && strings.HasPrefix(relative(m.Destination)+"/", relative(t.Destination)+"/") && relative(t.Destination) != relative(m.Destination) {
			return true
		}
	}
	return false
}

// makeMountPoint makes what is missing of a mount's destination below the root,
// each element by its name in a directory that is held.
func makeMountPoint(root *os.File, m *specs.Mount, bundle string) error {
	rel := relative(m.Destination)
	file := false
	if isBind(m) {
		source := m.Source
		if !filepath.IsAbs(source) {
			source = filepath.Join(bundle, source)
		}
		st, err := os.Stat(source)
		if err != nil {
			return err
		}
		file = !st.IsDir()
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: inRoot}
	at, err := unix.Dup(int(root.Fd()))
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	elements := strings.Split(rel, "/")
	for i, name := range elements {
		prefix := path.Join(elements[:i+1]...)
		fd, err := unix.Openat2(int(root.Fd()), prefix, &how)
		if err == unix.ENOENT {
			if file && i == len(elements)-1 {
				err = unix.Mknodat(at, name, unix.S_IFREG|0o644, 0)
			} else {
				err = unix.Mkdirat(at, name, 0o755)
			}
			if err == nil || err == unix.EEXIST {
				fd, err = unix.Openat2(int(root.Fd()), prefix, &how)
			}
		}
		if err != nil {
			return err
		}
		unix.Close(at)
		at = fd
	}
	return nil
}

// describeRestore says where what is from outside is now. The files are CRIU's
// descriptors from 4 on.
func (c *Container) describeRestore(spec *specs.Spec, o *CheckpointOptions, req *criu.Options) (extra []*os.File, err error) {
	sources := c.cgroupSources()
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		switch {
		case isBind(m):
			source := m.Source
			if !filepath.IsAbs(source) {
				source = filepath.Join(c.Bundle, source)
			}
			req.Mounts = append(req.Mounts, criu.Pair{Key: path.Clean("/" + m.Destination), Value: source})
		case isCgroups(m) && !hasNamespace(spec.Linux, specs.CgroupNamespace):
			for name, source := range sources {
				req.Mounts = append(req.Mounts, criu.Pair{Key: path.Join("/", m.Destination, name), Value: source})
			}
		}
	}
	if len(spec.Linux.MaskedPaths) > 0 {
		req.Mounts = append(req.Mounts, criu.Pair{Key: "/dev/null", Value: "/dev/null"})
	}
	req.InheritFDs = map[string]int{}
	for _, n := range spec.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		if name := outerNamespace(n); name != "" {
			f, err := os.Open(n.Path)
			if err != nil {
				return extra, err
			}
			req.InheritFDs[name] = 4 + len(extra)
			extra = append(extra, f)
			continue
		}
		if n.Type == specs.CgroupNamespace {
			return extra, fmt.Errorf("restore: linux.namespaces: a joined cgroup namespace: %w", errdefs.ErrUnsupported)
		}
		short := map[specs.LinuxNamespaceType]string{specs.MountNamespace: "mnt"}[n.Type]
		if short == "" {
			short = string(n.Type)
		}
		req.JoinNS = append(req.JoinNS, criu.Pair{Key: short, Value: n.Path})
	}
	return c.inheritStreams(o, req, extra)
}

// inheritStreams gives ours to a process in place of what it had from outside.
func (c *Container) inheritStreams(o *CheckpointOptions, req *criu.Options, extra []*os.File) ([]*os.File, error) {
	b, err := os.ReadFile(filepath.Join(o.Images, descriptorsFile))
	if err != nil {
		return extra, errdefs.WithHint(err, "--image-path must hold a whole checkpoint: a pre-dump cannot be restored")
	}
	var streams []string
	if err := json.Unmarshal(b, &streams); err != nil {
		return extra, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: %w", descriptorsFile, err))
	}
	for fd, name := range streams {
		null, isNull := strings.CutPrefix(name, nullStream)
		switch {
		case isNull:
			f, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
			if err != nil {
				return extra, err
			}
			req.InheritFDs[null] = 4 + len(extra)
			extra = append(extra, f)
		case fd < 3 && (strings.HasPrefix(name, "pipe:") || strings.HasPrefix(name, "file[")):
			req.InheritFDs[name] = fd
		}
	}
	return extra, nil
}

// runRestore has CRIU restore the processes in the container's cgroup.
func (c *Container) runRestore(stdio Stdio, o *CheckpointOptions, req *criu.Options, extra []*os.File) (*Process, error) {
	attr := &syscall.SysProcAttr{}
	if dir := c.group.CloneFD(); dir != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	worker, err := criu.Start(o.program(), [3]*os.File{stdio.In, stdio.Out, stdio.Err}, extra, attr)
	if err != nil {
		return nil, err
	}
	for _, tasks := range c.group.JoinPaths() {
		if err := os.WriteFile(tasks, []byte(strconv.Itoa(worker.Pid)), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("join cgroup: %w", err), worker.Stop())
		}
	}
	if req.CgroupRoot, err = cgroupsOf(worker.Pid); err != nil {
		return nil, errors.Join(err, worker.Stop())
	}
	pr := &Process{plan: &Plan{}}
	pid, err := worker.Do(criu.Restore, req, func(n *criu.Notification) error {
		if n.Script == "orphan-pts-master" && len(n.Files) > 0 && pr.Console == nil {
			pr.Console, n.Files = n.Files[0], n.Files[1:]
		}
		closeAll(n.Files)
		return nil
	})
	if err != nil {
		pr.Close()
		return nil, err
	}
	pr.Pid = pid
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	pr.Pidfd = os.NewFile(uintptr(fd), "pidfd")
	if err := c.adopt(pr); err != nil {
		pr.abandon()
		pr.Close()
		return nil, err
	}
	return pr, nil
}

// cgroupsOf are the paths of a process's cgroups by their controllers
// (cgroups(7), "/proc files").
func cgroupsOf(pid int) ([]criu.Pair, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	var roots []criu.Pair
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, controller := range strings.Split(f[1], ",") {
			roots = append(roots, criu.Pair{Key: controller, Value: f[2]})
		}
	}
	return roots, nil
}
