package fault

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// call is the number of the system call a thread has entered.
func call(tid int) (uint64, error) {
	var regs unix.PtraceRegs
	err := unix.PtraceGetRegs(tid, &regs)
	return regs.Orig_rax, err
}

// object is what the call a thread has entered is about: the path it names, or
// what its descriptor leads to.
func object(tid int) string {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return ""
	}
	for _, address := range []uint64{regs.Rsi, regs.Rdi} {
		path := make([]byte, 256)
		n, _ := unix.PtracePeekData(tid, uintptr(address), path)
		path, _, found := bytes.Cut(path[:n], []byte{0})
		if found && len(path) > 0 && !bytes.ContainsFunc(path, func(r rune) bool { return r < ' ' || r > '~' }) {
			return string(path)
		}
	}
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, regs.Rdi))
	return link
}

// never tells of a call that does not fail, or not where it could be reported: the
// Go runtime's look at the standard streams and what it hears of a fork, and reading
// memory.
func never(tid int, name string) bool {
	var regs unix.PtraceRegs
	if name == "fcntl" && unix.PtraceGetRegs(tid, &regs) == nil {
		return regs.Rdi <= 2
	}
	return name == "pread64" && strings.HasPrefix(object(tid), "/memfd:") || name == "read" && strings.HasPrefix(object(tid), "pipe:")
}

// skip lets the kernel not make the call a thread has entered.
func skip(tid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	regs.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(tid, &regs)
}

// answer is what a skipped call returns.
func answer(tid int, errno syscall.Errno) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	regs.Rax = uint64(-int64(errno))
	return unix.PtraceSetRegs(tid, &regs)
}

// faulty are the calls berth-oci makes itself and that may fail. Those of the Go
// runtime are left alone, and waiting for a child.
var faulty = map[uint64]string{
	unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_PREAD64: "pread64", unix.SYS_PWRITE64: "pwrite64",
	unix.SYS_OPENAT: "openat", unix.SYS_OPENAT2: "openat2", unix.SYS_CLOSE: "close", unix.SYS_FSTAT: "fstat",
	unix.SYS_NEWFSTATAT: "newfstatat", unix.SYS_STATFS: "statfs", unix.SYS_FSTATFS: "fstatfs", unix.SYS_STATX: "statx",
	unix.SYS_ACCESS: "access", unix.SYS_FACCESSAT: "faccessat", unix.SYS_FACCESSAT2: "faccessat2", unix.SYS_READLINKAT: "readlinkat",
	unix.SYS_MKDIR: "mkdir", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_RMDIR: "rmdir", unix.SYS_UNLINK: "unlink", unix.SYS_UNLINKAT: "unlinkat",
	unix.SYS_RENAME: "rename", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_MKNODAT: "mknodat",
	unix.SYS_FLOCK: "flock", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_GETDENTS64: "getdents64", unix.SYS_LSEEK: "lseek",
	unix.SYS_MEMFD_CREATE: "memfd_create", unix.SYS_SOCKETPAIR: "socketpair", unix.SYS_SENDMSG: "sendmsg", unix.SYS_SENDTO: "sendto",
	unix.SYS_RECVMSG: "recvmsg", unix.SYS_RECVFROM: "recvfrom", unix.SYS_PIPE2: "pipe2", unix.SYS_PIDFD_OPEN: "pidfd_open",
	unix.SYS_PIDFD_SEND_SIGNAL: "pidfd_send_signal", unix.SYS_WAITID: "waitid", unix.SYS_POLL: "poll",
	unix.SYS_PPOLL: "ppoll", unix.SYS_DUP3: "dup3", unix.SYS_CAPGET: "capget", unix.SYS_PRCTL: "prctl", unix.SYS_GETCWD: "getcwd",
	unix.SYS_BPF: "bpf", unix.SYS_FCNTL: "fcntl", unix.SYS_IOCTL: "ioctl", unix.SYS_MKNOD: "mknod", unix.SYS_CHMOD: "chmod",
	unix.SYS_OPEN: "open", unix.SYS_STAT: "stat", unix.SYS_LSTAT: "lstat",
}
