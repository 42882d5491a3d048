package create

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// splitFields splits a flag's comma separated fields; a field may be quoted as in CSV.
func splitFields(v string) ([]string, error) {
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return nil, fmt.Errorf("invalid value %q: %w", v, err)
	}
	return fields, nil
}

// mounts are the --mount flags.
type mounts []mount.Mount

func (m *mounts) String() string {
	var all []string
	for _, v := range *m {
		all = append(all, fmt.Sprintf("%s %s %s", v.Type, v.Source, v.Target))
	}
	return strings.Join(all, ", ")
}

func (m *mounts) Type() string { return "mount" }

func (m *mounts) Set(v string) error {
	fields, err := splitFields(v)
	if err != nil {
		return err
	}
	mnt := mount.Mount{Type: mount.TypeVolume}
	for _, field := range fields {
		key, value, hasValue := strings.Cut(field, "=")
		if !hasValue {
			if !bareMountFields[key] {
				return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
			value = "true"
		}
		if err := setMountField(&mnt, key, value); err != nil {
			return err
		}
	}
	if err := checkMount(&mnt); err != nil {
		return err
	}
	*m = append(*m, mnt)
	return nil
}

// bareMountFields may be given without a value.
var bareMountFields = map[string]bool{"readonly": true, "ro": true, "volume-nocopy": true, "bind-nonrecursive": true, "bind-create-src": true}

func setMountField(m *mount.Mount, key, value string) error {
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		m.Source = absoluteIfRelative(value)
	case "target", "dst", "destination":
		m.Target = value
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(value))
	case "readonly", "ro":
		return setBool(&m.ReadOnly, key, value)
	default:
		class, _, _ := strings.Cut(key, "-")
		switch class {
		case "bind":
			return setBindField(m, key, value)
		case "volume":
			return setVolumeField(m, key, value)
		case "tmpfs":
			return setTmpfsField(m, key, value)
		case "image":
			if key == "image-subpath" {
				m.ImageOptions = &mount.ImageOptions{Subpath: value}
				return nil
			}
		}
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func setBool(to *bool, key, value string) error {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return fmt.Errorf("invalid value for %s: %s", key, value)
	}
	*to = b
	return nil
}

func setBindField(m *mount.Mount, key, value string) error {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	switch o := m.BindOptions; key {
	case "bind-propagation":
		o.Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-nonrecursive":
		return setBool(&o.NonRecursive, key, value)
	case "bind-create-src":
		return setBool(&o.CreateMountpoint, key, value)
	case "bind-recursive":
		switch value {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf("invalid value for %s: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", key, value)
		}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func setVolumeField(m *mount.Mount, key, value string) error {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{Labels: map[string]string{}, DriverConfig: &mount.Driver{}}
	}
	o := m.VolumeOptions
	name, text, _ := strings.Cut(value, "=")
	switch key {
	case "volume-nocopy":
		return setBool(&o.NoCopy, key, value)
	case "volume-subpath":
		o.Subpath = value
	case "volume-label":
		o.Labels[name] = text
	case "volume-driver":
		o.DriverConfig.Name = value
	case "volume-opt":
		if o.DriverConfig.Options == nil {
			o.DriverConfig.Options = map[string]string{}
		}
		o.DriverConfig.Options[name] = text
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func setTmpfsField(m *mount.Mount, key, value string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	switch key {
	case "tmpfs-size":
		n, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsOptions.SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsOptions.Mode = os.FileMode(n)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func checkMount(m *mount.Mount) error {
	if m.Type == "" {
		return fmt.Errorf("type is required")
	}
	if m.Target == "" {
		return fmt.Errorf("target is required")
	}
	for _, class := range []struct {
		typ mount.Type
		set bool
	}{
		{mount.TypeBind, m.BindOptions != nil},
		{mount.TypeVolume, m.VolumeOptions != nil},
		{mount.TypeTmpfs, m.TmpfsOptions != nil},
		{mount.TypeImage, m.ImageOptions != nil},
	} {
		if class.set && m.Type != class.typ {
			return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", class.typ, m.Type)
		}
	}
	if o := m.BindOptions; o != nil && o.ReadOnlyForceRecursive && (!m.ReadOnly || o.Propagation != mount.PropagationRPrivate) {
		return fmt.Errorf("option 'bind-recursive=readonly' requires 'readonly' and 'bind-propagation=rprivate'")
	}
	return nil
}

// absoluteIfRelative resolves . and ./… against the working directory.
func absoluteIfRelative(path string) string {
	if path == "." || path == ".." || strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../") {
		if abs, err := filepath.Abs(path); err == nil {
			return abs
		}
	}
	return path
}

// volumesOf splits the --volume flags into binds (host path or volume name
// given) and paths that get an anonymous volume.
func volumesOf(flags []string) (binds []string, anonymous map[string]struct{}, err error) {
	anonymous = map[string]struct{}{}
	for _, v := range flags {
		source, rest, ok := strings.Cut(v, ":")
		switch {
		case !ok && v == "":
			return nil, nil, fmt.Errorf("invalid empty volume spec")
		case !ok:
			anonymous[v] = struct{}{}
		case source == "" || strings.Count(rest, ":") > 1 || rest == "":
			return nil, nil, fmt.Errorf("invalid volume specification: '%s'", v)
		default:
			binds = append(binds, absoluteIfRelative(source)+":"+rest)
		}
	}
	return binds, anonymous, nil
}

// tmpfsOf reads the --tmpfs flags: PATH[:OPTIONS].
func tmpfsOf(flags []string) map[string]string {
	if len(flags) == 0 {
		return nil
	}
	all := map[string]string{}
	for _, v := range flags {
		path, options, _ := strings.Cut(v, ":")
		all[path] = options
	}
	return all
}
