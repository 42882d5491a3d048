package render

import (
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
)

// The tables of berth volume ls and of the volumes in berth system df -v.
const (
	VolumeTable          = "{{.Driver}}\t{{.Name}}"
	DiskUsageVolumeTable = "{{.Name}}\t{{.Links}}\t{{.Size}}"
)

// VolumeHeader has the headings of [Volume].
func VolumeHeader() Header {
	return Header{
		"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
		"Links": "LINKS", "Size": "SIZE", "Availability": "AVAILABILITY", "Group": "GROUP", "Status": "STATUS",
	}
}

// Volume is a line of berth volume ls.
type Volume struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string

	labels map[string]string
}

// Label is a label's value.
func (v Volume) Label(name string) string { return v.labels[name] }

// notKnown stands for what was not asked for, or does not apply.
const notKnown = "N/A"

// NewVolume makes a line.
func NewVolume(v *volume.Volume) Volume {
	line := Volume{
		Name: v.Name, Driver: v.Driver, Scope: v.Scope, Mountpoint: v.Mountpoint, Labels: joinMap(v.Labels), labels: v.Labels,
		Links: notKnown, Size: notKnown, Availability: notKnown, Group: notKnown, Status: notKnown,
	}
	if u := v.UsageData; u != nil {
		line.Links = strconv.FormatInt(u.RefCount, 10)
		if u.Size >= 0 {
			line.Size = units.HumanSize(float64(u.Size))
		}
	}
	return line
}
