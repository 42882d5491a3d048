package engine

import (
	"testing"

	"github.com/moby/moby/api/types/container"
)

// BenchmarkRun is what berth run --rm costs in the engine, by network mode.
func BenchmarkRun(b *testing.B) {
	for _, mode := range []container.NetworkMode{"host", "none", "bridge"} {
		b.Run(string(mode), func(b *testing.B) {
			te := newTestEngine(b)
			for b.Loop() {
				req := request("true")
				req.HostConfig.NetworkMode, req.HostConfig.AutoRemove = mode, true
				id := te.create("", req)
				done, err := te.ContainerWait(b.Context(), id, container.WaitConditionRemoved)
				if err != nil {
					b.Fatal(err)
				}
				if err := te.ContainerStart(b.Context(), id); err != nil {
					b.Fatal(err)
				}
				<-done
			}
		})
	}
}

// BenchmarkExec is what berth exec costs in the engine.
func BenchmarkExec(b *testing.B) {
	te := newTestEngine(b)
	id := te.run("", request("sleep", "1000"))
	for b.Loop() {
		te.exec(id, "true")
	}
}
