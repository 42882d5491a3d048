package engine

import (
	"encoding/json"
	"os"
	"slices"

	"github.com/moby/moby/api/types/events"
)

// Reload takes over what of a configuration can change while the engine runs: the
// labels and the insecure registries. It tells by the event that Docker tells it by.
func (e *Engine) Reload(cfg Config) {
	labels := slices.Clone(cfg.Labels)
	e.labels.Store(&labels)
	e.images.SetInsecureRegistries(cfg.InsecureRegistries)
	attrs := map[string]string{"labels": jsonList(labels), "insecure-registries": jsonList(cfg.InsecureRegistries)}
	if name, err := os.Hostname(); err == nil {
		attrs["name"] = name
	}
	e.events.emit(events.DaemonEventType, events.ActionReload, e.id, attrs)
}

// jsonList writes a list as Docker's event has it.
func jsonList(list []string) string {
	b, err := json.Marshal(orEmpty(list))
	if err != nil {
		return "[]"
	}
	return string(b)
}
