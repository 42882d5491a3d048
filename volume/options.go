package volume

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// needs are the options of the local driver, with those each does not make
// sense without.
var needs = map[string][]string{"type": {"device"}, "device": {"type"}, "o": {"type", "device"}}

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
			return errdefs.WithHint(invalidf("create %s: invalid option: %q", opt.Name, name), "the local driver has type, device and o")
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
	if opt.Options["type"] != "cifs" {
		return nil
	}
	if u, err := url.Parse(opt.Options["device"]); err != nil || u.Port() != "" {
		return errdefs.WithHint(invalidf("create %s: the device of a cifs volume is //HOST/SHARE", opt.Name), "give the port with o=port=N")
	}
	return nil
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
