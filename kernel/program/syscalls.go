package program

import "golang.org/x/sys/unix"

// Sys is a system call: its number on this architecture and its name.
type Sys struct {
	Nr   uint32
	Name string
}

// The system calls programs are made of.
var (
	Capset        = Sys{unix.SYS_CAPSET, "capset"}
	Chdir         = Sys{unix.SYS_CHDIR, "chdir"}
	Chroot        = Sys{unix.SYS_CHROOT, "chroot"}
	ClockGettime  = Sys{unix.SYS_CLOCK_GETTIME, "clock_gettime"}
	Clone         = Sys{unix.SYS_CLONE, "clone"}
	Close         = Sys{unix.SYS_CLOSE, "close"}
	CloseRange    = Sys{unix.SYS_CLOSE_RANGE, "close_range"}
	Dup3          = Sys{unix.SYS_DUP3, "dup3"}
	Eventfd2      = Sys{unix.SYS_EVENTFD2, "eventfd2"}
	Execveat      = Sys{unix.SYS_EXECVEAT, "execveat"}
	Execve        = Sys{unix.SYS_EXECVE, "execve"}
	ExitGroup     = Sys{unix.SYS_EXIT_GROUP, "exit_group"}
	Getpid        = Sys{unix.SYS_GETPID, "getpid"}
	Faccessat     = Sys{unix.SYS_FACCESSAT, "faccessat"}
	Fchdir        = Sys{unix.SYS_FCHDIR, "fchdir"}
	Fchmod        = Sys{unix.SYS_FCHMOD, "fchmod"}
	Fchmodat      = Sys{unix.SYS_FCHMODAT, "fchmodat"}
	Fchown        = Sys{unix.SYS_FCHOWN, "fchown"}
	Fchownat      = Sys{unix.SYS_FCHOWNAT, "fchownat"}
	Fcntl         = Sys{unix.SYS_FCNTL, "fcntl"}
	Fsconfig      = Sys{unix.SYS_FSCONFIG, "fsconfig"}
	Fsetxattr     = Sys{unix.SYS_FSETXATTR, "fsetxattr"}
	Fsmount       = Sys{unix.SYS_FSMOUNT, "fsmount"}
	Fspick        = Sys{unix.SYS_FSPICK, "fspick"}
	Fsopen        = Sys{unix.SYS_FSOPEN, "fsopen"}
	Ioctl         = Sys{unix.SYS_IOCTL, "ioctl"}
	IoprioSet     = Sys{unix.SYS_IOPRIO_SET, "ioprio_set"}
	Keyctl        = Sys{unix.SYS_KEYCTL, "keyctl"}
	LandlockAdd   = Sys{unix.SYS_LANDLOCK_ADD_RULE, "landlock_add_rule"}
	LandlockNew   = Sys{unix.SYS_LANDLOCK_CREATE_RULESET, "landlock_create_ruleset"}
	LandlockSelf  = Sys{unix.SYS_LANDLOCK_RESTRICT_SELF, "landlock_restrict_self"}
	Mkdirat       = Sys{unix.SYS_MKDIRAT, "mkdirat"}
	Mknodat       = Sys{unix.SYS_MKNODAT, "mknodat"}
	Mount         = Sys{unix.SYS_MOUNT, "mount"}
	MountSetattr  = Sys{unix.SYS_MOUNT_SETATTR, "mount_setattr"}
	MoveMount     = Sys{unix.SYS_MOVE_MOUNT, "move_mount"}
	OpenTree      = Sys{unix.SYS_OPEN_TREE, "open_tree"}
	Openat        = Sys{unix.SYS_OPENAT, "openat"}
	Openat2       = Sys{unix.SYS_OPENAT2, "openat2"}
	Personality   = Sys{unix.SYS_PERSONALITY, "personality"}
	PidfdSignal   = Sys{unix.SYS_PIDFD_SEND_SIGNAL, "pidfd_send_signal"}
	PivotRoot     = Sys{unix.SYS_PIVOT_ROOT, "pivot_root"}
	Prctl         = Sys{unix.SYS_PRCTL, "prctl"}
	Prlimit       = Sys{unix.SYS_PRLIMIT64, "prlimit64"}
	Read          = Sys{unix.SYS_READ, "read"}
	RtSigprocmask = Sys{unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask"}
	RtSigaction   = Sys{unix.SYS_RT_SIGACTION, "rt_sigaction"}
	Seccomp       = Sys{unix.SYS_SECCOMP, "seccomp"}
	Sendmsg       = Sys{unix.SYS_SENDMSG, "sendmsg"}
	Setaffinity   = Sys{unix.SYS_SCHED_SETAFFINITY, "sched_setaffinity"}
	Setdomain     = Sys{unix.SYS_SETDOMAINNAME, "setdomainname"}
	Setgroups     = Sys{unix.SYS_SETGROUPS, "setgroups"}
	Sethostname   = Sys{unix.SYS_SETHOSTNAME, "sethostname"}
	Setmempolicy  = Sys{unix.SYS_SET_MEMPOLICY, "set_mempolicy"}
	Setns         = Sys{unix.SYS_SETNS, "setns"}
	Setpgid       = Sys{unix.SYS_SETPGID, "setpgid"}
	Setresgid     = Sys{unix.SYS_SETRESGID, "setresgid"}
	Setresuid     = Sys{unix.SYS_SETRESUID, "setresuid"}
	Setschedattr  = Sys{unix.SYS_SCHED_SETATTR, "sched_setattr"}
	Setsid        = Sys{unix.SYS_SETSID, "setsid"}
	Symlinkat     = Sys{unix.SYS_SYMLINKAT, "symlinkat"}
	Umask         = Sys{unix.SYS_UMASK, "umask"}
	Umount2       = Sys{unix.SYS_UMOUNT2, "umount2"}
	Unshare       = Sys{unix.SYS_UNSHARE, "unshare"}
	Write         = Sys{unix.SYS_WRITE, "write"}
)
