package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"golang.org/x/sys/unix"
)

// Mode is how a host arranges its controllers.
type Mode int

const (
	// Legacy: every controller on cgroup v1, no cgroup2 tree.
	Legacy Mode = iota
	// Hybrid: controllers on cgroup v1, and a cgroup2 tree beside them, which
	// may have those controllers that no v1 hierarchy took.
	Hybrid
	// Unified: cgroup v2 alone.
	Unified
)

// String returns "legacy", "hybrid" or "unified".
func (m Mode) String() string {
	switch m {
	case Legacy:
		return "legacy"
	case Hybrid:
		return "hybrid"
	case Unified:
		return "unified"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// standardRoot is where every distribution mounts cgroups (file-hierarchy(7)).
const standardRoot = "/sys/fs/cgroup"

// HostMode asks the kernel how this host arranges its controllers.
func HostMode() (Mode, error) {
	mode, _, err := discover(false)
	return mode, err
}

// hierarchy is one cgroup filesystem of the host.
type hierarchy struct {
	v2 bool
	// controllers are the v1 hierarchy's ("cpu", "cpuacct"; "name=systemd" for
	// one without), or the v2 root's.
	controllers []string
	mount       string // mount point
	root        string // the cgroup that is mounted there, "/" when not known
	own         string // the caller's cgroup, as /proc/self/cgroup has it
}

// name identifies the hierarchy: its second field in /proc/PID/cgroup.
func (h *hierarchy) name() string {
	if h.v2 {
		return ""
	}
	return strings.Join(h.controllers, ",")
}

// discover finds the hierarchies. Where all of them are mounted at their usual
// places it does not read /proc/self/mountinfo, which takes the kernel
// milliseconds on a host with a thousand mounts; withRoots reads it in any case,
// for the cgroup at the mount's root.
func discover(withRoots bool) (Mode, []hierarchy, error) {
	unified := isFS(standardRoot, unix.CGROUP2_SUPER_MAGIC)
	if unified && !withRoots {
		h := hierarchy{v2: true, mount: standardRoot, root: "/"}
		return Unified, []hierarchy{h}, h.readControllers()
	}
	list, err := readPath("/proc/self/cgroup")
	if err != nil {
		return 0, nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	hs, err := parseProcCgroup(list)
	if err != nil {
		return 0, nil, err
	}
	if withRoots || !atUsualPlaces(hs) {
		info, err := readPath("/proc/self/mountinfo")
		if err != nil {
			return 0, nil, fmt.Errorf("find cgroup hierarchies: %w", err)
		}
		matchMounts(hs, info)
	}
	hs = slices.DeleteFunc(hs, func(h hierarchy) bool { return h.mount == "" || unified && !h.v2 })
	return modeOf(hs)
}

func modeOf(hs []hierarchy) (Mode, []hierarchy, error) {
	mode := Legacy
	for i := range hs {
		if hs[i].v2 {
			mode = Hybrid
			if err := hs[i].readControllers(); err != nil {
				return 0, nil, err
			}
		}
	}
	if len(hs) == 0 {
		return 0, nil, errdefs.WithHint(fmt.Errorf("no cgroup filesystem is mounted: %w", errdefs.ErrUnsupported),
			"mount cgroup2 on "+standardRoot+".")
	}
	if mode == Hybrid && len(hs) == 1 {
		mode = Unified
	}
	return mode, hs, nil
}

// readControllers reads which controllers the mounted v2 tree offers.
func (h *hierarchy) readControllers() error {
	b := branch{hierarchy: *h, dir: h.mount}
	s, err := b.read("cgroup.controllers")
	if err != nil {
		return err
	}
	h.controllers = strings.Fields(s)
	return nil
}

// parseProcCgroup reads /proc/PID/cgroup: a line "ID:CONTROLLERS:PATH" for each
// hierarchy, cgroups(7).
func parseProcCgroup(s string) ([]hierarchy, error) {
	hs := make([]hierarchy, 0, 16)
	for line := range strings.Lines(s) {
		id, rest, ok1 := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		list, own, ok2 := strings.Cut(rest, ":")
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("read /proc/self/cgroup: malformed line %q", line)
		}
		h := hierarchy{own: own, root: "/"}
		if id == "0" && list == "" {
			h.v2 = true
		} else {
			h.controllers = strings.Split(list, ",")
		}
		hs = append(hs, h)
	}
	return hs, nil
}

// atUsualPlaces sets the mounts of those hierarchies that are where systemd and
// cgroupfs-mount put them, and tells whether that was all v1 ones. A cgroup2
// tree that is mounted nowhere is nothing unusual.
func atUsualPlaces(hs []hierarchy) bool {
	all := true
	for i := range hs {
		h := &hs[i]
		if h.v2 {
			if dir := standardRoot + "/unified"; isFS(dir, unix.CGROUP2_SUPER_MAGIC) {
				h.mount = dir
			}
			continue
		}
		dir := standardRoot + "/" + strings.TrimPrefix(h.name(), "name=")
		if isFS(dir, unix.CGROUP_SUPER_MAGIC) {
			h.mount = dir
		} else {
			all = false
		}
	}
	return all
}

func isFS(dir string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == magic
}

// matchMounts sets mount and root of each hierarchy from the line of
// /proc/self/mountinfo (proc_pid_mountinfo(5)) that shows it: the first, but for
// one below /sys/fs/cgroup. Super options of a v1 mount name its controllers.
func matchMounts(hs []hierarchy, info string) {
	for i := range hs {
		hs[i].mount = ""
	}
	for line := range strings.Lines(info) {
		left, right, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(right, "cgroup") {
			continue
		}
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 {
			continue
		}
		h := mountedHierarchy(hs, r[0], strings.Split(r[2], ","))
		if h == nil || h.mount != "" && (isUsual(h.mount) || !isUsual(l[4])) {
			continue
		}
		h.root, h.mount = unescape(l[3]), unescape(l[4])
	}
}

func isUsual(mount string) bool {
	_, ok := below(mount, standardRoot)
	return ok
}

func mountedHierarchy(hs []hierarchy, fstype string, options []string) *hierarchy {
	for i := range hs {
		h := &hs[i]
		if h.v2 {
			if fstype == "cgroup2" {
				return h
			}
		} else if fstype == "cgroup" && slices.Contains(options, h.controllers[0]) {
			return h
		}
	}
	return nil
}

// unescape undoes mountinfo's octal escapes of space, tab, newline, backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// placement is where a group's branches are or would be.
type placement struct {
	path     string
	mode     Mode
	branches []branch
}

// place resolves a cgroupsPath: see the package comment.
func place(cgroupsPath string) (*placement, error) {
	p, err := cleanPath(cgroupsPath)
	if err != nil {
		return nil, err
	}
	relative := p[0] != '/'
	mode, hs, err := discover(relative)
	if err != nil {
		return nil, err
	}
	l := &placement{path: p, mode: mode, branches: make([]branch, 0, len(hs))}
	for _, h := range hs {
		base := h.mount
		if relative {
			own, ok := below(h.own, h.root)
			if !ok || strings.HasPrefix(own, "/..") {
				return nil, fmt.Errorf("place cgroup %s: the caller's cgroup %s is not below the mounted %s: %w",
					p, h.own, h.root, errdefs.ErrUnsupported)
			}
			if mode == Unified {
				own = strings.TrimSuffix(path.Dir("/"+own), "/")
			}
			base = path.Join(base, own)
		}
		l.branches = append(l.branches, branch{hierarchy: h, dir: path.Join(base, p)})
	}
	return l, nil
}

// cleanPath checks a cgroupsPath and cleans it.
func cleanPath(p string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("cgroup path %q: %s: %w", p, why, errdefs.ErrInvalid)
	}
	if p == "" {
		return refuse("empty")
	}
	if strings.Count(p, ":") == 2 && !strings.Contains(p, "/") {
		return "", errdefs.WithHint(
			fmt.Errorf("cgroup path %q: systemd's form slice:prefix:name: %w", p, errdefs.ErrUnsupported),
			"Call berth-oci with --systemd-cgroup, give a path like /berth/NAME, or set the caller's cgroup driver to cgroupfs.")
	}
	for _, r := range p {
		if r < ' ' || r == 0x7f {
			return refuse("control character")
		}
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return refuse(`".." in it`)
		}
	}
	clean := path.Clean(p)
	if clean == "/" || clean == "." {
		return refuse("the root of the hierarchy is not a container's")
	}
	return clean, nil
}

// checkBelow makes sure that dir, read from a record, is a cgroup under mount.
func checkBelow(dir, mount string) error {
	rest, ok := below(dir, mount)
	if !ok || rest == "" || path.Clean(dir) != dir {
		return fmt.Errorf("directory %q is not a cgroup below %s: %w", dir, mount, errdefs.ErrInvalid)
	}
	return nil
}
