package engine

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// mergeConfig completes a request with the image's config, by Docker's rules:
// what the request says wins, Env, Labels, ExposedPorts and Volumes are joined
// per key, and the image's Cmd is only used when the request gives neither
// entrypoint nor command. req is not changed.
func mergeConfig(req *container.Config, img *dockerspec.DockerOCIImageConfig) (*container.Config, error) {
	cfg := *req
	cfg.User = firstNonEmpty(req.User, img.User)
	cfg.WorkingDir = firstNonEmpty(req.WorkingDir, img.WorkingDir)
	cfg.StopSignal = firstNonEmpty(req.StopSignal, img.StopSignal)
	cfg.Env = mergeEnv(req.Env, img.Env)
	cfg.Labels = maps.Clone(img.Labels)
	if cfg.Labels == nil {
		cfg.Labels = map[string]string{}
	}
	maps.Copy(cfg.Labels, req.Labels)
	cfg.Volumes = mergeSet(req.Volumes, img.Volumes)
	ports, err := mergePorts(req.ExposedPorts, img.ExposedPorts)
	if err != nil {
		return nil, err
	}
	cfg.ExposedPorts = ports
	cfg.Healthcheck = mergeHealth(req.Healthcheck, img.Healthcheck)
	cfg.Entrypoint, cfg.Cmd = mergeCommand(req, img)
	if len(cfg.Shell) == 0 {
		cfg.Shell = slices.Clone(img.Shell)
	}
	return &cfg, nil
}

// mergeCommand picks entrypoint and command. An entrypoint given in the
// request makes the image's command meaningless; [""] clears the image's
// entrypoint and nothing else.
func mergeCommand(req *container.Config, img *dockerspec.DockerOCIImageConfig) (entrypoint, cmd []string) {
	entrypoint, cmd = req.Entrypoint, req.Cmd
	if len(entrypoint) == 0 {
		if len(cmd) == 0 {
			cmd = img.Cmd
		}
		if entrypoint == nil {
			entrypoint = img.Entrypoint
		}
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}
	return slices.Clone(entrypoint), slices.Clone(cmd)
}

// mergeEnv keeps the request's variables, first, and adds the image's that it
// does not set.
func mergeEnv(req, img []string) []string {
	env := slices.Clone(req)
	set := map[string]bool{}
	for _, kv := range req {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	for _, kv := range img {
		if k, _, _ := strings.Cut(kv, "="); !set[k] {
			env = append(env, kv)
		}
	}
	return env
}

// mergeSet joins two sets; nil when both are empty.
func mergeSet(a, b map[string]struct{}) map[string]struct{} {
	if len(a)+len(b) == 0 {
		return nil
	}
	set := maps.Clone(b)
	if set == nil {
		set = map[string]struct{}{}
	}
	maps.Copy(set, a)
	return set
}

// mergePorts joins the request's exposed ports with the image's.
func mergePorts(req network.PortSet, img map[string]struct{}) (network.PortSet, error) {
	if len(req)+len(img) == 0 {
		return nil, nil
	}
	ports := maps.Clone(req)
	if ports == nil {
		ports = network.PortSet{}
	}
	for s := range img {
		r, err := network.ParsePortRange(s)
		if err != nil {
			return nil, fmt.Errorf("image exposes port %q: %w", s, errdefs.As(errdefs.ErrInvalid, err))
		}
		for p := range r.All() {
			ports[p] = struct{}{}
		}
	}
	return ports, nil
}

// commandLine joins entrypoint and command to what is executed.
func commandLine(cfg *container.Config) (file string, args []string, err error) {
	all := append(slices.Clone([]string(cfg.Entrypoint)), cfg.Cmd...)
	if len(all) == 0 || all[0] == "" {
		return "", nil, errdefs.WithHint(invalidf("no command specified"),
			"the image has no entrypoint or command; give one after the image's name")
	}
	return all[0], all[1:], nil
}

// cleanWorkingDir checks and normalizes the working directory.
func cleanWorkingDir(cfg *container.Config) error {
	if cfg.WorkingDir == "" {
		return nil
	}
	if !path.IsAbs(cfg.WorkingDir) {
		return invalidf("working directory %q is not an absolute path", cfg.WorkingDir)
	}
	cfg.WorkingDir = path.Clean(cfg.WorkingDir)
	return nil
}

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
