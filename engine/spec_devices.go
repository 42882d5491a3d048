package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// device is one node of --device, looked up on the host.
type device struct {
	node   specs.LinuxDevice
	host   string // its path there
	access string
}

// defaultDeviceRules is Docker's list: nothing but zero, null, urandom, random,
// tty and console. What the runtime itself needs (full, ptmx, ptys) it adds.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, n := range [][2]int64{{1, 5}, {1, 3}, {1, 9}, {1, 8}, {5, 0}, {5, 1}} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &n[0], Minor: &n[1], Access: "rwm"})
	}
	fuse := [2]int64{10, 229}
	return append(rules, specs.LinuxDeviceCgroup{Allow: false, Type: "c", Major: &fuse[0], Minor: &fuse[1], Access: "rwm"})
}

// addDevices puts nodes and cgroup rules into the spec.
func addDevices(s *specs.Spec, in *specSources) error {
	hc := in.rec.HostConfig
	if hc.Privileged {
		s.Linux.Devices = append(s.Linux.Devices, in.hostDevices...)
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		for _, d := range in.devices {
			s.Linux.Devices = append(s.Linux.Devices, d.node)
		}
		return nil
	}
	rules := defaultDeviceRules()
	for _, d := range in.devices {
		s.Linux.Devices = append(s.Linux.Devices, d.node)
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.node.Type, Major: &d.node.Major, Minor: &d.node.Minor, Access: d.access,
		})
	}
	for _, text := range hc.DeviceCgroupRules {
		r, err := parseDeviceRule(text)
		if err != nil {
			return err
		}
		rules = append(rules, r)
	}
	s.Linux.Resources.Devices = rules
	return nil
}

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

// parseDeviceRule reads --device-cgroup-rule, as in "c 13:* rwm".
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	m := deviceRule.FindStringSubmatch(text)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, invalidf("invalid device cgroup rule %q", text)
	}
	rule := specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Access: m[4]}
	for i, to := range []**int64{&rule.Major, &rule.Minor} {
		if m[2+i] == "*" {
			any := int64(-1)
			*to = &any
			continue
		}
		n, err := strconv.ParseInt(m[2+i], 10, 64)
		if err != nil {
			return rule, fmt.Errorf("invalid device cgroup rule %q: %w", text, errdefs.As(errdefs.ErrInvalid, err))
		}
		*to = &n
	}
	return rule, nil
}

// resolveDevices looks the --device mappings up on the host. A directory
// stands for the devices below it.
func resolveDevices(list []container.DeviceMapping) ([]device, error) {
	var devices []device
	for _, m := range list {
		access := m.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		if strings.Trim(access, "rwm") != "" {
			return nil, invalidf("device %s: invalid permissions %q", m.PathOnHost, access)
		}
		inside := firstNonEmpty(m.PathInContainer, m.PathOnHost)
		found, err := devicesAt(m.PathOnHost, inside)
		if err != nil {
			return nil, err
		}
		for _, node := range found {
			devices = append(devices, device{node: node, host: m.PathOnHost + strings.TrimPrefix(node.Path, inside), access: access})
		}
	}
	return devices, nil
}

func devicesAt(host, inside string) ([]specs.LinuxDevice, error) {
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", host, errdefs.As(errdefs.ErrInvalid, err))
	}
	if info, err := os.Stat(real); err == nil && info.IsDir() {
		return walkDevices(real, inside, nil)
	}
	node, err := deviceNode(real, inside)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", host, err)
	}
	return []specs.LinuxDevice{node}, nil
}

// errNoDevice: the file is not a device node.
var errNoDevice = errdefs.As(errdefs.ErrInvalid, errors.New("not a device node"))

func deviceNode(path, inside string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return specs.LinuxDevice{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFCHR:
		kind = "c"
	default:
		return specs.LinuxDevice{}, errNoDevice
	}
	mode := os.FileMode(st.Mode & 0o777)
	return specs.LinuxDevice{
		Path: inside, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	}, nil
}

// notForContainers are the entries of /dev a container has its own of.
var notForContainers = map[string]bool{
	"pts": true, "shm": true, "fd": true, "mqueue": true, "console": true,
	".lxc": true, ".lxd-mounts": true, ".udev": true,
}

// walkDevices collects the device nodes below root as seen below inside.
func walkDevices(root, inside string, skip map[string]bool) ([]specs.LinuxDevice, error) {
	var list []specs.LinuxDevice
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // unplugged meanwhile
		}
		if err != nil {
			return err
		}
		if skip[d.Name()] {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		node, err := deviceNode(path, filepath.Join(inside, strings.TrimPrefix(path, root)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		list = append(list, node)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices below %s: %w", root, err)
	}
	return list, nil
}

// hostDevices are all device nodes of the host, for privileged containers.
func hostDevices() ([]specs.LinuxDevice, error) { return walkDevices("/dev", "/dev", notForContainers) }
