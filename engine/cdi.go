package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// cdiDriver is the driver of a device request whose ids are CDI names, as
// Docker's command line makes of --device vendor.com/class=name.
const cdiDriver = "cdi"

// cdiDirs are where CDI specifications are looked for; what a later one
// describes goes before the same of an earlier one.
var cdiDirs = []string{"/etc/cdi", "/var/run/cdi"}

// hookTimeout is the seconds a device's hook gets that names no timeout: a start
// and an end wait for hooks, and must not wait for ever.
const hookTimeout = 60

// cdiRegistry reads CDI specifications (Container Device Interface): files in
// which a device's vendor says what a container needs to use it.
type cdiRegistry struct{ dirs []string }

// load reads the specifications as they are now. They are read anew each time:
// few containers ask, and drivers rewrite them.
func (r cdiRegistry) load() (*cdi.Cache, error) {
	return cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(r.dirs...))
}

// resolve turns device requests into the names of CDI devices, and makes sure
// that each is described.
func (r cdiRegistry) resolve(requests []container.DeviceRequest) ([]string, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	cache, err := r.load()
	if err != nil {
		return nil, fmt.Errorf("read CDI specifications: %w", err)
	}
	var names []string
	for i := range requests {
		list, err := requestedNames(&requests[i], cache)
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			if !parser.IsQualifiedName(name) {
				return nil, errdefs.WithHint(invalidf("invalid CDI device name %q", name), "a name is vendor.com/class=name")
			}
			if cache.GetDevice(name) == nil {
				return nil, r.unknown(name, cache)
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// unknown is the error for a device that no specification describes.
func (r cdiRegistry) unknown(name string, cache *cdi.Cache) error {
	hint := "no device is described in " + strings.Join(r.dirs, " or ") + "; a driver's own tool writes specifications (nvidia-ctk cdi generate)"
	if known := cache.ListDevices(); len(known) > 0 {
		hint = "described are " + strings.Join(known, ", ")
	}
	for path, errs := range cache.GetErrors() {
		if len(errs) > 0 {
			hint += fmt.Sprintf("; %s cannot be used: %v", path, errs[0])
		}
	}
	return errdefs.WithHint(invalidf("CDI device %s is not described on this host", name), hint)
}

// requestedNames are the CDI names of a request: its own, or those of the GPUs
// that --gpus asks for.
func requestedNames(q *container.DeviceRequest, cache *cdi.Cache) ([]string, error) {
	if q.Driver == cdiDriver {
		if q.Count != 0 {
			return nil, invalidf("device request for CDI devices: a count (%d) means nothing, name the devices", q.Count)
		}
		return q.DeviceIDs, nil
	}
	if !slices.ContainsFunc(q.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") }) {
		return nil, errUnsupported(fmt.Sprintf("a device request of driver %q for capabilities %v", q.Driver, q.Capabilities))
	}
	if q.Count != 0 && len(q.DeviceIDs) > 0 {
		return nil, invalidf("cannot set both Count and DeviceIDs on device request")
	}
	kind, err := gpuKind(q.Driver, cache)
	if err != nil {
		return nil, err
	}
	ids := q.DeviceIDs
	if q.Count < 0 {
		ids = []string{"all"}
	}
	for i := range max(q.Count, 0) {
		ids = append(ids, strconv.Itoa(i))
	}
	var names []string
	for _, id := range ids {
		names = append(names, kind+"="+id)
	}
	return names, nil
}

// gpuKind is the vendor and class of GPUs: by the driver's name, or NVIDIA's, or
// where there is none the only one that is described.
func gpuKind(driver string, cache *cdi.Cache) (string, error) {
	if driver != "" {
		return driver + ".com/gpu", nil
	}
	var kinds []string
	for _, name := range cache.ListDevices() {
		if kind, _, _ := strings.Cut(name, "="); strings.HasSuffix(kind, "/gpu") && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	switch {
	case len(kinds) == 1:
		return kinds[0], nil
	case len(kinds) == 0 || slices.Contains(kinds, "nvidia.com/gpu"):
		return "nvidia.com/gpu", nil
	}
	return "", errdefs.WithHint(invalidf("GPUs of several kinds are described: %s", strings.Join(kinds, ", ")),
		"say which by --gpus driver=VENDOR, or name devices by --device vendor.com/gpu=name")
}

// inject puts into the spec what the devices need.
func (r cdiRegistry) inject(s *specs.Spec, names []string) error {
	if len(names) == 0 {
		return nil
	}
	cache, err := r.load()
	if err != nil {
		return fmt.Errorf("read CDI specifications: %w", err)
	}
	if _, err := cache.InjectDevices(s, names...); err != nil {
		return fmt.Errorf("CDI devices: %w", errdefs.As(errdefs.ErrInvalid, err))
	}
	limitHooks(s.Hooks)
	bindNodes(s, cache, names)
	return nil
}

// bindNodes shows the host's nodes to a container with a user namespace, in which
// none can be made. What the spec lists then are those of CDI devices alone.
func bindNodes(s *specs.Spec, cache *cdi.Cache, names []string) {
	if len(s.Linux.UIDMappings) == 0 {
		return
	}
	host := map[string]string{}
	for _, name := range names {
		d := cache.GetDevice(name)
		for _, n := range slices.Concat(d.GetSpec().ContainerEdits.DeviceNodes, d.ContainerEdits.DeviceNodes) {
			host[n.Path] = firstNonEmpty(n.HostPath, n.Path)
		}
	}
	for _, node := range s.Linux.Devices {
		s.Mounts = append(s.Mounts, boundNode(node.Path, firstNonEmpty(host[node.Path], node.Path)))
	}
	s.Linux.Devices = nil
}

// limitHooks gives hooks that name no timeout one.
func limitHooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	seconds := hookTimeout
	//lint:ignore SA1019 deprecated, and still in use
	for _, list := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} {
		for i := range list {
			if list[i].Timeout == nil {
				list[i].Timeout = &seconds
			}
		}
	}
}

// writeBundle makes the container's directory what hooks take it for: a bundle
// with its configuration, and a place for its root.
func (c *ctr) writeBundle(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	if err := os.Mkdir(filepath.Join(c.dir, s.Root.Path), 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	config, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, "config.json")
	if err := writeFileAtomic(path, config, 0o600); err != nil || len(s.Linux.UIDMappings) == 0 {
		return err
	}
	// The container's root, whose ids are others, passes through to the place of its
	// root directory, and its hooks read the configuration. What else is in the
	// directory is shut by its own mode.
	err = os.Chown(path, int(s.Linux.UIDMappings[0].HostID), int(s.Linux.GIDMappings[0].HostID))
	return errors.Join(err, os.Chmod(c.dir, 0o711))
}

// describe fills in what Info says of CDI.
func (r cdiRegistry) describe(info *system.Info) {
	info.CDISpecDirs = append([]string{}, r.dirs...)
	cache, err := r.load()
	if err != nil {
		info.Warnings = append(info.Warnings, fmt.Sprintf("read CDI specifications: %v", err))
		return
	}
	for _, name := range cache.ListDevices() {
		info.DiscoveredDevices = append(info.DiscoveredDevices, system.DeviceInfo{Source: cdiDriver, ID: name})
	}
	for path, errs := range cache.GetErrors() {
		for _, err := range errs {
			info.Warnings = append(info.Warnings, fmt.Sprintf("CDI specification %s: %v", path, err))
		}
	}
}
