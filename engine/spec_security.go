package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unconfined switches a protection off by name; builtin asks for the default.
const (
	unconfined = "unconfined"
	builtin    = "builtin"
)

// securityOptions is HostConfig.SecurityOpt, read.
type securityOptions struct {
	noNewPrivileges bool
	// seccomp is the profile's JSON, unconfined, builtin, or empty for the
	// default.
	seccomp string
	// appArmor is a profile's name, unconfined, or empty for the default.
	appArmor string
	// writableCgroups lets the container make cgroups below its own.
	writableCgroups bool
	// labels are the SELinux label options.
	labels []string
}

// parseSecurityOpt reads the options. What would weaken or strengthen the
// container but is not done is refused.
func parseSecurityOpt(opts []string, h *hostFacts) (securityOptions, error) {
	var s securityOptions
	for _, opt := range opts {
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			key, value, ok = strings.Cut(opt, ":")
		}
		switch {
		case key == "no-new-privileges", key == "writable-cgroups":
			on := !ok || value == "true"
			if ok && value != "true" && value != "false" {
				return s, badSecurityOpt(opt)
			}
			if key == "writable-cgroups" {
				s.writableCgroups = on
			} else {
				s.noNewPrivileges = on
			}
		case !ok:
			return s, badSecurityOpt(opt)
		case key == "seccomp":
			s.seccomp = value
		case key == "apparmor":
			s.appArmor = value
		case key == "label":
			if err := s.addLabel(opt, value); err != nil {
				return s, err
			}
		default:
			return s, badSecurityOpt(opt)
		}
	}
	if err := s.checkAppArmor(h); err != nil {
		return s, err
	}
	return s, s.checkSeccomp(h)
}

// addLabel takes a label option: disable, or type, level, user, role or
// filetype with a value.
func (s *securityOptions) addLabel(opt, value string) error {
	if value == "disable" {
		s.labels = append(s.labels, value)
		return nil
	}
	part, text, ok := strings.Cut(value, ":")
	if !ok || text == "" || !slices.Contains([]string{"type", "level", "user", "role", "filetype"}, part) {
		return badSecurityOpt(opt)
	}
	s.labels = append(s.labels, value)
	return nil
}

func badSecurityOpt(opt string) error {
	return invalidf("invalid --security-opt: %q", opt)
}

// checkSeccomp refuses a profile that cannot be read, so that create fails and
// not the start.
func (s *securityOptions) checkSeccomp(h *hostFacts) error {
	if s.seccomp == "" || s.seccomp == unconfined {
		return nil
	}
	if s.seccomp == builtin && h.seccomp {
		return nil
	}
	if !h.seccomp {
		return errUnsupported("a seccomp profile on a kernel without seccomp")
	}
	_, err := loadSeccomp(s.seccomp, defaultCaps)
	return err
}

func loadSeccomp(profile string, bounding []string) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.LoadProfile(profile, capsSpec(bounding))
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("seccomp profile: %w", err))
	}
	return p, nil
}

// capsSpec is the part of a spec the profile's conditions look at.
func capsSpec(bounding []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}}}
}

// seccompProfile picks the filter: none when unconfined, when privileged and
// nothing else is said, or when the kernel has none; else the given or the
// default profile with its conditions on capabilities resolved.
func seccompProfile(s *specs.Spec, sec *securityOptions, privileged bool, h *hostFacts) (*specs.LinuxSeccomp, error) {
	bounding := s.Process.Capabilities.Bounding
	switch {
	case sec.seccomp == unconfined || privileged && sec.seccomp == "" || !h.seccomp:
		return nil, nil
	case sec.seccomp != "" && sec.seccomp != builtin:
		return loadSeccomp(sec.seccomp, bounding)
	}
	p, err := seccomp.GetDefaultProfile(capsSpec(bounding))
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return p, nil
}
