package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCaps are what Docker gives an unprivileged container.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// allCaps is the word for every capability in CapAdd and CapDrop.
const allCaps = "ALL"

// capabilities works out a container's capabilities. available are those this
// host can give. ALL in add means everything but drop, ALL in drop nothing but
// add.
func capabilities(available, add, drop []string, privileged bool) ([]string, error) {
	add, err := normalizeCaps(available, add)
	if err != nil {
		return nil, fmt.Errorf("cap-add: %w", err)
	}
	drop, err = normalizeCaps(available, drop)
	if err != nil {
		return nil, fmt.Errorf("cap-drop: %w", err)
	}
	var base []string
	switch {
	case privileged:
		return slices.Clone(available), nil
	case slices.Contains(add, allCaps):
		base, add = available, nil
	case slices.Contains(drop, allCaps):
		base, drop = nil, nil
	default:
		base = defaultCaps
	}
	var caps []string
	for _, c := range base {
		if !slices.Contains(drop, c) && slices.Contains(available, c) {
			caps = append(caps, c)
		}
	}
	for _, c := range add {
		if c != allCaps && !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return caps, nil
}

// normalizeCaps writes names as CAP_UPPER and refuses unknown ones.
func normalizeCaps(available, names []string) ([]string, error) {
	var list []string
	for _, name := range names {
		c := strings.ToUpper(name)
		if c != allCaps && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if c != allCaps && !slices.Contains(available, c) {
			err := errdefs.WithHint(invalidf("unknown capability or not available on this host: %q", name), "capabilities(7) lists them; ALL means every one")
			return nil, suggesting(err, c, available)
		}
		list = append(list, c)
	}
	return list, nil
}

// capabilitySets puts caps into the OCI sets. Root gets them permitted and
// effective; another user only has them in its bounding set, to gain by file
// capabilities, as execve would leave it anyway.
func capabilitySets(caps []string, uid uint32) *specs.LinuxCapabilities {
	sets := &specs.LinuxCapabilities{Bounding: caps}
	if uid == 0 {
		sets.Permitted, sets.Effective = caps, caps
	}
	return sets
}
