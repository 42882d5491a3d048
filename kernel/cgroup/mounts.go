package cgroup

import (
	"path"
	"strings"
)

// Mount is one part of what a container sees at /sys/fs/cgroup.
//
// On a unified host it is the only one, with Name "": the cgroup2 filesystem (in
// a cgroup namespace) or a bind mount of Source is mounted on /sys/fs/cgroup
// itself. On the others a tmpfs is mounted there and each Mount on a directory
// Name in it, in their order, with the Links beside it.
type Mount struct {
	// Name is the directory below /sys/fs/cgroup: "cpu,cpuacct", "systemd",
	// "unified"; "" for /sys/fs/cgroup itself.
	Name string
	// Source is the group's own directory on the host, for a bind mount.
	Source string
	// FSType is "cgroup" or "cgroup2", and Options the data of mount(2)
	// ("cpu,cpuacct", "name=systemd", ""), for mounting the hierarchy anew in a
	// cgroup namespace, where its root is the group.
	FSType, Options string
	// Links are symbolic links to Name: "cpu" and "cpuacct" for "cpu,cpuacct".
	Links []string
}

// Mounts returns what a container's mount of type cgroup consists of.
func (g *Group) Mounts() []Mount {
	mounts := make([]Mount, 0, len(g.branches))
	for i := range g.branches {
		b := &g.branches[i]
		m := Mount{Name: path.Base(b.mount), Source: b.dir, FSType: "cgroup", Options: b.name()}
		if b.v2 {
			m.FSType = "cgroup2"
		}
		if g.mode == Unified {
			m.Name = ""
		}
		for _, c := range b.controllers {
			if link := strings.TrimPrefix(c, "name="); !b.v2 && link != m.Name {
				m.Links = append(m.Links, link)
			}
		}
		mounts = append(mounts, m)
	}
	return mounts
}
