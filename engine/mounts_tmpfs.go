package engine

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// tmpfsMount is one --tmpfs or --mount type=tmpfs.
type tmpfsMount struct {
	Destination string
	// Options are mount(8) options, later ones winning over earlier ones.
	Options []string
}

// tmpfsDefaults are the options of a tmpfs nobody said anything about.
var tmpfsDefaults = []string{"noexec", "nosuid", "nodev"}

// tmpfsMounts collects the tmpfs mounts, sorted by destination.
func tmpfsMounts(hc *container.HostConfig) ([]tmpfsMount, error) {
	var list []tmpfsMount
	for dest, opts := range hc.Tmpfs {
		clean, err := cleanDestination(dest)
		if err != nil {
			return nil, fmt.Errorf("invalid tmpfs: %w", errdefs.As(errdefs.ErrInvalid, err))
		}
		merged, err := mergeTmpfsOptions(strings.Split(opts, ","))
		if err != nil {
			return nil, fmt.Errorf("tmpfs %s: %w", dest, err)
		}
		list = append(list, tmpfsMount{Destination: clean, Options: merged})
	}
	for i := range hc.Mounts {
		if hc.Mounts[i].Type != mount.TypeTmpfs {
			continue
		}
		m, err := tmpfsFromSpec(&hc.Mounts[i])
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b tmpfsMount) int { return strings.Compare(a.Destination, b.Destination) })
	return list, nil
}

// tmpfsFromSpec reads one --mount type=tmpfs.
func tmpfsFromSpec(spec *mount.Mount) (tmpfsMount, error) {
	dest, err := cleanDestination(spec.Target)
	if err != nil {
		return tmpfsMount{}, fmt.Errorf("invalid mount config for type \"tmpfs\": %w", errdefs.As(errdefs.ErrInvalid, err))
	}
	if spec.Source != "" {
		return tmpfsMount{}, invalidf("invalid mount config for type \"tmpfs\": source must not be set")
	}
	var opts []string
	if spec.ReadOnly {
		opts = append(opts, "ro")
	}
	if o := spec.TmpfsOptions; o != nil {
		if o.Mode != 0 {
			opts = append(opts, "mode="+modeOption(o.Mode))
		}
		if o.SizeBytes > 0 {
			opts = append(opts, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		for _, kv := range o.Options {
			opts = append(opts, strings.Join(kv, "="))
		}
	}
	merged, err := mergeTmpfsOptions(opts)
	if err != nil {
		return tmpfsMount{}, fmt.Errorf("tmpfs %s: %w", dest, err)
	}
	return tmpfsMount{Destination: dest, Options: merged}, nil
}

// modeOption writes a mode as tmpfs' mode= option wants it. The API carries
// the plain number (01777), so the sticky bit comes as that bit, not as Go's.
func modeOption(m os.FileMode) string { return fmt.Sprintf("%o", uint32(m)&0o7777) }

// tmpfsFlags are the options of which the last one said wins.
var tmpfsFlags = map[string]string{
	"noexec": "exec", "exec": "exec", "nosuid": "suid", "suid": "suid", "nodev": "dev", "dev": "dev",
	"ro": "rw", "rw": "rw", "sync": "sync", "async": "sync", "dirsync": "dirsync",
	"atime": "atime", "noatime": "atime", "diratime": "diratime", "nodiratime": "diratime",
	"relatime": "relatime", "norelatime": "relatime", "strictatime": "strictatime", "nostrictatime": "strictatime",
	"private": "propagation", "rprivate": "propagation", "shared": "propagation", "rshared": "propagation",
	"slave": "propagation", "rslave": "propagation", "bind": "bind", "rbind": "bind",
}

// tmpfsValues are the options with a value.
var tmpfsValues = map[string]bool{
	"size": true, "mode": true, "uid": true, "gid": true, "nr_inodes": true, "nr_blocks": true, "mpol": true,
}

// mergeTmpfsOptions puts opts over the defaults and refuses what tmpfs does
// not know.
func mergeTmpfsOptions(opts []string) ([]string, error) {
	all := append(slices.Clone(tmpfsDefaults), opts...)
	var merged []string
	seen := map[string]bool{}
	for _, opt := range slices.Backward(all) {
		if opt == "" {
			continue
		}
		key, _, hasValue := strings.Cut(opt, "=")
		group := tmpfsFlags[key]
		if hasValue && tmpfsValues[key] {
			group = key
		} else if hasValue || group == "" {
			return nil, invalidf("invalid tmpfs option %q", opt)
		}
		if !seen[group] {
			seen[group] = true
			merged = append(merged, opt)
		}
	}
	slices.Reverse(merged)
	return merged, nil
}
