package explain

import (
	"fmt"
	"slices"
	"strings"
)

// Confinement is what keeps a container from the rest of its host.
type Confinement struct {
	// Namespaces are by the kernel's names: mnt, pid, net, ipc, uts, cgroup, user, time.
	Namespaces []Namespace
	// UID and User are whom its program runs as; inside its user namespace where
	// it has one.
	UID  uint32
	User string
	// UserMap says which users of the host root inside is.
	UserMap string `json:",omitempty"`
	// Capabilities are those it can have at most, Effective those its first
	// process begins with; with the prefix CAP_.
	Capabilities, Effective []string
	Privileged              bool
	NoNewPrivileges         bool
	Seccomp                 Seccomp
	// AppArmor and SELinux are the profile and the label; empty: none.
	AppArmor, SELinux string `json:",omitempty"`
	// Landlock tells that a Landlock domain denies mounting.
	Landlock bool
	// ReadonlyRoot, and the paths that are hidden or cannot be written.
	ReadonlyRoot               bool
	MaskedPaths, ReadonlyPaths []string
	// Devices are those that it may use besides the harmless ones of all; AllDevices: every one.
	Devices    []string `json:",omitempty"`
	AllDevices bool     `json:",omitempty"`
	// Limits of its size, as sentences' parts: "memory 32MiB".
	Limits []string
	// Seen tells that the running process agrees: what the kernel says of its
	// capabilities, its seccomp filter and no_new_privs is what was asked for.
	Seen *Seen `json:",omitempty"`
}

// Seen is what the kernel says of the running first process, proc_pid_status(5).
type Seen struct {
	CapBnd, CapEff uint64
	// Bounding is CapBnd by name; with the prefix CAP_.
	Bounding   []string
	NoNewPrivs bool
	// Seccomp is 0 for none, 2 for a filter.
	Seccomp int
	// Label is the security module's, empty for none.
	Label string `json:",omitempty"`
}

// Namespace is one kind and where it comes from: "own", "host", or another
// container's id.
type Namespace struct{ Kind, Of string }

// Seccomp is a container's filter of system calls.
type Seccomp struct {
	// Profile is default, custom or none.
	Profile string
	// Allowed are the system calls that some rule lets through, Default what
	// happens to the others.
	Allowed int    `json:",omitempty"`
	Default string `json:",omitempty"`
}

// power is a capability in words: what one may do with it.
type power struct {
	name, allows string
	// grave ones make root inside as good as root outside.
	grave bool
}

// capabilities are all of them, capabilities(7), in the order in which they are told.
var capabilities = []power{
	{"CHOWN", "give files to other users", false},
	{"DAC_OVERRIDE", "read and write files whatever their permissions", false},
	{"DAC_READ_SEARCH", "read files whatever their permissions, also by handle", true},
	{"FOWNER", "act as the owner of any file", false},
	{"FSETID", "keep set-user-ID bits", false},
	{"KILL", "send signals to other users' processes", false},
	{"SETGID", "become any group", false},
	{"SETUID", "become any user", false},
	{"SETPCAP", "change its own capability sets", false},
	{"SETFCAP", "give capabilities to files", false},
	{"NET_BIND_SERVICE", "use ports below 1024", false},
	{"NET_RAW", "send raw packets", false},
	{"SYS_CHROOT", "use chroot", false},
	{"MKNOD", "make device files, of which it may use only those that are allowed", false},
	{"AUDIT_WRITE", "write to the audit log", false},
	{"SYS_ADMIN", "mount file systems and do most of what an administrator does", true},
	{"SYS_MODULE", "load kernel modules", true},
	{"SYS_RAWIO", "reach hardware past the kernel", true},
	{"SYS_PTRACE", "look into and change other processes", true},
	{"NET_ADMIN", "configure networks", true},
	{"SYS_BOOT", "restart the machine", true},
	{"SYS_TIME", "set the clock", true},
	{"BPF", "load BPF programs", true},
	{"PERFMON", "watch the performance of everything", true},
	{"SYSLOG", "read the kernel's log", true},
	{"MAC_ADMIN", "change the security module's rules", true},
	{"MAC_OVERRIDE", "pass over the security module's rules", true},
	{"SYS_RESOURCE", "raise limits", false},
	{"SYS_NICE", "take a higher priority", false},
	{"SYS_PACCT", "turn on process accounting", false},
	{"SYS_TTY_CONFIG", "hang up terminals", false},
	{"IPC_LOCK", "keep memory from being swapped out", false},
	{"IPC_OWNER", "use others' shared memory", false},
	{"LEASE", "take leases on files", false},
	{"LINUX_IMMUTABLE", "make files immutable", false},
	{"NET_BROADCAST", "broadcast", false},
	{"BLOCK_SUSPEND", "keep the machine awake", false},
	{"WAKE_ALARM", "wake the machine", false},
	{"AUDIT_CONTROL", "configure the audit log", true},
	{"AUDIT_READ", "read the audit log", true},
	{"CHECKPOINT_RESTORE", "checkpoint and restore processes", false},
}

func (c *Confinement) answers() []string {
	var out []string
	add := func(text string) {
		if text != "" {
			out = append(out, text)
		}
	}
	if c.Privileged {
		add("Very little: it is privileged. Its root is as good as root of the host, and it can take the host over.")
	}
	add(c.namespaces())
	add(c.identity())
	add(c.may())
	add(c.mayNot())
	add(c.filter())
	add(c.modules())
	add(c.files())
	add(c.devices())
	add(c.limits())
	add(c.disagreement())
	return out
}

// kinds are the namespaces and what having an own one means.
var kinds = []struct{ kind, what string }{
	{"mnt", "files"}, {"pid", "processes"}, {"net", "network"}, {"ipc", "shared memory"}, {"uts", "host name"},
	{"cgroup", "cgroups"}, {"user", "users"}, {"time", "boot time"},
}

func (c *Confinement) namespaces() string {
	var own, host, others []string
	for _, k := range kinds {
		i := slices.IndexFunc(c.Namespaces, func(n Namespace) bool { return n.Kind == k.kind })
		switch {
		case i < 0 || c.Namespaces[i].Of == "host":
			host = append(host, k.what)
		case c.Namespaces[i].Of == "own":
			own = append(own, k.what)
		default:
			others = append(others, fmt.Sprintf("the %s of %s", k.what, c.Namespaces[i].Of))
		}
	}
	text := fmt.Sprintf("Namespaces: it sees %s of its own", list(own))
	if len(others) > 0 {
		text += ", " + list(others)
	}
	return text + fmt.Sprintf("; it shares with the host: %s.", strings.Join(host, ", "))
}

func (c *Confinement) identity() string {
	text := fmt.Sprintf("Identity: its program runs as user %s", c.User)
	if c.User != fmt.Sprint(c.UID) && c.User != "" {
		text += fmt.Sprintf(" (%d)", c.UID)
	}
	switch {
	case c.UserMap != "":
		text += ", in a user namespace: " + c.UserMap
	case c.UID == 0:
		text += ", the same root as the host's but for what follows"
	}
	if c.NoNewPrivileges {
		text += "; no program it executes can gain privileges"
	}
	return text + "."
}

// phrases are the capabilities in words, graver ones first where asked.
func phrases(names []string, want func(power) bool) []string {
	var out []string
	for _, k := range capabilities {
		if slices.Contains(names, "CAP_"+k.name) && want(k) {
			out = append(out, fmt.Sprintf("%s (%s)", k.allows, k.name))
		}
	}
	for _, n := range names {
		known := func(k power) bool { return "CAP_"+k.name == n }
		if !slices.ContainsFunc(capabilities, known) {
			out = append(out, n)
		}
	}
	return out
}

func (c *Confinement) may() string {
	if len(c.Capabilities) == 0 {
		return "Capabilities: none. Even its root is an ordinary user who owns root's files."
	}
	text := fmt.Sprintf("Capabilities: it may, with %d of the kernel's %d, %s.",
		len(c.Capabilities), len(capabilities), list(phrases(c.Capabilities, func(power) bool { return true })))
	if len(c.Effective) == 0 {
		text += " As it does not run as root, it has none of them unless a file gives them."
	}
	return text
}

func (c *Confinement) mayNot() string {
	var missing []string
	for _, k := range capabilities {
		if k.grave && !slices.Contains(c.Capabilities, "CAP_"+k.name) {
			missing = append(missing, k.allows)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("It may not, among other things, %s.", list(missing[:min(len(missing), 7)]))
}

func (c *Confinement) filter() string {
	switch s := &c.Seccomp; s.Profile {
	case "none":
		return "System calls: all that the kernel has; there is no seccomp filter."
	default:
		return fmt.Sprintf("System calls: a seccomp filter (the %s profile) lets %d pass; %s.", s.Profile, s.Allowed, action(s.Default))
	}
}

// action says in words what a filter does with a call that no rule lets pass.
func action(name string) string {
	switch name {
	case "SCMP_ACT_ERRNO":
		return "others fail with an error"
	case "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD":
		return "others kill the caller"
	case "SCMP_ACT_ALLOW":
		return "so do all others"
	case "SCMP_ACT_LOG":
		return "others are logged and pass"
	case "SCMP_ACT_NOTIFY":
		return "others are decided by an agent"
	}
	return "others: " + name
}

func (c *Confinement) modules() string {
	var with []string
	if c.AppArmor != "" {
		with = append(with, "the AppArmor profile "+c.AppArmor)
	}
	if c.SELinux != "" {
		with = append(with, "the SELinux label "+c.SELinux)
	}
	if c.Landlock {
		with = append(with, "a Landlock domain in which nothing can be mounted")
	}
	if with == nil {
		return "Security modules: none is asked for this container."
	}
	return fmt.Sprintf("Security modules: %s.", list(with))
}

func (c *Confinement) files() string {
	root := "can be written"
	if c.ReadonlyRoot {
		root = "cannot be written"
	}
	text := fmt.Sprintf("Files: its root file system %s", root)
	if len(c.MaskedPaths) > 0 {
		text += fmt.Sprintf("; %s hidden (%s)", count(len(c.MaskedPaths), "path of /proc and /sys is", "paths of /proc and /sys are"), few(c.MaskedPaths))
	}
	if len(c.ReadonlyPaths) > 0 {
		text += fmt.Sprintf("; %s read-only (%s)", count(len(c.ReadonlyPaths), "is", "are"), few(c.ReadonlyPaths))
	}
	return text + "."
}

// few are the first of a list, and how many are left out.
func few(words []string) string {
	const most = 5
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", len(words)-most)
}

func (c *Confinement) devices() string {
	switch {
	case c.AllDevices:
		return "Devices: all of the host's."
	case len(c.Devices) > 0:
		return fmt.Sprintf("Devices: %s, besides the harmless ones (null, zero, full, random, urandom, tty, pts).", few(c.Devices))
	}
	return "Devices: only the harmless ones (null, zero, full, random, urandom, tty, pts)."
}

func (c *Confinement) limits() string {
	if len(c.Limits) == 0 {
		return "Limits: none; it may take all of the host's memory, processors and processes. --memory, --cpus and --pids-limit set them."
	}
	return fmt.Sprintf("Limits: %s.", list(c.Limits))
}

// disagreement tells where the running process is not what was asked for.
func (c *Confinement) disagreement() string {
	s := c.Seen
	if s == nil {
		return ""
	}
	var wrong []string
	for _, name := range s.Bounding { // fewer is its own doing: a program may give some up
		if !slices.Contains(c.Capabilities, name) {
			wrong = append(wrong, "it can have "+name)
		}
	}
	if s.NoNewPrivs != c.NoNewPrivileges && !s.NoNewPrivs {
		wrong = append(wrong, "it can gain privileges")
	}
	if (s.Seccomp == 0) != (c.Seccomp.Profile == "none") {
		wrong = append(wrong, fmt.Sprintf("its seccomp mode is %d", s.Seccomp))
	}
	if wrong == nil {
		return "The kernel confirms this for the running process: capabilities, seccomp and no_new_privs are as asked for."
	}
	return fmt.Sprintf("But the kernel says of the running process: %s.", list(wrong))
}
