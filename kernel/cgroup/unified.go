package cgroup

import (
	"maps"
	"slices"
	"strings"
)

// unified compiles linux.resources.unified: cgroup v2 files and their values,
// written last, in the order of their names. A value of several lines is written
// line by line. Core files ("cgroup.…") that move, kill or freeze processes or
// change what the cgroup is are not limits and are refused.
func (c *compiler) unified(files map[string]string) {
	if len(files) == 0 {
		return
	}
	if c.g.mode != Unified {
		c.unsupported("unified", "needs cgroup v2, this host is "+c.g.mode.String())
		return
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		field := "unified." + file
		controller, _, ok := strings.Cut(file, ".")
		if !ok || controller == "" || strings.ContainsAny(file, "/\x00") {
			c.invalid("unified", file, "not the name of a control file")
			return
		}
		if controller == "cgroup" {
			if !slices.Contains(coreLimits, file) {
				c.unsupported(field, "not a limit")
				return
			}
		} else if c.version(controller, field) == 0 {
			return
		}
		if files[file] == "" {
			c.invalid(field, `""`, "no value")
		}
		for line := range strings.Lines(files[file]) {
			c.add(setting{controller: controllerOf(controller), field: field, file: file, value: strings.TrimSuffix(line, "\n")})
		}
	}
}

// coreLimits are the core files, v2 kernel doc "Core Interface Files", that set a limit.
var coreLimits = []string{"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"}

// controllerOf maps the core to an ability that every v2 branch has.
func controllerOf(prefix string) string {
	if prefix == "cgroup" {
		return "freezer"
	}
	return prefix
}
