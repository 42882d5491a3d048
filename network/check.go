package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
)

// idPattern is what may be a file name in our directories: container IDs and
// the names tests and pods use. It admits neither a slash nor a leading dot.
var idPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("invalid container ID %q", id))
	}
	return nil
}

// linkPattern is stricter than the kernel's dev_valid_name: the name is an
// nftables identifier as well.
var linkPattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,14}$`)

func checkLinkName(name string) error {
	if !linkPattern.MatchString(name) {
		return errdefs.As(errdefs.ErrInvalid,
			fmt.Errorf("invalid bridge name %q: up to 15 letters, digits, '-' and '_', first a letter", name))
	}
	return nil
}

// checkSubnet wants IPv4 with room for a gateway and a container.
func checkSubnet(p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is4() || p.Bits() > 30 || p.Bits() < 8 {
		return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("invalid subnet %s: need IPv4 between /8 and /30", p))
	}
	return nil
}

// classify gives the kernel's refusals the class the doors know.
func classify(err error) error {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EPERM) {
		return errdefs.As(errdefs.ErrPermission, err)
	}
	return err
}
