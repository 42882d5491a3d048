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
	remount   bool
	copyUp    bool // tmpcopyup

	set, clear  uint64 // MOUNT_ATTR_* of this mount
	rset, rclr  uint64 // and of everything below it
	propagation uint64 // MS_SHARED, ... ; 0 = as the container's default
	recursiveP  bool   // propagation of everything below, too

	idmap          bool // ids are mapped, by the mount's mappings or the container's
	recursiveIdmap bool
	iversion       bool

	super []string // flags and key=value options of the filesystem itself
}

// attrOption is an option kept by the mount, not the filesystem; the
// specification's recursive forms are the same with an r before them.
func attrOption(name string) (set, clear uint64, ok bool) {
	const atimeMask = unix.MOUNT_ATTR__ATIME // mutually exclusive access time settings
	switch name {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0, true
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0, true
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0, true
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0, true
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0, true
	case "diratime":
		return 0, unix.MOUNT_ATTR_NODIRATIME, true
	case "nosymfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, 0, true
	case "symfollow":
		return 0, unix.MOUNT_ATTR_NOSYMFOLLOW, true
	case "relatime", "atime", "nostrictatime": // the kernel's default is relatime
		return unix.MOUNT_ATTR_RELATIME, atimeMask, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, atimeMask, true
	case "strictatime", "norelatime":
		return unix.MOUNT_ATTR_STRICTATIME, atimeMask, true
	}
	return 0, 0, false
}

// propagation reads a propagation's name: shared, rshared, ...
func propagation(name string) (flag uint64, recursive, ok bool) {
	switch name {
	case "shared", "rshared":
		flag = unix.MS_SHARED
	case "slave", "rslave":
		flag = unix.MS_SLAVE
	case "private", "rprivate":
		flag = unix.MS_PRIVATE
	case "unbindable", "runbindable":
		flag = unix.MS_UNBINDABLE
	default:
		return 0, false, false
	}
	return flag, name[0] == 'r', true
}

// parseMountOptions sorts m's options. What it does not know goes to the
// filesystem, which refuses what it does not know either.
func parseMountOptions(m *specs.Mount) (mountOptions, error) {
	var o mountOptions
	o.bind = m.Type == "bind"
	o.idmap = len(m.UIDMappings)+len(m.GIDMappings) > 0
	for _, list := range m.Options {
		if strings.ContainsRune(list, 0) {
			return o, invalid("mounts: %s: option with a NUL character", m.Destination)
		}
		for _, opt := range splitOptions(list) {
			o.add(opt)
		}
	}
	return o, nil
}

// add sorts one option.
func (o *mountOptions) add(opt string) {
	switch opt {
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.recursive = true, true
	case "remount":
		o.remount = true
	case "tmpcopyup":
		o.copyUp = true
	case "idmap":
		o.idmap = true
	case "ridmap":
		o.idmap, o.recursiveIdmap = true, true
	case "iversion":
		o.iversion = true
	case "noiversion":
		o.iversion = false
	case "", "defaults", "silent", "loud":
	default:
		// sync, dirsync, lazytime, mand and their opposites among them: the
		// kernel takes these for every filesystem (vfs_parse_sb_flag).
		if !o.attr(opt) && !o.propagate(opt) {
			o.super = append(o.super, opt)
		}
	}
}

// splitOptions splits a list at its commas, as mount(8) does; a comma after a
// backslash or between quotes is part of a value.
func splitOptions(list string) []string {
	if !strings.Contains(list, ",") {
		return []string{list}
	}
	var out []string
	quoted, start := false, 0
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\':
			i++
		case list[i] == '"':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			out = append(out, list[start:i])
			start = i + 1
		}
	}
	return append(out, list[start:])
}

func (o *mountOptions) attr(opt string) bool {
	if set, clr, ok := attrOption(opt); ok {
		o.set, o.clear = o.set&^clr|set, o.clear&^set|clr
		return true
	}
	rest, recursive := strings.CutPrefix(opt, "r")
	if set, clr, ok := attrOption(rest); ok && recursive {
		o.rset, o.rclr = o.rset&^clr|set, o.rclr&^set|clr
		return true
	}
	return false
}

func (o *mountOptions) propagate(opt string) bool {
	flag, recursive, ok := propagation(opt)
	if ok {
		o.propagation, o.recursiveP = flag, recursive
	}
	return ok
}

func isBind(m *specs.Mount) bool {
	if m.Type == "bind" {
		return true
	}
	for _, list := range m.Options {
		if !strings.Contains(list, "bind") {
			continue
		}
		for _, o := range splitOptions(list) {
			if o == "bind" || o == "rbind" {
				return true
			}
		}
	}
	return false
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
