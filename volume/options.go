package volume

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
)

// needs are the options of the local driver, with those each does not make
// sense without.
var needs = map[string][]string{"type": {"device"}, "device": {"type"}, "o": {"type", "device"}, "size": nil}

// check refuses what cannot be made.
func check(opt *CreateOptions) error {
	if err := CheckName(opt.Name); err != nil {
		return err
	}
	if opt.Driver != "" && opt.Driver != DriverLocal {
		err := errdefs.As(errdefs.ErrNotFound, fmt.Errorf("error looking up volume plugin %s: plugin %q not found", opt.Driver, opt.Driver))
		return errdefs.WithHint(err, "there is one driver, local")
	}
	for name, value := range opt.Options {
		others, known := needs[name]
		if !known {
			return errdefs.WithHint(invalidf("create %s: invalid option: %q", opt.Name, name), "the local driver has type, device, o and size")
		}
		for _, other := range others {
			if opt.Options[other] == "" {
				return invalidf("create %s: missing required option: %q", opt.Name, other)
			}
		}
		if strings.ContainsRune(value, 0) {
			return invalidf("create %s: option %q has a NUL character", opt.Name, name)
		}
	}
	if err := checkSize(opt); err != nil {
		return err
	}
	if opt.Options["type"] != "cifs" {
		return nil
	}
	if u, err := url.Parse(opt.Options["device"]); err != nil || u.Port() != "" {
		return errdefs.WithHint(invalidf("create %s: the device of a cifs volume is //HOST/SHARE", opt.Name), "give the port with o=port=N")
	}
	return nil
}

// sizeLeast is the least a volume can be limited to.
const sizeLeast = 64 << 10

// checkSize checks the option size, which limits what a volume of the store's own
// file system may take.
func checkSize(opt *CreateOptions) error {
	text, given := opt.Options["size"]
	if !given {
		return nil
	}
	size, err := units.RAMInBytes(text)
	switch {
	case err != nil || size < sizeLeast:
		return errdefs.WithHint(invalidf("create %s: invalid option size=%s", opt.Name, text), "want a size such as 10g, at least 64k")
	case opt.Options["type"] != "":
		return errdefs.WithHint(invalidf("create %s: the option size is for volumes that are no file system of their own", opt.Name),
			"leave out type, device and o; a tmpfs has o=size=N")
	}
	return nil
}

// size is the limit in bytes, 0 is none.
func (v *Volume) size() int64 {
	size, err := units.RAMInBytes(v.Options["size"])
	if err != nil || v.mounts() {
		return 0
	}
	return size
}

// source is what is mounted: the device and the options, with the server's
// name in place of which the kernel wants an address.
func source(opts map[string]string, resolve func(host string) (string, error)) (device, options string, err error) {
	device, options = opts["device"], opts["o"]
	if opts["type"] != "nfs" && opts["type"] != "nfs4" && opts["type"] != "cifs" {
		return device, options, nil
	}
	fields := strings.Split(options, ",")
	for i, f := range fields {
		host, isAddr := strings.CutPrefix(f, "addr=")
		if !isAddr || net.ParseIP(host) != nil {
			continue
		}
		addr, err := resolve(host)
		if err != nil {
			return "", "", err
		}
		fields[i] = "addr=" + addr
	}
	options = strings.Join(fields, ",")
	if opts["type"] != "cifs" || strings.Contains(options, "addr=") {
		return device, options, nil
	}
	host, share, _ := strings.Cut(strings.TrimPrefix(device, "//"), "/")
	if net.ParseIP(host) != nil {
		return device, options, nil
	}
	addr, err := resolve(host)
	return "//" + addr + "/" + share, options, err
}

func resolveHost(host string) (string, error) {
	addr, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return "", fmt.Errorf("resolve the address of the volume's server: %w", err)
	}
	return addr.String(), nil
}

// withoutPassword hides a password among mount options: errors show them.
func withoutPassword(text, options string) string {
	for _, f := range strings.Split(options, ",") {
		if secret, ok := strings.CutPrefix(f, "password="); ok && secret != "" {
			text = strings.ReplaceAll(text, secret, "********")
		}
	}
	return text
}
