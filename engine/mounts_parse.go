package engine

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/volume"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// parseMounts turns the three ways to ask for a bind or volume (HostConfig.Binds,
// HostConfig.Mounts, Config.Volumes) into mount points sorted by destination,
// so that a mount inside another comes after it. inherited are those of
// --volumes-from, which the container's own take the place of. Sources of
// volumes are left empty. tmpfs is not among them, see tmpfsMounts.
func parseMounts(cfg *container.Config, hc *container.HostConfig, inherited []mountPoint) ([]mountPoint, error) {
	var list []mountPoint
	for _, raw := range hc.Binds {
		m, err := parseBind(raw)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	for i := range hc.Mounts {
		if hc.Mounts[i].Type == mount.TypeTmpfs {
			continue
		}
		m, err := parseMountSpec(&hc.Mounts[i])
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	tmpfs, err := tmpfsMounts(hc)
	if err != nil {
		return nil, err
	}
	if err := refuseDuplicates(list, tmpfs); err != nil {
		return nil, err
	}
	for _, m := range inherited {
		if !covered(list, tmpfs, m.Destination) {
			list = append(list, m)
		}
	}
	for dest := range cfg.Volumes {
		m, err := imageVolume(dest)
		if err != nil {
			return nil, err
		}
		if !covered(list, tmpfs, m.Destination) {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b mountPoint) int { return strings.Compare(a.Destination, b.Destination) })
	return list, nil
}

// covered says whether something is mounted at dest already.
func covered(list []mountPoint, tmpfs []tmpfsMount, dest string) bool {
	return slices.ContainsFunc(list, func(m mountPoint) bool { return m.Destination == dest }) ||
		slices.ContainsFunc(tmpfs, func(m tmpfsMount) bool { return m.Destination == dest })
}

func refuseDuplicates(list []mountPoint, tmpfs []tmpfsMount) error {
	seen := map[string]bool{}
	for i := range list {
		if seen[list[i].Destination] {
			return errDuplicateMount(list[i].Destination)
		}
		seen[list[i].Destination] = true
	}
	for i := range tmpfs {
		if seen[tmpfs[i].Destination] {
			return errDuplicateMount(tmpfs[i].Destination)
		}
		seen[tmpfs[i].Destination] = true
	}
	return nil
}

func errDuplicateMount(dest string) error {
	return invalidf("duplicate mount point: %s", dest)
}

// parseBind reads source:destination[:options] or a lone destination.
func parseBind(raw string) (mountPoint, error) {
	bad := func(why string) (mountPoint, error) {
		return mountPoint{}, invalidf("invalid volume specification %q: %s", raw, why)
	}
	parts := strings.Split(raw, ":")
	var source, dest, mode string
	switch len(parts) {
	case 1:
		dest = parts[0]
	case 2:
		source, dest = parts[0], parts[1]
	case 3:
		source, dest, mode = parts[0], parts[1], parts[2]
	default:
		return bad("too many colons")
	}
	if len(parts) > 1 && source == "" {
		return bad("empty source")
	}
	dest, err := cleanDestination(dest)
	if err != nil {
		return bad(err.Error())
	}
	if source == "" {
		return anonymousVolume(dest), nil
	}
	m := bindPoint(source, dest)
	if !path.IsAbs(source) {
		if err := volume.CheckName(source); err != nil {
			return mountPoint{}, fmt.Errorf("volume %s: %w", raw, err)
		}
		m = volumePoint(source, dest)
	}
	m.Mode = mode
	if err := applyBindMode(&m, mode); err != nil {
		return bad(err.Error())
	}
	return m, nil
}

// applyBindMode reads the comma separated third part of a bind or volume.
func applyBindMode(m *mountPoint, mode string) error {
	if mode == "" {
		return nil
	}
	for _, opt := range strings.Split(mode, ",") {
		switch {
		case opt == "ro":
			m.RW = false
		case opt == "nocopy" && m.Type == mount.TypeVolume:
			m.NoCopy = true
		case opt == "rw", opt == optionIDMap, opt == "consistent", opt == "cached", opt == "delegated":
		case opt == "z", opt == "Z":
			// SELinux relabelling, see labelFiles; without SELinux it means
			// nothing.
		case m.Type == mount.TypeBind && slices.Contains(mount.Propagations, mount.Propagation(opt)):
			m.Propagation = mount.Propagation(opt)
		default:
			return fmt.Errorf("invalid mode %s", mode)
		}
	}
	return nil
}

// parseMountSpec reads one entry of HostConfig.Mounts (--mount).
func parseMountSpec(spec *mount.Mount) (mountPoint, error) {
	bad := func(why string) (mountPoint, error) {
		return mountPoint{}, invalidf("invalid mount config for type %q: %s", spec.Type, why)
	}
	dest, err := cleanDestination(spec.Target)
	if err != nil {
		return bad(err.Error())
	}
	switch spec.Type {
	case mount.TypeBind:
		return parseBindSpec(spec, dest, bad)
	case mount.TypeVolume:
		return parseVolumeSpec(spec, dest, bad)
	case mount.TypeImage:
		return parseImageSpec(spec, dest, bad)
	case mount.TypeCluster, mount.TypeNamedPipe:
		return mountPoint{}, errUnsupported(fmt.Sprintf("--mount type=%s", spec.Type))
	}
	return bad("mount type unknown")
}

func parseBindSpec(spec *mount.Mount, dest string, bad func(string) (mountPoint, error)) (mountPoint, error) {
	if !path.IsAbs(spec.Source) {
		return bad(fmt.Sprintf("source %q is not an absolute path", spec.Source))
	}
	m := bindPoint(spec.Source, dest)
	m.RW = !spec.ReadOnly
	opt := spec.BindOptions
	if opt == nil {
		opt = &mount.BindOptions{}
	}
	if opt.Propagation != "" {
		if !slices.Contains(mount.Propagations, opt.Propagation) {
			return bad(fmt.Sprintf("invalid propagation mode %s", opt.Propagation))
		}
		m.Propagation = opt.Propagation
	}
	if opt.ReadOnlyForceRecursive && opt.ReadOnlyNonRecursive {
		return bad("read-only both recursive and not")
	}
	m.NonRecursive, m.ReadOnlyNonRecursive = opt.NonRecursive, opt.ReadOnlyNonRecursive
	// Unlike -v, --mount takes a missing source for a mistake.
	if _, err := os.Stat(m.Source); err != nil && !opt.CreateMountpoint {
		return bad(fmt.Sprintf("bind source path does not exist: %s", m.Source))
	}
	return m, nil
}

// parseVolumeSpec reads --mount type=volume.
func parseVolumeSpec(spec *mount.Mount, dest string, bad func(string) (mountPoint, error)) (mountPoint, error) {
	opt := spec.VolumeOptions
	if opt == nil {
		opt = &mount.VolumeOptions{}
	}
	m := anonymousVolume(dest)
	if spec.Source != "" {
		if err := volume.CheckName(spec.Source); err != nil {
			return bad(err.Error())
		}
		m = volumePoint(spec.Source, dest)
	} else if opt.Subpath != "" {
		return bad("must not set Subpath when using anonymous volumes")
	}
	if opt.Subpath != "" && !filepath.IsLocal(opt.Subpath) {
		return bad(fmt.Sprintf("subpath %q must be a relative path within the volume", opt.Subpath))
	}
	m.RW, m.NoCopy, m.Subpath, m.labels = !spec.ReadOnly, opt.NoCopy, opt.Subpath, opt.Labels
	if d := opt.DriverConfig; d != nil {
		if d.Name != "" && d.Name != volume.DriverLocal {
			return mountPoint{}, errUnsupported("--mount volume-driver=" + d.Name)
		}
		m.driverOptions = d.Options
	}
	return m, nil
}

// parseImageSpec reads --mount type=image: another image's files, read-only.
func parseImageSpec(spec *mount.Mount, dest string, bad func(string) (mountPoint, error)) (mountPoint, error) {
	if spec.Source == "" {
		return bad("field Source must not be empty")
	}
	m := mountPoint{MountPoint: container.MountPoint{Type: mount.TypeImage, Source: spec.Source, Destination: dest}}
	if opt := spec.ImageOptions; opt != nil && opt.Subpath != "" {
		if !filepath.IsLocal(opt.Subpath) {
			return bad(fmt.Sprintf("subpath %q must be a relative path within the image", opt.Subpath))
		}
		m.Subpath = opt.Subpath
	}
	return m, nil
}

func bindPoint(source, dest string) mountPoint {
	return mountPoint{MountPoint: container.MountPoint{
		Type: mount.TypeBind, Source: path.Clean(source), Destination: dest, RW: true,
		Propagation: mount.PropagationRPrivate,
	}}
}

func volumePoint(name, dest string) mountPoint {
	return mountPoint{MountPoint: container.MountPoint{
		Type: mount.TypeVolume, Name: name, Destination: dest, Driver: volume.DriverLocal, RW: true,
	}}
}

func anonymousVolume(dest string) mountPoint {
	m := volumePoint("", dest)
	m.Anonymous = true
	return m
}

// imageVolume reads a key of Config.Volumes: a path in the container.
func imageVolume(dest string) (mountPoint, error) {
	clean, err := cleanDestination(dest)
	if err != nil {
		return mountPoint{}, fmt.Errorf("invalid volume %q: %w", dest, errdefs.As(errdefs.ErrInvalid, err))
	}
	return anonymousVolume(clean), nil
}

// cleanDestination checks a path in the container that something is mounted on.
func cleanDestination(dest string) (string, error) {
	if !path.IsAbs(dest) {
		return "", fmt.Errorf("mount path %q is not absolute", dest)
	}
	clean := path.Clean(dest)
	if clean == "/" {
		return "", fmt.Errorf("destination cannot be /")
	}
	return clean, nil
}
