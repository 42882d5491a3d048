package oci

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/resctrl"
)

// check refuses what the compiler cannot build: first what contradicts the
// specification, then each field that is valid but not done, by its name.
// Nothing of a specification is left out in silence.
func check(s *specs.Spec) error {
	for _, f := range []func(*specs.Spec) error{checkVersion, checkRoot, checkMounts, checkNamespaces, checkHooks, checkUnsupported} {
		if err := f(s); err != nil {
			return err
		}
	}
	if s.Process == nil {
		return nil
	}
	return CheckProcess(s.Process)
}

func checkVersion(s *specs.Spec) error {
	if !strings.HasPrefix(s.Version, "1.") {
		return invalid("ociVersion %q: version 1 is needed", s.Version)
	}
	return nil
}

func checkRoot(s *specs.Spec) error {
	switch {
	case s.Linux == nil:
		return invalid("linux: missing")
	case s.Root == nil || s.Root.Path == "":
		return invalid("root.path: missing")
	case strings.ContainsRune(s.Hostname+s.Domainname+s.Root.Path+s.Linux.MountLabel, 0):
		return invalid("a string has a NUL character")
	case s.Hostname != "" && !hasNamespace(s.Linux, specs.UTSNamespace):
		return invalid("hostname %q: needs a uts namespace, or the host's name would change", s.Hostname)
	case s.Domainname != "" && !hasNamespace(s.Linux, specs.UTSNamespace):
		return invalid("domainname %q: needs a uts namespace, or the host's name would change", s.Domainname)
	}
	if _, _, ok := propagation(s.Linux.RootfsPropagation); !ok && s.Linux.RootfsPropagation != "" {
		return invalid("linux.rootfsPropagation %q: unknown", s.Linux.RootfsPropagation)
	}
	if !hasNamespace(s.Linux, specs.MountNamespace) && (s.Root.Readonly || s.Linux.RootfsPropagation != "") {
		return invalid("root.readonly, linux.rootfsPropagation: they need a mount namespace")
	}
	if err := checkPersonality(s.Linux.Personality); err != nil {
		return err
	}
	if err := checkMemoryPolicy(s.Linux.MemoryPolicy); err != nil {
		return err
	}
	if sc := s.Linux.Seccomp; sc != nil && sc.ListenerPath == "" && sc.ListenerMetadata != "" {
		return invalid("linux.seccomp.listenerMetadata: needs listenerPath")
	}
	if rdt := s.Linux.IntelRdt; rdt != nil {
		if _, err := resctrl.New(rdt, "id"); err != nil {
			return invalid("linux.intelRdt.%v", err)
		}
	}
	return checkLinuxPaths(s.Linux)
}

func checkLinuxPaths(l *specs.Linux) error {
	for _, list := range [][]string{l.MaskedPaths, l.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
				return invalid("masked or read-only path %q: must be absolute", p)
			}
		}
	}
	for _, d := range l.Devices {
		if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return invalid("linux.devices: path %q: must be absolute", d.Path)
		}
	}
	return nil
}

func checkMounts(s *specs.Spec) error {
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Destination == "" || strings.ContainsRune(m.Destination+m.Source+m.Type, 0) {
			return invalid("mounts: destination %q: must be a path", m.Destination)
		}
		if relative(m.Destination) == "" && !hasNamespace(s.Linux, specs.MountNamespace) {
			return invalid("mounts: /: needs a mount namespace")
		}
		if err := checkOverProc(m); err != nil {
			return err
		}
	}
	return nil
}

// procFiles may be covered by bind mounts: what lxcfs and its like replace.
var procFiles = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// checkOverProc refuses mounts inside /proc, which would redirect what the
// runtime, the container's tools and the security modules read and write there.
func checkOverProc(m *specs.Mount) error {
	dest := path.Clean("/" + m.Destination)
	if dest == "/proc" {
		if m.Type != "proc" && !isBind(m) {
			return invalid("mounts: %s: only proc may be mounted there", dest)
		}
		return nil
	}
	if !strings.HasPrefix(dest, "/proc/") {
		return nil
	}
	for _, f := range procFiles {
		if dest == f && isBind(m) {
			return nil
		}
	}
	return invalid("mounts: %s: must not be inside /proc", dest)
}

// namespaceFlags gives the clone flag of each namespace type.
var namespaceFlags = []struct {
	kind specs.LinuxNamespaceType
	flag uintptr
	name string
}{
	// The user namespace comes first: it owns those made or joined after it.
	{specs.UserNamespace, 0x10000000, "CLONE_NEWUSER"},
	{specs.MountNamespace, 0x00020000, "CLONE_NEWNS"},
	{specs.NetworkNamespace, 0x40000000, "CLONE_NEWNET"},
	{specs.IPCNamespace, 0x08000000, "CLONE_NEWIPC"},
	{specs.UTSNamespace, 0x04000000, "CLONE_NEWUTS"},
	{specs.CgroupNamespace, 0x02000000, "CLONE_NEWCGROUP"},
	{specs.TimeNamespace, 0x00000080, "CLONE_NEWTIME"},
	{specs.PIDNamespace, 0x20000000, "CLONE_NEWPID"},
}

func hasNamespace(l *specs.Linux, kind specs.LinuxNamespaceType) bool {
	for _, n := range l.Namespaces {
		if n.Type == kind {
			return true
		}
	}
	return false
}

// makesNamespace tells whether the container has a namespace of its own making.
func makesNamespace(l *specs.Linux, kind specs.LinuxNamespaceType) bool {
	for _, n := range l.Namespaces {
		if n.Type == kind && n.Path == "" {
			return true
		}
	}
	return false
}

func checkNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	newUser := false
	for _, n := range s.Linux.Namespaces {
		known := false
		for _, f := range namespaceFlags {
			known = known || f.kind == n.Type
		}
		switch {
		case !known:
			return invalid("linux.namespaces: unknown type %q", n.Type)
		case seen[n.Type]:
			return invalid("linux.namespaces: %s twice", n.Type)
		case n.Path != "" && !path.IsAbs(n.Path):
			return invalid("linux.namespaces: %s: path %q: must be absolute", n.Type, n.Path)
		}
		seen[n.Type] = true
		newUser = newUser || n.Type == specs.UserNamespace && n.Path == ""
	}
	switch {
	case newUser && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0):
		return invalid("linux.uidMappings, gidMappings: a new user namespace needs both")
	case newUser && joinsNamespace(s.Linux, specs.MountNamespace):
		return errdefs.WithHint(unsupported("linux.namespaces: a new user namespace together with a joined mount namespace, in which its root has no right"),
			"join the user namespace that the mount namespace belongs to as well, or have a new mount namespace")
	case !seen[specs.UserNamespace] && len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0:
		return invalid("linux.uidMappings, gidMappings: they need a user namespace")
	}
	if err := checkTimeOffsets(s.Linux); err != nil {
		return err
	}
	if err := checkNetDevices(s.Linux); err != nil {
		return err
	}
	return checkSysctls(s)
}

func joinsNamespace(l *specs.Linux, kind specs.LinuxNamespaceType) bool {
	return hasNamespace(l, kind) && !makesNamespace(l, kind)
}

func checkTimeOffsets(l *specs.Linux) error {
	for clock, o := range l.TimeOffsets {
		switch {
		case clock != "monotonic" && clock != "boottime":
			return invalid("linux.timeOffsets: unknown clock %q", clock)
		case o.Nanosecs >= 1e9:
			return invalid("linux.timeOffsets: %s: %d nanoseconds are more than a second", clock, o.Nanosecs)
		case !makesNamespace(l, specs.TimeNamespace):
			return invalid("linux.timeOffsets: needs a new time namespace")
		}
	}
	return nil
}

// checkSysctls lets only kernel parameters through that belong to a namespace
// of the container's own: any other would change the host.
func checkSysctls(s *specs.Spec) error {
	for key := range s.Linux.Sysctl {
		needs, err := sysctlNamespace(key)
		if err != nil {
			return err
		}
		if !hasNamespace(s.Linux, needs) {
			return invalid("linux.sysctl: %s: needs a %s namespace, or the host would change", key, needs)
		}
	}
	return nil
}

// sysctlNamespace is the namespace a kernel parameter belongs to.
func sysctlNamespace(key string) (specs.LinuxNamespaceType, error) {
	name := strings.ReplaceAll(key, "/", ".")
	switch {
	case strings.Contains(name, "..") || strings.ContainsRune(name, 0):
		return "", invalid("linux.sysctl: bad name %q", key)
	case strings.HasPrefix(name, "net."):
		return specs.NetworkNamespace, nil
	case strings.HasPrefix(name, "fs.mqueue."), isIPCSysctl(name):
		return specs.IPCNamespace, nil
	case strings.HasPrefix(name, "user."):
		return specs.UserNamespace, nil
	case name == "kernel.domainname":
		return specs.UTSNamespace, nil
	case name == "kernel.hostname":
		return "", invalid("linux.sysctl: %s: use hostname", key)
	}
	return "", invalid("linux.sysctl: %s: belongs to no namespace, setting it would change the host", key)
}

func isIPCSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
		"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return false
}

// checkUnsupported names what the specification has and this compiler has not.
func checkUnsupported(s *specs.Spec) error {
	for _, f := range []struct {
		set  bool
		name string
	}{
		{s.VM != nil, "vm"}, {s.Windows != nil, "windows"}, {s.Solaris != nil, "solaris"}, {s.ZOS != nil, "zos"},
	} {
		if f.set {
			return unsupported(f.name)
		}
	}
	return nil
}

func checkPersonality(d *specs.LinuxPersonality) error {
	switch {
	case d == nil:
		return nil
	case d.Domain != specs.PerLinux && d.Domain != specs.PerLinux32:
		return invalid("linux.personality.domain %q: must be LINUX or LINUX32", d.Domain)
	case len(d.Flags) > 0:
		return unsupported("linux.personality.flags")
	}
	return nil
}

// CheckProcess refuses a process description that is wrong or not supported.
func CheckProcess(p *specs.Process) error {
	switch {
	case len(p.Args) == 0 || p.Args[0] == "":
		return invalid("process.args: empty")
	case !path.IsAbs(p.Cwd):
		return invalid("process.cwd %q: must be absolute", p.Cwd)
	case p.CommandLine != "":
		return errdefs.WithHint(unsupported("process.commandLine"), "it is for Windows; give process.args")
	case p.User.Umask != nil && *p.User.Umask > 0o7777:
		return invalid("process.user.umask %#o: is no file mode", *p.User.Umask)
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd, p.ApparmorProfile, p.SelinuxLabel}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return invalid("process: %q has a NUL character", s)
			}
		}
	}
	for _, e := range p.Env {
		if i := strings.IndexByte(e, '='); i <= 0 {
			return invalid("process.env: %q: must be NAME=value", e)
		}
	}
	if err := checkUser(&p.User); err != nil {
		return err
	}
	for i, r := range p.Rlimits {
		for _, earlier := range p.Rlimits[:i] {
			if earlier.Type == r.Type {
				return invalid("process.rlimits: %s twice", r.Type)
			}
		}
		if _, ok := rlimitNumber(r.Type); !ok {
			return invalid("process.rlimits: unknown type %q", r.Type)
		}
		if r.Soft > r.Hard {
			return invalid("process.rlimits: %s: the soft limit exceeds the hard one", r.Type)
		}
	}
	return checkSchedule(p)
}

// checkUser refuses the id -1, which to the kernel means "as it is": root.
func checkUser(u *specs.User) error {
	const none = 1<<32 - 1
	switch {
	case u.UID == none:
		return invalid("process.user.uid %d: is no user", u.UID)
	case u.GID == none:
		return invalid("process.user.gid %d: is no group", u.GID)
	case slices.Contains(u.AdditionalGids, none):
		return invalid("process.user.additionalGids: %d is no group", uint32(none))
	}
	return nil
}
