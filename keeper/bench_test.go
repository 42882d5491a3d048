package keeper

import "testing"

// BenchmarkContainer is a container from the request to the answered exit and
// the removal of its record.
func BenchmarkContainer(b *testing.B) {
	h := newContainerHarness(b)
	r := h.container("a", "")
	r.Spec.Process.Args = []string{"/bin/true"}
	for b.Loop() {
		h.start(r)
		h.wait("a", "")
		must(b, h.Forget(b.Context(), "a", ""))
	}
}

// BenchmarkExec is the same for a process executed in a running container.
func BenchmarkExec(b *testing.B) {
	h := newContainerHarness(b)
	h.start(h.container("a", "exec sleep 1000"))
	r := execIn("a", "x", "")
	r.Process.Args = []string{"/bin/true"}
	for b.Loop() {
		_, err := h.Exec(b.Context(), r)
		must(b, err)
		h.wait("a", "x")
		must(b, h.Forget(b.Context(), "a", "x"))
	}
}

// BenchmarkProcess is the keeper's own part: a process that is not contained.
func BenchmarkProcess(b *testing.B) {
	h := newHarness(b)
	r := h.sh("a", "")
	r.Spec.Process.Args = []string{"/bin/true"}
	for b.Loop() {
		h.start(r)
		h.wait("a", "")
		must(b, h.Forget(b.Context(), "a", ""))
	}
}

// BenchmarkRequest is a request that does nothing.
func BenchmarkRequest(b *testing.B) {
	h := newHarness(b)
	for b.Loop() {
		_, err := h.List(b.Context())
		must(b, err)
	}
}
