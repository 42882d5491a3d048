package oci

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/kernel/caps"
	"github.com/berth-containers/berth/kernel/lsm"
)

// hostLimits is what the calling process may give to a container.
type hostLimits struct {
	caps        caps.Set // capabilities it holds and may pass on
	lastCap     caps.Cap // the highest the kernel has
	sysResource bool     // CAP_SYS_RESOURCE, in its user namespace
	sysAdmin    bool     // CAP_SYS_ADMIN: it may mount, on the host
	setgroups   bool     // CAP_SETGID: it may map any group, and leave setgroups allowed in a new user namespace
	setuid      bool     // CAP_SETUID: it may map any user
	uid, gid    uint32   // its own
	oomScoreAdj int      // its own
	ignored     []int    // signals it ignores
	timerSlack  int      // precision of timers, ns; 0: the maker's
	hard        func(resource int) uint64
	appArmor    func() bool // whether the kernel has it; nil: any kernel
	seLinux     func() bool
	landlock    func() int // its version
	list        func(dir *os.File, path string) (names []string, err error)
	// ownNamespace tells whether what is to be joined is its own already.
	ownNamespace func(specs.LinuxNamespace) bool
	passwd       func(dir *os.File, root, rel string) []byte
	stat         func(path string) (isDir bool, err error)
	isProc       func(path string) bool // on a proc filesystem
	// procOfNamespace tells whether proc can be mounted for a pid namespace one is
	// not in.
	procOfNamespace func() bool
}

// thisHost asks the kernel about the calling process. oom tells whether
// oomScoreAdj will be needed.
func thisHost(oom bool) (hostLimits, error) {
	h := hostLimits{
		stat: statDir, isProc: isProc, list: listDir, passwd: readPasswd, ownNamespace: ownNamespace, hard: ownHardLimit, ignored: ignoredSignals(),
		procOfNamespace: procOfNamespace, appArmor: lsm.AppArmor, seLinux: lsm.SELinux, landlock: lsm.Landlock,
	}
	held, err := caps.Held()
	if err != nil {
		return h, err
	}
	if h.lastCap, err = caps.Last(); err != nil {
		return h, err
	}
	h.caps = held.Bounding & held.Permitted
	h.sysResource = held.Effective.Has(unix.CAP_SYS_RESOURCE)
	h.sysAdmin = held.Effective.Has(unix.CAP_SYS_ADMIN)
	h.setgroups = held.Effective.Has(unix.CAP_SETGID)
	h.setuid = held.Effective.Has(unix.CAP_SETUID)
	h.uid, h.gid = uint32(os.Geteuid()), uint32(os.Getegid())
	if !oom {
		return h, nil
	}
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err == nil {
		h.oomScoreAdj, err = strconv.Atoi(string(bytes.TrimSpace(b)))
	}
	return h, err
}

// TimerSlack is the precision of the timers of this process's main thread, in
// nanoseconds (prctl(2), PR_SET_TIMERSLACK): the kernel's default where a user may
// not ask.
func TimerSlack() int {
	b, err := ReadSmallFile("/proc/self/timerslack_ns")
	if slack, perr := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil && perr == nil {
		return slack
	}
	return 50_000
}

// anyHost allows everything: for plans that are only looked at.
func anyHost() hostLimits {
	return hostLimits{caps: ^caps.Set(0), lastCap: unix.CAP_LAST_CAP, sysResource: true, sysAdmin: true, setgroups: true, setuid: true}
}

// raises tells whether it may raise limits: the kernel asks for CAP_SYS_RESOURCE
// on the host.
func (h *hostLimits) raises() bool { return h.sysResource && (h.stat == nil || IsHostRoot()) }

func (h *hostLimits) has(probe func() bool) bool { return probe == nil || probe() }

// landlockABI is the version of Landlock the kernel has.
func (h *hostLimits) landlockABI() int {
	if h.landlock == nil {
		return landlockABI
	}
	return h.landlock()
}

func (h *hostLimits) hardLimit(resource int) uint64 {
	if h.hard == nil {
		return unix.RLIM_INFINITY
	}
	return h.hard(resource)
}

func ownHardLimit(resource int) uint64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return unix.RLIM_INFINITY
	}
	return r.Max
}

var rlimits = []string{
	"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS",
	"LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
}

// rlimitNumber is the kernel's number of RLIMIT_NAME (the generic numbering of
// x86 and arm).
func rlimitNumber(name string) (int, bool) {
	for i, n := range rlimits {
		if strings.TrimPrefix(name, "RLIMIT_") == n && strings.HasPrefix(name, "RLIMIT_") {
			return i, true
		}
	}
	return 0, false
}

// statDir tells whether path is a directory, following links as the kernel
// will.
func statDir(path string) (bool, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return fi.IsDir(), nil
}

func isProc(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// procOfNamespace asks whether the kernel knows proc's option pidns (Linux 6.17).
func procOfNamespace() bool {
	ctx, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(ctx)
	ns, err := os.Open("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	defer ns.Close()
	return unix.FsconfigSetFd(ctx, "pidns", int(ns.Fd())) == nil
}

// ownNamespace tells whether the caller is in the namespace. One that cannot be
// opened is not its own: joining it will say why.
func ownNamespace(n specs.LinuxNamespace) bool {
	file := string(n.Type)
	if n.Type == specs.NetworkNamespace {
		file = "net"
	}
	var theirs, own unix.Stat_t
	return unix.Stat(n.Path, &theirs) == nil && unix.Stat("/proc/self/ns/"+file, &own) == nil &&
		theirs.Dev == own.Dev && theirs.Ino == own.Ino
}
