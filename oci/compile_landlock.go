package oci

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// LandlockAnnotation chooses how much of what Docker's AppArmor profile denies
// is denied by Landlock, for hosts without AppArmor: "off", "default" (no mounts)
// or "strict" (nothing of /proc and /sys is written either). Without it a
// container that cannot mount anyway has the default. docs/security.md says what
// each denies and what not.
//
// Landlock only knows what is allowed, and allowing a directory allows all
// below it. So it cannot deny /proc/sys and allow /proc/PID, and on a writable
// root it cannot deny /sys and allow a file that will be made in "/": that is why
// strict is nobody's default.
const LandlockAnnotation = "org.berth-containers.landlock"

// landlockLevel is how much Landlock denies.
type landlockLevel int

const (
	landlockOff landlockLevel = iota
	// landlockMounts denies every change of the mounts: a domain that handles
	// any right on files may not make one. The only right it handles is moving
	// files between directories, which a domain denies unless it is allowed; it is,
	// everywhere.
	landlockMounts
	// landlockStrict denies writing to what is in /proc and /sys too.
	landlockStrict
)

// landlockABI is the version needed: the first one that can allow moving files
// between directories.
const landlockABI = 2

// landlockLevel reads the annotation. drop are the command's capabilities.
func (c *compiler) landlockLevel(pr *specs.Process, drop *capSets) (landlockLevel, error) {
	value, asked := c.spec.Annotations[LandlockAnnotation]
	level := landlockOff
	switch {
	case !asked:
		if c.initPid == 0 && c.cannotMount(pr, drop) && c.in.host.landlockABI() >= landlockABI {
			level = landlockMounts
		}
		return level, nil
	case value == "off":
		return landlockOff, nil
	case value == "default" && c.initPid != 0:
		return landlockOff, nil
	case value == "default":
		level = landlockMounts
	case value == "strict":
		level = landlockStrict
	default:
		return landlockOff, invalid("annotations: %s %q: must be off, default or strict", LandlockAnnotation, value)
	}
	if c.in.host.landlockABI() < landlockABI {
		return landlockOff, errdefs.WithHint(without("annotations: "+LandlockAnnotation, "Landlock in the kernel (Linux 5.19, lsm=landlock,...)"),
			"leave the annotation out, or say off")
	}
	return level, nil
}

// cannotMount tells whether a command has no use for what the default denies:
// it can make no mount, no security module has been asked for, and there is
// nobody to look at but its own descendants and execs.
func (c *compiler) cannotMount(pr *specs.Process, drop *capSets) bool {
	return !drop.Bounding.Has(unix.CAP_SYS_ADMIN) &&
		pr.ApparmorProfile == "" && pr.SelinuxLabel == "" &&
		c.makes(specs.PIDNamespace) && c.makes(specs.MountNamespace) &&
		(pr.NoNewPrivileges || c.newUser || c.in.host.caps.Has(unix.CAP_SYS_ADMIN)) &&
		c.spec.Linux.Seccomp != nil && !letsPass(c.spec.Linux.Seccomp, "mount")
}

// makes tells whether the container has a namespace of its own of that kind.
func (c *compiler) makes(kind specs.LinuxNamespaceType) bool {
	for _, n := range c.spec.Linux.Namespaces {
		if n.Type == kind {
			return n.Path == ""
		}
	}
	return false
}

// letsPass tells whether a seccomp profile lets some use of a system call
// through.
func letsPass(profile *specs.LinuxSeccomp, call string) bool {
	passes := runs(profile.DefaultAction)
	for i := range profile.Syscalls {
		r := &profile.Syscalls[i]
		if !slices.Contains(r.Names, call) {
			continue
		}
		if runs(r.Action) {
			return true
		}
		if len(r.Args) == 0 {
			passes = false
		}
	}
	return passes
}

// runs tells whether a system call may take place after that action.
func runs(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActNotify:
		return true
	}
	return false
}

const landlockStep = "confine by Landlock"

// landlockRules makes the rules, while the process may look at everything.
func (c *compiler) landlockRules(level landlockLevel) (rules p.Arg, err error) {
	const step = landlockStep
	handled := uint64(unix.LANDLOCK_ACCESS_FS_REFER)
	text := "REFER"
	if level == landlockStrict {
		handled |= unix.LANDLOCK_ACCESS_FS_WRITE_FILE
		text += "|WRITE_FILE"
	}
	attr := binary.LittleEndian.AppendUint64(nil, handled)
	rules = c.Slot("rules")
	c.Call(step, p.LandlockNew, c.Data(attr, "{"+text+"}"), p.Int(len(attr)), p.Int(0)).Store(rules)
	c.allow(rules, "/", unix.LANDLOCK_ACCESS_FS_REFER, "REFER")
	if level == landlockStrict {
		names, err := c.outsideKernel()
		if err != nil {
			return rules, err
		}
		for _, name := range names {
			c.allow(rules, name, unix.LANDLOCK_ACCESS_FS_WRITE_FILE, "WRITE_FILE")
		}
		c.allow(rules, "/sys/fs/cgroup", unix.LANDLOCK_ACCESS_FS_WRITE_FILE, "WRITE_FILE")
	}
	return rules, nil
}

// allow adds a rule for what is below path; nothing where there is no such
// path, or where it is a link: what that leads to has a rule of its own, or is to
// have none.
func (c *compiler) allow(rules p.Arg, path string, rights uint64, text string) {
	const step = landlockStep
	// struct landlock_path_beneath_attr: the rights, then the descriptor.
	beneath := c.Data(binary.LittleEndian.AppendUint64(make([]byte, 0, 16), rights)[:16], "{"+text+", "+path+"}")
	fd := c.SlotIn(beneath, 8, "rule.fd")
	done := c.NewLabel()
	c.open(step, atCwd, path, unix.O_PATH, noLinks).Store(fd).
		OnErrno(unix.ENOENT, done).OnErrno(unix.ELOOP, done).OnErrno(unix.ENOTDIR, done)
	c.Call(step, p.LandlockAdd, rules, p.Flag(unix.LANDLOCK_RULE_PATH_BENEATH, "PATH_BENEATH"), beneath, p.Int(0))
	c.Call(step, p.Close, fd)
	c.Mark(done)
}

// outsideKernel are the entries of the container's "/" that are not the
// kernel's: /proc and /sys.
func (c *compiler) outsideKernel() ([]string, error) {
	names, err := c.rootEntries()
	if err != nil {
		return nil, err
	}
	names = append(names, "dev")
	for _, m := range c.spec.Mounts {
		first, _, _ := strings.Cut(relative(m.Destination), "/")
		names = append(names, first)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" || n == "proc" || n == "sys" })
	for i := range names {
		names[i] = "/" + names[i]
	}
	return names, nil
}

// landlockRestrict puts the rules in force.
func (c *compiler) landlockRestrict(rules p.Arg) {
	c.Call(landlockStep, p.LandlockSelf, rules, p.Int(0))
	c.Call(landlockStep, p.Close, rules)
}

// mostRootEntries bounds the rules of a strict layer: the list is the image's.
const mostRootEntries = 1000

// rootEntries names what is in the container's root directory. (Read now, it
// may be another's when the container starts; then something is missing that is
// allowed.)
func (c *compiler) rootEntries() ([]string, error) {
	if c.in.host.list == nil {
		return nil, nil
	}
	dir, path := c.in.rootfs, c.rootPath()
	if c.initPid != 0 {
		dir, path = nil, fmt.Sprintf("/proc/%d/root/", c.initPid)
	}
	names, err := c.in.host.list(dir, path)
	if err == nil && len(names) > mostRootEntries {
		err = invalid("annotations: %s: the root directory has more than %d entries", LandlockAnnotation, mostRootEntries)
	}
	return names, err
}

// listDir names what is in a directory: dir, or the one at path when that is
// nil.
func listDir(dir *os.File, path string) ([]string, error) {
	at := unix.AT_FDCWD
	if dir != nil {
		at, path = int(dir.Fd()), "."
	}
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	names, err := f.Readdirnames(mostRootEntries + 1)
	if err == io.EOF { // it is empty
		err = nil
	}
	return names, err
}
