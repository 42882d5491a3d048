package docker

import (
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// This file adds what older API versions had and the current types have no
// more. The version history is docs/CHANGELOG.md of moby/moby/api.

// container51 is a container's description up to API 1.51: the addresses of
// the default bridge are repeated beside the networks.
type container51 struct {
	*container.InspectResponse
	NetworkSettings *network51
}

// network51 is NetworkSettings with the fields removed in 1.52.
type network51 struct {
	*container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
}

// containerBefore52 returns the shape of a container for clients before 1.52.
func containerBefore52(c *container.InspectResponse) any {
	if c.NetworkSettings == nil {
		return c
	}
	settings := &network51{NetworkSettings: c.NetworkSettings}
	if bridge := c.NetworkSettings.Networks[network.NetworkBridge]; bridge != nil {
		settings.EndpointID = bridge.EndpointID
		settings.MacAddress = bridge.MacAddress.String()
		settings.IPPrefixLen = bridge.IPPrefixLen
		settings.GlobalIPv6PrefixLen = bridge.GlobalIPv6PrefixLen
		if bridge.Gateway.IsValid() {
			settings.Gateway = bridge.Gateway.String()
		}
		if bridge.IPAddress.IsValid() {
			settings.IPAddress = bridge.IPAddress.String()
		}
		if bridge.GlobalIPv6Address.IsValid() {
			settings.GlobalIPv6Address = bridge.GlobalIPv6Address.String()
		}
		if bridge.IPv6Gateway.IsValid() {
			settings.IPv6Gateway = bridge.IPv6Gateway.String()
		}
	}
	return container51{InspectResponse: c, NetworkSettings: settings}
}

// image51 is an image's description up to API 1.51: these fields were present
// even when empty.
type image51 struct {
	*image.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	VirtualSize   int64 `json:",omitempty"` // up to 1.43
}

// imageBefore52 returns the shape of an image for clients before 1.52.
func imageBefore52(i *image.InspectResponse, v version) any {
	old := image51{InspectResponse: i, Comment: i.Comment, Author: i.Author}
	if v < 44 {
		old.VirtualSize = i.Size
	}
	return old
}

// image43 is an image's line in a list up to API 1.43.
type image43 struct {
	image.Summary
	VirtualSize int64
}

// imagesFor returns the shape of an image list.
func imagesFor(v version, list []image.Summary) any {
	if list == nil {
		list = []image.Summary{}
	}
	if v >= 44 {
		return list
	}
	old := make([]image43, len(list))
	for i, img := range list {
		old[i] = image43{Summary: img, VirtualSize: img.Size}
	}
	return old
}

// event51 is an event up to API 1.51, with the fields from before 1.22.
type event51 struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// eventFor returns the shape of an event.
func eventFor(v version, e events.Message) any {
	if v >= 52 {
		return e
	}
	old := event51{Message: e}
	switch e.Type {
	case events.ContainerEventType:
		old.Status, old.ID, old.From = string(e.Action), e.Actor.ID, e.Actor.Attributes["image"]
	case events.ImageEventType:
		old.Status, old.ID = string(e.Action), e.Actor.ID
	}
	return old
}

// usage52 is the disk usage up to API 1.52, which has both shapes.
type usage52 struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
	*system.DiskUsage
}

// usageFor returns the shape of the disk usage; verbose keeps the items.
func usageFor(v version, u *system.DiskUsage, verbose bool) any {
	old := usage52{Images: []image.Summary{}, Containers: []container.Summary{}, Volumes: []volume.Volume{}, BuildCache: []build.CacheRecord{}}
	if v < 53 {
		if u.ImageUsage != nil {
			old.LayersSize = u.ImageUsage.TotalSize
			old.Images = append(old.Images, u.ImageUsage.Items...)
		}
		if u.ContainerUsage != nil {
			old.Containers = append(old.Containers, u.ContainerUsage.Items...)
		}
		if u.VolumeUsage != nil {
			old.Volumes = append(old.Volumes, u.VolumeUsage.Items...)
		}
		if v < 52 {
			return old
		}
	}
	brief := *u
	if !verbose {
		brief = withoutItems(brief)
	}
	if v == 52 && !verbose {
		old.DiskUsage = &brief
		return old
	}
	return brief
}

// withoutItems drops the lists from a disk usage and keeps the sums.
func withoutItems(u system.DiskUsage) system.DiskUsage {
	if u.ImageUsage != nil {
		images := *u.ImageUsage
		images.Items = nil
		u.ImageUsage = &images
	}
	if u.ContainerUsage != nil {
		containers := *u.ContainerUsage
		containers.Items = nil
		u.ContainerUsage = &containers
	}
	if u.VolumeUsage != nil {
		volumes := *u.VolumeUsage
		volumes.Items = nil
		u.VolumeUsage = &volumes
	}
	if u.BuildCacheUsage != nil {
		cache := *u.BuildCacheUsage
		cache.Items = nil
		u.BuildCacheUsage = &cache
	}
	return u
}
