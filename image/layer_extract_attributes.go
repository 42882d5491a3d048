package image

import (
	"archive/tar"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// xattrRecord is how the names of extended attributes begin in a tar's records.
const xattrRecord = "SCHILY.xattr."

func permissions(hdr *tar.Header) uint32 { return uint32(hdr.Mode) & 0o7777 }

// setAttributes gives an open file or directory its owner, extended attributes
// and mode: those that are not as they should be already, which the umask, a
// directory's group or a default access list decide. The owner comes first:
// changing it takes capabilities and mode bits away.
func setAttributes(fd int, hdr *tar.Header) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: hdr.Name, Err: err}
	}
	owned := st.Uid == uint32(hdr.Uid) && st.Gid == uint32(hdr.Gid)
	if !owned {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return &os.PathError{Op: "chown", Path: hdr.Name, Err: err}
		}
	}
	some, err := setXattrs(hdr, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	if !owned || some || st.Mode&0o7777 != permissions(hdr) {
		if err := unix.Fchmod(fd, permissions(hdr)); err != nil {
			return &os.PathError{Op: "chmod", Path: hdr.Name, Err: err}
		}
	}
	return nil
}

// setEntryAttributes is setAttributes, and the times, for what is not opened: a
// link or a device. A hard link's file has its attributes already: the kernel
// would take its capabilities away, also for an owner that it has.
func setEntryAttributes(dir int, base string, hdr *tar.Header) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: hdr.Name, Err: err}
	}
	if st.Uid != uint32(hdr.Uid) || st.Gid != uint32(hdr.Gid) {
		if err := unix.Fchownat(dir, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: hdr.Name, Err: err}
		}
	}
	_, err := setXattrs(hdr, func(name string, value []byte) error { return unix.Lsetxattr(procEntry(dir, base), name, value, 0) })
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // a hard link may be one to a symbolic link
		if err := unix.Fchmodat(dir, base, permissions(hdr), 0); err != nil {
			return &os.PathError{Op: "chmod", Path: hdr.Name, Err: err}
		}
	}
	times := entryTimes(hdr)
	if err := unix.UtimesNanoAt(dir, base, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the times of", Path: hdr.Name, Err: err}
	}
	return nil
}

// setXattrs sets what a header has of extended attributes and reports whether it
// has some. What the file system does not know is left out, and notes of users on
// what cannot have any (xattr(7): neither links nor devices).
func setXattrs(hdr *tar.Header, set func(name string, value []byte) error) (some bool, err error) {
	for record, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok {
			continue
		}
		some = true
		err := set(name, []byte(value))
		switch {
		case err == nil, errors.Is(err, unix.ENOTSUP):
		case errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.") && hdr.Typeflag != tar.TypeReg && hdr.Typeflag != tar.TypeDir:
		default:
			return some, &os.PathError{Op: "set attribute " + name + " of", Path: hdr.Name, Err: err}
		}
	}
	return some, nil
}

// entryTimes are an entry's times of access and of change: not before the one of
// change, which most archives bring alone, and the epoch for what no kernel knows.
func entryTimes(hdr *tar.Header) [2]unix.Timespec {
	access := hdr.AccessTime
	if access.Before(hdr.ModTime) {
		access = hdr.ModTime
	}
	return [2]unix.Timespec{kernelTime(access), kernelTime(hdr.ModTime)}
}

var lastTime = time.Unix(0, 1<<63-1)

func kernelTime(t time.Time) unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.After(lastTime) {
		return unix.Timespec{}
	}
	return unix.NsecToTimespec(t.UnixNano())
}
