package cgroup

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hugetlb compiles the limits of huge pages: of their use and, where the kernel
// counts it (since 5.7), of their reservation, so that a program fails at mmap
// and is not killed by SIGBUS later.
func (c *compiler) hugetlb(limits []specs.LinuxHugepageLimit) {
	for _, l := range limits {
		const field = "hugepageLimits"
		if !isPageSize(l.Pagesize) {
			c.invalid(field, strconv.Quote(l.Pagesize), "not a page size like 2MB or 1GB")
			return
		}
		file := ".limit_in_bytes"
		switch c.version("hugetlb", field) {
		case 0:
			return
		case 2:
			file = ".max"
		}
		v, prefix := strconv.FormatUint(l.Limit, 10), "hugetlb."+l.Pagesize
		c.add(setting{controller: "hugetlb", field: field, file: prefix + file, value: v})
		c.add(setting{controller: "hugetlb", field: field, file: prefix + ".rsvd" + file, value: v, optional: true})
	}
}

// isPageSize accepts digits and KB, MB or GB: the value becomes part of a file name.
func isPageSize(s string) bool {
	digits := strings.TrimRight(s, "KMGB")
	unit := s[len(digits):]
	_, err := strconv.ParseUint(digits, 10, 64)
	return err == nil && (unit == "KB" || unit == "MB" || unit == "GB")
}
