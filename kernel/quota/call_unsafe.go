package quota

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/quota.h and linux/dqblk_xfs.h; ext4 knows these commands too.
const (
	projectQuota = 2 // PRJQUOTA

	cmdGet   = 'X'<<8 + 3
	cmdSet   = 'X'<<8 + 4
	cmdState = 'X'<<8 + 5
	cmdNext  = 'X'<<8 + 9

	projectAccounting = 1 << 4 // FS_QUOTA_PDQ_ACCT
	projectEnforced   = 1 << 5 // FS_QUOTA_PDQ_ENFD

	fieldSoft = 1 << 2 // FS_DQ_BSOFT
	fieldHard = 1 << 3 // FS_DQ_BHARD

	// blockSize is the unit of limits and of what is used.
	blockSize = 512
)

// From linux/fs.h; the same on all of Go's Linux but mips, ppc and sparc.
const (
	getAttributes  = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes  = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritProject = 0x200      // FS_XFLAG_PROJINHERIT
)

// diskQuota is struct fs_disk_quota.
type diskQuota struct {
	version                              int8
	flags                                int8
	fields                               uint16
	id                                   uint32
	blockHard, blockSoft                 uint64
	inodeHard, inodeSoft                 uint64
	blocks, inodes                       uint64
	_, _                                 int32
	_, _                                 uint16
	_                                    [4]int8
	realtimeHard, realtimeSoft, realtime uint64
	_                                    int32
	_                                    uint16
	_                                    int16
	_                                    [8]byte
}

// dquot is what of it matters here.
type dquot struct {
	id                         uint32
	hard, soft, blocks, inodes int64
}

// attributes is struct fsxattr.
type attributes struct {
	flags, extent, extents, project, copyExtent uint32
	_                                           [8]byte
}

func quotactl(f *os.File, cmd uintptr, id uint32, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), cmd<<8|projectQuota, uintptr(id), uintptr(arg), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return os.NewSyscallError("quotactl_fd", errno)
		}
		return nil
	}
}

// state asks which quotas are kept and enforced: FS_QUOTA_ flags.
func state(f *os.File) (uint16, error) {
	var stat struct { // the beginning of struct fs_quota_stat
		version int8
		flags   uint16
		_       [124]byte
	}
	err := quotactl(f, cmdState, 0, unsafe.Pointer(&stat))
	return stat.flags, err
}

func get(f *os.File, id uint32) (dquot, error)  { return read(f, cmdGet, id) }
func next(f *os.File, id uint32) (dquot, error) { return read(f, cmdNext, id) }

func read(f *os.File, cmd uintptr, id uint32) (dquot, error) {
	var d diskQuota
	err := quotactl(f, cmd, id, unsafe.Pointer(&d))
	return dquot{id: d.id, hard: int64(d.blockHard), soft: int64(d.blockSoft), blocks: int64(d.blocks), inodes: int64(d.inodes)}, err
}

// setLimit sets a project's limit in bytes, rounded up; 0 is none.
func setLimit(f *os.File, id uint32, limit int64) error {
	d := diskQuota{version: 1, flags: projectQuota, fields: fieldHard | fieldSoft, id: id, blockHard: uint64(roundUp(limit) / blockSize)}
	return quotactl(f, cmdSet, id, unsafe.Pointer(&d))
}

func project(f *os.File) (uint32, error) {
	var a attributes
	err := ioctl(f, getAttributes, &a)
	return a.project, err
}

// setProject sets a file's project, and with inherit that what is made in it
// gets the same.
func setProject(f *os.File, id uint32, inherit bool) error {
	var a attributes
	if err := ioctl(f, getAttributes, &a); err != nil {
		return err
	}
	a.project = id
	if a.flags &^= inheritProject; inherit {
		a.flags |= inheritProject
	}
	return ioctl(f, setAttributes, &a)
}

func ioctl(f *os.File, request uintptr, a *attributes) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a))); errno != 0 {
		return &os.PathError{Op: "ioctl", Path: f.Name(), Err: errno}
	}
	return nil
}
