package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/criu"
)

// Checkpoint and restore are CRIU's work; here it is told what of a container it
// cannot see: what is mounted from outside, where the streams lead, which
// namespaces others have made. The image directory is the same as runc's.

// CheckpointOptions are the choices of checkpoint and restore.
type CheckpointOptions struct {
	Program string // CRIU, "" for criu in PATH
	Images  string // directory of the image files
	Work    string // directory of CRIU's log, "" for Images
	Parent  string // directory of earlier images, relative to Images

	LeaveRunning, PreDump                                     bool
	TCPEstablished, TCPSkipInFlight, ExtUnixSockets, ShellJob bool
	FileLocks, LinkRemap, AutoDedup                           bool
	CgroupMode                                                string // soft, full, strict, ignore or ""
	EmptyNetwork                                              bool   // make a network namespace, and leave it empty
	PageServer                                                string
	PagePort                                                  int
	LSMProfile, LSMMountContext                               string
	// LazyPages leaves memory where it is until it is used: a checkpoint serves it
	// (PageServer), and a restore has it from "criu lazy-pages" with the same Work.
	LazyPages bool
	// Status is told, by a NUL byte, that memory is being served; nil: nobody is.
	Status *os.File
}

// cgroupMode is the number of a mode (enum criu_cg_mode).
func cgroupMode(name string) (int, error) {
	switch name {
	case "":
		return 6, nil
	case "ignore":
		return 0, nil
	case "soft":
		return 3, nil
	case "full":
		return 4, nil
	case "strict":
		return 5, nil
	}
	return 0, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("--manage-cgroups-mode %q: soft, full, strict or ignore", name))
}

// descriptorsFile has the names of the first process's standard streams.
const descriptorsFile = "descriptors.json"

// criuOptions are those that a dump and a restore have in common. The caller
// closes the files.
func (o *CheckpointOptions) criuOptions(spec *specs.Spec, log string) (*criu.Options, error) {
	mode, err := cgroupMode(o.CgroupMode)
	if err != nil {
		return nil, err
	}
	c := &criu.Options{
		Log: log, Parent: o.Parent, CgroupMode: mode, TrackMemory: o.Parent != "", NotifyScripts: true, OrphanPTS: true,
		LeaveRunning: o.LeaveRunning, TCPEstablished: o.TCPEstablished, TCPSkipInFlight: o.TCPSkipInFlight, ExtUnixSockets: o.ExtUnixSockets,
		ShellJob: o.ShellJob, FileLocks: o.FileLocks, LinkRemap: o.LinkRemap, AutoDedup: o.AutoDedup,
		LazyPages: o.LazyPages, PageServer: o.PageServer, PagePort: o.PagePort, LSMProfile: o.LSMProfile, LSMMountContext: o.LSMMountContext,
	}
	if o.EmptyNetwork {
		c.EmptyNS = unix.CLONE_NEWNET
	}
	if file, ok := spec.Annotations[criuConfigAnnotation]; ok {
		c.ConfigFile = file
	}
	if c.Images, err = os.Open(o.Images); err != nil {
		return nil, err
	}
	if o.Work == "" {
		return c, nil
	}
	if err = makeDirectory(o.Work); err == nil {
		c.Work, err = os.Open(o.Work)
	}
	if err != nil {
		c.Images.Close()
		return nil, err
	}
	return c, nil
}

// criuConfigAnnotation names a configuration file for CRIU, as with runc.
const criuConfigAnnotation = "org.criu.config"

func closeOptions(o *criu.Options) {
	o.Images.Close()
	if o.Work != nil {
		o.Work.Close()
	}
}

func makeDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Checkpoint saves the container's processes to files. Unless they are to run on
// they have ended then, and the container can be deleted.
func (c *Container) Checkpoint(spec *specs.Spec, o *CheckpointOptions) error {
	if st := c.Status(); st != specs.StateRunning && st != statePaused {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("container %s is %s, not running", c.ID, st))
	}
	if err := makeDirectory(o.Images); err != nil {
		return err
	}
	log := "dump.log"
	req, err := o.criuOptions(spec, log)
	if err != nil {
		return err
	}
	defer closeOptions(req)
	req.Pid, req.Root = c.Pid, rootPathOf(spec, c.Bundle)
	g, err := c.Group()
	if err != nil {
		return err
	}
	for _, m := range g.Mounts() {
		if m.Name == "" || m.Name == "freezer" {
			req.Freezer = m.Source
		}
	}
	kind := criu.PreDump
	if !o.PreDump {
		kind = criu.Dump
		if err := c.describeDump(spec, o, req); err != nil {
			return err
		}
	}
	worker, err := criu.Start(o.program(), [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, nil, nil)
	if err != nil {
		return err
	}
	_, err = worker.Do(kind, req, func(n *criu.Notification) error {
		if n.Script != "status-ready" || o.Status == nil {
			return nil
		}
		_, err := o.Status.Write([]byte{0})
		return err
	})
	return o.explain(err, log)
}

func (o *CheckpointOptions) program() string {
	if o.Program != "" {
		return o.Program
	}
	return "criu"
}

// explain adds what CRIU's log says of an error.
func (o *CheckpointOptions) explain(err error, log string) error {
	if err == nil || errors.Is(err, errdefs.ErrUnsupported) {
		return err
	}
	dir := o.Images
	if o.Work != "" {
		dir = o.Work
	}
	b, _ := os.ReadFile(filepath.Join(dir, log)) // without it there is less to say
	first := ""
	for line := range strings.Lines(string(b)) {
		if _, text, ok := strings.Cut(line, "Error ("); ok && first == "" {
			first = strings.TrimSpace("(" + text)
		}
	}
	if first != "" {
		err = fmt.Errorf("%w: %s", err, first)
	}
	return errdefs.WithHint(err, "CRIU's log is "+filepath.Join(dir, log))
}

// describeDump says what is from outside.
func (c *Container) describeDump(spec *specs.Spec, o *CheckpointOptions, req *criu.Options) error {
	for _, dest := range c.outerMounts(spec) {
		req.Mounts = append(req.Mounts, criu.Pair{Key: dest, Value: dest})
	}
	for _, dest := range spec.Linux.MaskedPaths {
		st, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", c.Pid, dest))
		if err == nil && !st.IsDir() {
			req.Mounts = append(req.Mounts, criu.Pair{Key: path.Clean(dest), Value: "/dev/null"})
		}
	}
	for _, n := range spec.Linux.Namespaces {
		name := outerNamespace(n)
		if name == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(n.Path, &st); err != nil {
			return &os.PathError{Op: "stat", Path: n.Path, Err: err}
		}
		short := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.PIDNamespace: "pid"}[n.Type]
		req.External = append(req.External, fmt.Sprintf("%s[%d]:%s", short, st.Ino, name))
	}
	streams, err := c.streams()
	if err != nil {
		return err
	}
	for _, name := range streams[:3] {
		if strings.HasPrefix(name, "file[") && !slices.Contains(req.External, name) {
			req.External = append(req.External, name)
		}
	}
	b, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Images, descriptorsFile), b, 0o600)
}

// streams are CRIU's names for the standard streams: of pipes, and of files that
// are on no mount of the container's. Both are given anew at a restore. What
// follows says which of the files are the host's /dev/null.
func (c *Container) streams() ([]string, error) {
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.Pid))
	if err != nil {
		return nil, err
	}
	names := make([]string, 3)
	for fd := range 3 {
		link := fmt.Sprintf("/proc/%d/fd/%d", c.Pid, fd)
		if names[fd], err = os.Readlink(link); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Stat(link, &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: link, Err: err}
		}
		device := st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == 1
		if !device && st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", c.Pid, fd))
		if err != nil {
			return nil, err
		}
		mount := mountOf(string(info))
		if !strings.HasPrefix(string(mounts), fmt.Sprintf("%d ", mount)) && !strings.Contains(string(mounts), fmt.Sprintf("\n%d ", mount)) {
			names[fd] = fmt.Sprintf("file[%x:%x]", mount, st.Ino)
			if st.Rdev == unix.Mkdev(1, 3) && device {
				names = append(names, nullStream+names[fd])
			}
		}
	}
	return names, nil
}

const nullStream = "null:"

// mountOf reads the mount's id from /proc/PID/fdinfo/FD.
func mountOf(info string) (id int) {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, _ = strconv.Atoi(strings.TrimSpace(v)) // the kernel's own
		}
	}
	return id
}

// outerNamespace is CRIU's name for a namespace that is there before and after,
// runc's too; "" for one that is the container's own.
func outerNamespace(n specs.LinuxNamespace) string {
	switch {
	case n.Path == "":
	case n.Type == specs.NetworkNamespace:
		return "extRootNetNS"
	case n.Type == specs.PIDNamespace:
		return "extRootPidNS"
	}
	return ""
}

// outerMounts are the destinations of what is bound from the host: CRIU is told of
// them by name, and what is there to find at a restore.
func (c *Container) outerMounts(spec *specs.Spec) []string {
	var out []string
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		switch {
		case isBind(m):
			out = append(out, path.Clean("/"+m.Destination))
		case isCgroups(m) && !hasNamespace(spec.Linux, specs.CgroupNamespace):
			for name := range c.cgroupSources() {
				out = append(out, path.Join("/", m.Destination, name))
			}
		}
	}
	return out
}

func isCgroups(m *specs.Mount) bool { return m.Type == "cgroup" || m.Type == "cgroup2" }

// cgroupSources are the directories a mount of the cgroups consists of, by their
// name there.
func (c *Container) cgroupSources() map[string]string {
	out := map[string]string{}
	if g, err := c.Group(); err == nil {
		for _, m := range g.Mounts() {
			out[m.Name] = m.Source
		}
	}
	return out
}
