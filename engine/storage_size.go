package engine

import (
	"fmt"
	"maps"

	"github.com/berth-containers/berth/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// storageLeast is the least a container's files can be limited to: overlayfs has
// directories of its own to make.
const storageLeast = 1 << 20

// CheckStorage refuses storage options that there are not, and sizes that make
// no sense.
func CheckStorage(options map[string]string) error {
	_, err := storageSize(options)
	return err
}

// storageSize reads --storage-opt: size=N, what the container's own files may
// take. 0 is no limit.
func storageSize(options map[string]string) (size int64, err error) {
	for name, value := range options {
		if name != "size" {
			return 0, errdefs.WithHint(invalidf("unknown storage option %q", name), "there is size, as in --storage-opt size=10g")
		}
		size, err = units.RAMInBytes(value)
		if err != nil || size < 0 || size > 0 && size < storageLeast {
			return 0, errdefs.WithHint(invalidf("invalid storage option size=%s", value), "want a size such as 10g, at least 1m, or 0 for no limit")
		}
	}
	return size, nil
}

// storageOptions are the request's, with the configured ones where it says nothing.
func (e *Engine) storageOptions(asked map[string]string) map[string]string {
	if len(asked) == 0 && len(e.cfg.StorageOptions) == 0 {
		return asked
	}
	merged := maps.Clone(e.cfg.StorageOptions)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, asked)
	return merged
}

// checkStorage refuses a size where the file system cannot hold to it.
func (e *Engine) checkStorage(hc *container.HostConfig) error {
	size, err := storageSize(hc.StorageOpt)
	if err != nil || size == 0 {
		return err
	}
	return e.quotaProblem("--storage-opt size")
}

// checkStorageDefault refuses a configuration that no container could be made by.
func (e *Engine) checkStorageDefault() error {
	size, err := storageSize(e.cfg.StorageOptions)
	if err != nil || size == 0 {
		return err
	}
	return e.quotaProblem("storage option size in the configuration")
}

func (e *Engine) quotaProblem(what string) error {
	if err := e.images.QuotaProblem(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// driverStatus says what the snapshotter stands on, in Docker's words where it
// has some.
func (e *Engine) driverStatus(backing string) [][2]string {
	return [][2]string{
		{"Backing Filesystem", backing},
		{"Supports d_type", fmt.Sprint(e.images.DType())},
		{"Supports size quota", fmt.Sprint(e.images.QuotaProblem() == nil)},
		{"driver-type", "io.berth.snapshotter"},
	}
}
