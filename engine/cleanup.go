package engine

// cleanup unwinds a multi-step act: each step that succeeded adds its undo;
// the deferred run calls them in reverse order unless the act was released.
//
//	var undo cleanup
//	defer undo.run()
//	... undo.add(func() { ... })
//	undo.release()
type cleanup struct{ steps []func() }

func (u *cleanup) add(f func()) { u.steps = append(u.steps, f) }

// release keeps what was done.
func (u *cleanup) release() { u.steps = nil }

func (u *cleanup) run() {
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i]()
	}
	u.steps = nil
}
