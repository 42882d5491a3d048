package main

import (
	"fmt"
	"slices"

	"github.com/berth-containers/berth/image"
	"github.com/docker/go-units"
)

// imageConfig is the section [image]: how images are kept.
type imageConfig struct {
	// Snapshotter is how layers are kept and stacked: overlayfs, erofs, native.
	Snapshotter string `toml:"snapshotter"`
	// MaxLayerSize is what a layer may unpack to, such as 100g.
	MaxLayerSize string `toml:"max-layer-size"`
	// MaxLayerFiles is how many files a layer may have.
	MaxLayerFiles int64 `toml:"max-layer-files"`
}

func imageDefaults() imageConfig {
	return imageConfig{MaxLayerSize: "100g", MaxLayerFiles: 4_000_000}
}

func (c *imageConfig) check() error {
	if !slices.Contains([]string{"", image.SnapshotterOverlay, image.SnapshotterErofs, image.SnapshotterNative}, c.Snapshotter) {
		return fmt.Errorf("image.snapshotter %q: want overlayfs, erofs or native", c.Snapshotter)
	}
	size, err := units.RAMInBytes(c.MaxLayerSize)
	if err != nil {
		return fmt.Errorf("image.max-layer-size: %w", err)
	}
	if size <= 0 {
		return fmt.Errorf("image.max-layer-size %q: want a size above 0, such as 100g", c.MaxLayerSize)
	}
	if c.MaxLayerFiles <= 0 {
		return fmt.Errorf("image.max-layer-files %d: want a number above 0", c.MaxLayerFiles)
	}
	return nil
}
