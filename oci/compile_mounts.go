package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	p "github.com/berth-containers/berth/kernel/program"
)

// mount compiles one entry of the specification's mounts.
func (c *compiler) mount(m *specs.Mount) error {
	o, err := parseMountOptions(m)
	if err != nil {
		return err
	}
	switch {
	case o.idmap && !c.in.host.sysAdmin:
		return errdefs.WithHint(unsupported("mounts: "+m.Destination+": idmap without CAP_SYS_ADMIN on the host"),
			"leave idmap out and give the files owners that the container's user namespace maps, or run as root")
	case o.idmap && (o.remount || !o.bind && (ofNamespace(m.Type) || o.needsOldCall(m))):
		return unsupported("mounts: " + m.Destination + ": idmap of " + whatIsMapped(m, &o))
	case o.remount:
		return c.remount(m, &o)
	case o.bind:
		return c.bind(m, &o)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		c.enterCgroup()
		return c.mountCgroups(m, &o)
	case o.copyUp:
		return c.copyUp(m, &o)
	case o.needsOldCall(m):
		return c.mountByOldCall(m, &o)
	case o.idmap:
		return c.mountMapped(m, &o)
	}
	c.mountFilesystem(m, &o)
	return nil
}

// ofNamespace tells of the filesystems that show a namespace of the process which
// mounts them, or the kernel's own objects. The kernel maps ids in none of them.
func ofNamespace(kind string) bool {
	switch kind {
	case "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue":
		return true
	}
	return false
}

func whatIsMapped(m *specs.Mount, o *mountOptions) string {
	switch {
	case o.remount:
		return "what is mounted already"
	case o.needsOldCall(m):
		return m.Type + " with options of such length, or iversion"
	}
	return m.Type
}

// resolveFor says how a mount point is looked up: the filesystems that runtimes, tools and security modules trust
// by their path: their mount point must be a real directory.
func resolveFor(m *specs.Mount) uint64 {
	if ofNamespace(m.Type) {
		return noLinks
	}
	if d := relative(m.Destination); d == "dev" || d == "proc" || d == "sys" || strings.HasPrefix(d, "dev/") {
		return noLinks
	}
	return inRoot
}

// place attaches a detached mount at its destination.
func (c *compiler) place(step string, m *specs.Mount, mount p.Arg, kind nodeKind) {
	if relative(m.Destination) == "" {
		c.replaceRoot(step, mount)
		return
	}
	c.attach(step, mount, c.target(step, m.Destination, kind, resolveFor(m)))
}

// replaceRoot puts a mount for "/" where the root was: it is the root from there
// on. (Were it on top of the root, the two could not be left together.)
func (c *compiler) replaceRoot(step string, mount p.Arg) {
	c.Call(step, p.Umount2, c.Str(c.rootAt), p.Flag(unix.MNT_DETACH, "MNT_DETACH"))
	c.root = mount
	c.attachAt(step)
}

// bindSource is what is bound, on the host.
func (c *compiler) bindSource(m *specs.Mount) string {
	if filepath.IsAbs(m.Source) {
		return m.Source
	}
	return filepath.Join(c.in.bundle, m.Source)
}

func (c *compiler) bind(m *specs.Mount, o *mountOptions) error {
	source := c.bindSource(m)
	if lost := meaningless(o.super); len(lost) > 0 { // mount(2) takes no filesystem options for these either
		c.warn("mounts: %s: %s mean nothing for a bind mount", m.Destination, strings.Join(lost, ","))
	}
	kind, err := c.kindOf(m, source)
	if err != nil {
		return err
	}
	step := fmt.Sprintf("bind %s on %s", source, m.Destination)
	var tree p.Arg
	if c.bindsFromOutside(source, o) {
		give, err := c.treeFor(m, source, o)
		if err != nil {
			return err
		}
		tree = c.inherit(inherited{name: "tree of " + source, make: give})
	} else {
		tree = c.Slot("tree")
		c.clone(step, atCwd, source, o.recursive, 0, tree)
	}
	c.applyAttrs(step, tree, o)
	c.place(step, m, tree, kind)
	return nil
}

// kindOf looks what a bind mount's source is.
func (c *compiler) kindOf(m *specs.Mount, source string) (nodeKind, error) {
	if c.in.host.stat == nil {
		return directory, nil
	}
	isDir, err := c.in.host.stat(source)
	if err != nil {
		return directory, errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("bind mount for %s: %w", m.Destination, err)),
			"the source of a bind mount must exist on the host")
	}
	if relative(m.Destination) == "proc" && !c.in.host.isProc(source) {
		return directory, invalid("mounts: /proc: only proc may be mounted there, and %s is none", source)
	}
	if !isDir {
		return regularFile, nil
	}
	return directory, nil
}

// meaningless are the options a bind mount cannot heed; those that say what is
// so anyway are left out.
func meaningless(super []string) (lost []string) {
	for _, o := range super {
		switch o {
		case "async", "nolazytime", "nomand":
		default:
			lost = append(lost, o)
		}
	}
	return lost
}

// bindsFromOutside tells whether the parent makes the copy of the source's
// mount: where it has to be connected with the host's, as a shared mount of a
// container with a shared root is (in the container's mount namespace it would
// only follow; and it would come before all others in the kernel's list of
// mounts otherwise, out of the specification's order), where ids are mapped (which takes a right on
// the filesystem), where the source may be out of reach for a user namespace's
// root, and where the path means the caller (/proc/self/fd/3).
func (c *compiler) bindsFromOutside(source string, o *mountOptions) bool {
	return c.in.host.sysAdmin &&
		(o.idmap || o.propagation == unix.MS_SHARED && c.sharesRoot() || c.newUser || strings.HasPrefix(source, "/proc/") || strings.HasPrefix(source, "/dev/fd/"))
}

// sharesRoot tells whether the container's root is shared.
func (c *compiler) sharesRoot() bool {
	flag, _, _ := propagation(c.spec.Linux.RootfsPropagation)
	return flag == unix.MS_SHARED
}

// applyAttrs gives a bind mount its own and its recursive attributes.
func (c *compiler) applyAttrs(step string, tree p.Arg, o *mountOptions) {
	if o.rset|o.rclr != 0 {
		c.setAttr(step, tree, true, o.rset, o.rclr, 0)
	}
	if o.set|o.clear != 0 {
		c.setAttr(step, tree, false, o.set, o.clear, 0)
	}
	if o.propagation != 0 {
		c.setAttr(step, tree, o.recursiveP, 0, 0, o.propagation)
	} else if !c.rootShared() {
		// As runc and crun: what is bound does not stay connected to the host
		// unless asked for.
		c.setAttr(step, tree, true, 0, 0, unix.MS_PRIVATE)
	}
}

func (c *compiler) rootShared() bool {
	switch c.spec.Linux.RootfsPropagation {
	case "shared", "rshared", "slave", "rslave":
		return true
	}
	return false
}

// remount changes the mount that is at the destination: its attributes, and for
// one that is no bind mount the options of its filesystem.
func (c *compiler) remount(m *specs.Mount, o *mountOptions) error {
	step := "remount " + m.Destination
	t := c.root
	if rel := relative(m.Destination); rel != "" {
		t = c.Slot("mount")
		c.open(step, c.root, rel, unix.O_PATH, resolveFor(m)).Store(t)
	}
	if len(o.super) > 0 && !o.bind {
		fs := c.Slot("fs")
		c.Call(step, p.Fspick, t, c.Str(""), p.Flag(unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH, "CLOEXEC|EMPTY_PATH")).Store(fs)
		for _, opt := range o.super {
			c.fsconfig(step, fs, opt)
		}
		c.Call(step, p.Fsconfig, fs, p.Flag(unix.FSCONFIG_CMD_RECONFIGURE, "CMD_RECONFIGURE"), p.Null, p.Null, p.Int(0))
		c.Call(step, p.Close, fs)
	}
	late := o.set & unix.MOUNT_ATTR_RDONLY
	if set := o.set &^ late; set|o.clear != 0 {
		c.setAttr(step, t, false, set, o.clear, 0)
	}
	if o.rset|o.rclr != 0 {
		c.setAttr(step, t, true, o.rset, o.rclr, 0)
	}
	if late != 0 {
		c.late = append(c.late, lateAttr{"make " + m.Destination + " read-only", t, late})
	}
	if o.propagation != 0 {
		c.setAttr(step, t, o.recursiveP, 0, 0, o.propagation)
	}
	return nil
}

// mountFilesystem mounts a filesystem by type.
func (c *compiler) mountFilesystem(m *specs.Mount, o *mountOptions) {
	step := fmt.Sprintf("mount %s on %s", m.Type, m.Destination)
	fs := c.Slot("mount")
	f := &filesystem{step: step, kind: m.Type, source: m.Source, options: o.super, attrs: (o.set | o.rset) &^ unix.MOUNT_ATTR_RDONLY}
	if o.readOnly() && ownReadOnly(m) {
		f.options = append(f.options[:len(f.options):len(f.options)], "ro")
	}
	host := c.hostsInstead(m.Type)
	if host == "" {
		c.newFilesystem(f, fs)
	} else {
		made := c.NewLabel()
		f.refused = c.NewLabel()
		c.newFilesystem(f, fs).Then(made)
		c.Mark(f.refused)
		c.clone("bind "+host+", as "+m.Type+" may not be mounted", atCwd, host, true, 0, fs)
		c.setAttr(step, fs, true, o.set|o.rset, 0, unix.MS_PRIVATE)
		c.Mark(made)
	}
	c.placeFilesystem(step, m, o, fs)
}

// placeFilesystem attaches a new filesystem. It becomes read-only when the
// mount points in it are made.
func (c *compiler) placeFilesystem(step string, m *specs.Mount, o *mountOptions, fs p.Arg) {
	if m.Type == "mqueue" {
		c.labelQueue(step, fs)
	}
	c.place(step, m, fs, directory)
	if o.readOnly() {
		c.late = append(c.late, lateAttr{"make " + m.Destination + " read-only", fs, unix.MOUNT_ATTR_RDONLY})
	}
	if o.propagation != 0 {
		c.setAttr(step, fs, o.recursiveP, 0, 0, o.propagation)
	}
}

func (o *mountOptions) readOnly() bool { return (o.set|o.rset)&unix.MOUNT_ATTR_RDONLY != 0 }

// ownReadOnly tells whether "ro" is for the filesystem as well: for one that
// is on something, which may not be writable. Those of the kernel's memory
// have no source but a word, and may be shared with the host.
func ownReadOnly(m *specs.Mount) bool {
	return m.Type == "overlay" || strings.HasPrefix(m.Type, "fuse") || strings.Contains(m.Source, "/")
}

// hostsInstead is where the host has a filesystem that a user namespace may
// mount only with another namespace of its own: without it, there is nothing
// in it that is not the host's anyway. "" when there is no such need.
func (c *compiler) hostsInstead(kind string) string {
	if !c.newUser {
		return ""
	}
	switch l := c.spec.Linux; {
	case kind == "sysfs" && !makesNamespace(l, specs.NetworkNamespace):
		return "/sys"
	case kind == "mqueue" && !makesNamespace(l, specs.IPCNamespace):
		return "/dev/mqueue"
	case kind == "proc" && !makesNamespace(l, specs.PIDNamespace):
		return "/proc"
	}
	return ""
}

// filesystem describes a new one.
type filesystem struct {
	step, kind, source string
	options            []string
	attrs              uint64
	// refused is where to go on when the kernel does not allow it (EPERM); 0:
	// that is an error.
	refused p.Label
}

// newFilesystem makes a filesystem as a detached mount. It returns its last
// call.
func (c *compiler) newFilesystem(f *filesystem, into p.Arg) *p.Op {
	ctx := c.Slot("fs")
	may := func(op *p.Op) *p.Op {
		if f.refused != 0 {
			op.OnErrno(unix.EPERM, f.refused)
		}
		return op
	}
	may(c.Call(f.step, p.Fsopen, c.Str(f.kind), p.Flag(unix.FSOPEN_CLOEXEC, "CLOEXEC")).Store(ctx))
	if f.source != "" {
		c.fsconfig(f.step, ctx, "source="+f.source)
	}
	if f.kind == "proc" && c.pidNS != (p.Arg{}) {
		c.Call(f.step+" with pidns", p.Fsconfig, ctx, p.Flag(unix.FSCONFIG_SET_FD, "SET_FD"), c.Str("pidns"), p.Null, c.pidNS)
	}
	for _, o := range f.options {
		c.fsconfig(f.step, ctx, o)
	}
	if label := c.mountLabel(f.kind); label != "" && !hasContext(f.options) {
		c.fsconfig(f.step, ctx, "context="+label)
	}
	may(c.Call(f.step, p.Fsconfig, ctx, p.Flag(unix.FSCONFIG_CMD_CREATE, "CMD_CREATE"), p.Null, p.Null, p.Int(0)))
	may(c.Call(f.step, p.Fsmount, ctx, p.Flag(unix.FSMOUNT_CLOEXEC, "CLOEXEC"), p.Flag(f.attrs, attrText(f.attrs))).Store(into))
	return c.Call(f.step, p.Close, ctx)
}

func (c *compiler) fsconfig(step string, ctx p.Arg, option string) {
	step += " with " + option
	if key, value, ok := strings.Cut(option, "="); ok {
		c.Call(step, p.Fsconfig, ctx, p.Flag(unix.FSCONFIG_SET_STRING, "SET_STRING"), c.Str(key), c.Str(unquoted(value)), p.Int(0))
		return
	}
	c.Call(step, p.Fsconfig, ctx, p.Flag(unix.FSCONFIG_SET_FLAG, "SET_FLAG"), c.Str(option), p.Null, p.Int(0))
}

// unquoted takes the quotes from a value that had them for its commas:
// context="a:b:c:s0,c1".
func unquoted(value string) string {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		return value[1 : len(value)-1]
	}
	return value
}

// maxFsconfig is the longest value fsconfig(2) takes (strndup_user in the
// kernel), its NUL not counted.
const maxFsconfig = 255

// needsOldCall tells whether mount(2) is needed: for values too long for
// fsconfig, and for the one flag it has no name for.
func (o *mountOptions) needsOldCall(m *specs.Mount) bool {
	long := len(m.Source) > maxFsconfig
	for _, opt := range o.super {
		_, value, _ := strings.Cut(opt, "=")
		long = long || len(value) > maxFsconfig
	}
	return long || o.iversion
}

// mountByOldCall mounts with mount(2), from inside the directory it is for.
func (c *compiler) mountByOldCall(m *specs.Mount, o *mountOptions) error {
	step := fmt.Sprintf("mount %s on %s", m.Type, m.Destination)
	rel := relative(m.Destination)
	if rel == "" {
		return unsupported("mounts: /: " + m.Type + " with options of such length, or iversion")
	}
	flags, text, rest := oldFlags(o)
	if label := c.mountLabel(m.Type); label != "" && !hasContext(rest) {
		rest = append(rest, `context="`+label+`"`)
	}
	data := strings.Join(rest, ",")
	if len(data) >= os.Getpagesize() {
		return invalid("mounts: %s: options of %d bytes: the kernel takes less than a page", m.Destination, len(data))
	}
	c.Call(step, p.Fchdir, c.target(step, m.Destination, directory, resolveFor(m)))
	c.Call(step, p.Mount, c.Str(m.Source), c.Str("."), c.Str(m.Type), p.Flag(flags, text), c.Str(data))
	if o.propagation != 0 || o.set&unix.MOUNT_ATTR_NOSYMFOLLOW != 0 {
		t := c.Slot("mount")
		c.open(step, c.root, rel, unix.O_PATH|unix.O_DIRECTORY, resolveFor(m)).Store(t)
		c.setAttr(step, t, o.recursiveP, o.set&unix.MOUNT_ATTR_NOSYMFOLLOW, 0, o.propagation)
	}
	return nil
}

// oldFlags turns attributes and the options of every filesystem into flags of
// mount(2); rest are the filesystem's own.
func oldFlags(o *mountOptions) (flags uint64, text string, rest []string) {
	set := o.set | o.rset
	names := []string{}
	add := func(flag uint64, name string) {
		flags |= flag
		names = append(names, name)
	}
	for _, f := range []struct {
		attr, flag uint64
		name       string
	}{
		{unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY, "MS_RDONLY"}, {unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID, "MS_NOSUID"},
		{unix.MOUNT_ATTR_NODEV, unix.MS_NODEV, "MS_NODEV"}, {unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC, "MS_NOEXEC"},
		{unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME, "MS_NOATIME"}, {unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME, "MS_STRICTATIME"},
		{unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME, "MS_NODIRATIME"},
	} {
		if set&f.attr != 0 {
			add(f.flag, f.name)
		}
	}
	if o.iversion {
		add(unix.MS_I_VERSION, "MS_I_VERSION")
	}
	for _, opt := range o.super {
		switch opt {
		case "sync":
			add(unix.MS_SYNCHRONOUS, "MS_SYNCHRONOUS")
		case "dirsync":
			add(unix.MS_DIRSYNC, "MS_DIRSYNC")
		case "lazytime":
			add(unix.MS_LAZYTIME, "MS_LAZYTIME")
		case "mand":
			add(unix.MS_MANDLOCK, "MS_MANDLOCK")
		case "async", "nolazytime", "nomand":
		default:
			rest = append(rest, opt)
		}
	}
	return flags, strings.Join(names, "|"), rest
}
