package engine

import (
	"github.com/berth-containers/berth/image"
	imagetypes "github.com/moby/moby/api/types/image"
)

// imageManifests describes what an image has on the disk, by platform. An image
// here is for one.
func (e *Engine) imageManifests(img *image.Image) ([]imagetypes.ManifestSummary, error) {
	content, err := e.images.ContentSize(img)
	if err != nil {
		return nil, err
	}
	m := imagetypes.ManifestSummary{
		ID: img.Target.Digest.String(), Descriptor: img.Target, Available: true, Kind: imagetypes.ManifestKindImage,
		ImageData: &imagetypes.ImageProperties{Platform: img.Config.Platform, Containers: []string{}},
	}
	m.Descriptor.Platform = &img.Config.Platform
	m.Size.Content, m.Size.Total = content, content+img.Size
	m.ImageData.Size.Unpacked = img.Size
	for _, user := range e.imageUsers(img.ID) {
		m.ImageData.Containers = append(m.ImageData.Containers, user.ContainerID)
	}
	return []imagetypes.ManifestSummary{m}, nil
}
