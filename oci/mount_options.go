package oci

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountOptions is a mount's option list, sorted by who deals with each option.
type mountOptions struct {
	bind      bool
	recursive bool // rbind

	set, clear  uint64 // MOUNT_ATTR_* of this mount
	rset, rclr  uint64 // and of everything below it
	propagation uint64 // MS_SHARED, ... ; 0 = as the container's default
	recursiveP  bool   // propagation of everything below, too

	super []string // flags and key=value options of the filesystem itself
}

// atimeMask covers the mutually exclusive access time settings.
const atimeMask = unix.MOUNT_ATTR__ATIME

// attrOptions are the options kept by the mount, not the filesystem; the
// specification's recursive forms are the same with an r before them.
var attrOptions = map[string]struct{ set, clear uint64 }{
	"ro":            {unix.MOUNT_ATTR_RDONLY, 0},
	"rw":            {0, unix.MOUNT_ATTR_RDONLY},
	"nosuid":        {unix.MOUNT_ATTR_NOSUID, 0},
	"suid":          {0, unix.MOUNT_ATTR_NOSUID},
	"nodev":         {unix.MOUNT_ATTR_NODEV, 0},
	"dev":           {0, unix.MOUNT_ATTR_NODEV},
	"noexec":        {unix.MOUNT_ATTR_NOEXEC, 0},
	"exec":          {0, unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":    {unix.MOUNT_ATTR_NODIRATIME, 0},
	"diratime":      {0, unix.MOUNT_ATTR_NODIRATIME},
	"relatime":      {unix.MOUNT_ATTR_RELATIME, atimeMask},
	"norelatime":    {unix.MOUNT_ATTR_STRICTATIME, atimeMask},
	"noatime":       {unix.MOUNT_ATTR_NOATIME, atimeMask},
	"atime":         {unix.MOUNT_ATTR_RELATIME, atimeMask},
	"strictatime":   {unix.MOUNT_ATTR_STRICTATIME, atimeMask},
	"nostrictatime": {unix.MOUNT_ATTR_RELATIME, atimeMask},
	"nosymfollow":   {unix.MOUNT_ATTR_NOSYMFOLLOW, 0},
	"symfollow":     {0, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = map[string]struct {
	flag uint64
	rec  bool
}{
	"shared": {unix.MS_SHARED, false}, "rshared": {unix.MS_SHARED, true},
	"slave": {unix.MS_SLAVE, false}, "rslave": {unix.MS_SLAVE, true},
	"private": {unix.MS_PRIVATE, false}, "rprivate": {unix.MS_PRIVATE, true},
	"unbindable": {unix.MS_UNBINDABLE, false}, "runbindable": {unix.MS_UNBINDABLE, true},
}

// notDone are options with a meaning of their own that is not implemented.
var notDone = map[string]bool{"idmap": true, "ridmap": true, "tmpcopyup": true, "mand": true, "nomand": true}

// parseMountOptions sorts m's options. What it does not know goes to the
// filesystem, which refuses what it does not know either.
func parseMountOptions(m *specs.Mount) (mountOptions, error) {
	var o mountOptions
	o.bind = m.Type == "bind"
	for _, opt := range m.Options {
		switch {
		case opt == "bind":
			o.bind = true
		case opt == "rbind":
			o.bind, o.recursive = true, true
		case opt == "" || opt == "defaults" || opt == "silent" || opt == "loud":
		case notDone[opt]:
			return o, unsupported("mounts: " + m.Destination + ": option " + opt)
		case !o.attr(opt) && !o.propagate(opt):
			if strings.ContainsRune(opt, 0) {
				return o, invalid("mounts: %s: option with a NUL character", m.Destination)
			}
			o.super = append(o.super, opt)
		}
	}
	return o, nil
}

func (o *mountOptions) attr(opt string) bool {
	if a, ok := attrOptions[opt]; ok {
		o.set, o.clear = o.set&^a.clear|a.set, o.clear&^a.set|a.clear
		return true
	}
	if a, ok := attrOptions[strings.TrimPrefix(opt, "r")]; ok && opt[0] == 'r' {
		o.rset, o.rclr = o.rset&^a.clear|a.set, o.rclr&^a.set|a.clear
		return true
	}
	return false
}

func (o *mountOptions) propagate(opt string) bool {
	p, ok := propagations[opt]
	if ok {
		o.propagation, o.recursiveP = p.flag, p.rec
	}
	return ok
}

func isBind(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

// mountAttr is the kernel's struct mount_attr (mount_setattr(2)).
func mountAttr(set, clr, propagation uint64) []byte {
	b := make([]byte, 32)
	for i, v := range []uint64{set, clr, propagation} {
		for j := range 8 {
			b[8*i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

var attrNames = []struct {
	bit  uint64
	name string
}{
	{unix.MOUNT_ATTR_RDONLY, "ro"}, {unix.MOUNT_ATTR_NOSUID, "nosuid"}, {unix.MOUNT_ATTR_NODEV, "nodev"},
	{unix.MOUNT_ATTR_NOEXEC, "noexec"}, {unix.MOUNT_ATTR_NOATIME, "noatime"}, {unix.MOUNT_ATTR_STRICTATIME, "strictatime"},
	{unix.MOUNT_ATTR_NODIRATIME, "nodiratime"}, {unix.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"},
}

func attrText(v uint64) string {
	var names []string
	for _, a := range attrNames {
		if v&a.bit != 0 {
			names = append(names, a.name)
		}
	}
	if names == nil {
		return "0"
	}
	return strings.Join(names, "|")
}
