package resctrl

import (
	"fmt"
	"strings"

	"github.com/berth-containers/berth/errdefs"
)

// share names one number of a class: "L3:0" is the part of the first third-level
// cache.
type share struct{ resource, domain string }

// compare checks that a class that is there already has the shares a container
// wants, however the kernel spells them.
func compare(want []string, have string) error {
	existing := shares(strings.Split(have, "\n"))
	for k, v := range shares(want) {
		if got, ok := existing[k]; !ok || got != v {
			return errdefs.As(errdefs.ErrConflict, fmt.Errorf("%s:%s=%s: the class of service is there already, with %q", k.resource, k.domain, v, got))
		}
	}
	return nil
}

// shares reads lines of the form "L3:0=ff;1=c0".
func shares(lines []string) map[share]string {
	all := map[share]string{}
	for _, line := range lines {
		resource, list, _ := strings.Cut(strings.TrimSpace(line), ":")
		if resource == "" {
			continue
		}
		for _, part := range strings.Split(list, ";") {
			domain, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			all[share{resource, number(domain)}] = number(value)
		}
	}
	return all
}

// number is a number without what does not count: leading zeros, the case of
// its digits.
func number(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if cut := strings.TrimLeft(s, "0"); cut != "" {
		return cut
	}
	return s[max(0, len(s)-1):]
}
