package engine

import (
	"fmt"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unconfined switches a protection off by name.
const unconfined = "unconfined"

// securityOptions is HostConfig.SecurityOpt, read.
type securityOptions struct {
	noNewPrivileges bool
	// seccomp is the profile's JSON, unconfined, or empty for the default.
	seccomp string
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
		case key == "no-new-privileges":
			s.noNewPrivileges = !ok || value == "true"
			if ok && value != "true" && value != "false" {
				return s, badSecurityOpt(opt)
			}
		case !ok:
			return s, badSecurityOpt(opt)
		case key == "seccomp":
			s.seccomp = value
		case key == "apparmor":
			if value != unconfined {
				return s, errUnsupported("--security-opt apparmor=" + value)
			}
		case key == "label" && value == "disable":
			// No labels are set anyway.
		case key == "label", key == "writable-cgroups":
			return s, errUnsupported("--security-opt " + key)
		default:
			return s, badSecurityOpt(opt)
		}
	}
	return s, s.checkSeccomp(h)
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
	case sec.seccomp != "":
		return loadSeccomp(sec.seccomp, bounding)
	}
	p, err := seccomp.GetDefaultProfile(capsSpec(bounding))
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return p, nil
}
