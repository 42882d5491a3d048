package cgroup

import "strconv"

// pids compiles the limit of tasks. The spec's -1 is no limit. Its 0 becomes 1:
// the only task of a group of 0 would be the container's first, which is there by
// migration on v1 and could not be cloned into the group on v2; as with 0 nothing
// can be forked. Runc does the same.
func (c *compiler) pids(n int64) {
	if c.version("pids", "pids.limit") == 0 {
		return
	}
	v := "max"
	if n >= 0 {
		v = strconv.FormatInt(max(n, 1), 10)
	}
	c.add(setting{controller: "pids", field: "pids.limit", file: "pids.max", value: v})
}
