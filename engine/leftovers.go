package engine

import "context"

// Leftovers lists, as operations of the engine's own, what was removed and whose
// files cannot be deleted yet because somebody uses them.
func (e *Engine) Leftovers(context.Context) ([]OperationInfo, error) {
	list := []OperationInfo{}
	for _, s := range e.images.Stuck() {
		list = append(list, OperationInfo{
			ID: "-", Kind: "clean up", Object: s.Path, Since: s.Since,
			WaitingFor: "its files to be free: " + s.Cause, WaitingSince: s.Since,
		})
	}
	return list, nil
}
