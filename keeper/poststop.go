package keeper

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func hasPoststop(spec *specs.Spec) bool { return spec.Hooks != nil && len(spec.Hooks.Poststop) > 0 }

// runPoststop runs the hooks of a container of which nothing is left. Nobody
// waits for what they say: their failures are warnings, as the specification
// wants.
func (s *server) runPoststop(id string) {
	spec, err := s.records.loadSpec(id)
	var bundle []byte
	if err == nil {
		bundle, err = os.ReadFile(s.records.bundle(id))
	}
	if err == nil {
		err = s.runtime.Poststop(&Launch{ID: id, Spec: spec, Bundle: string(bundle)})
	}
	if err != nil {
		s.log.Warn("hooks after the end of a container", "container", id, "cause", err)
	}
}
