package image

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkContainer is what the start and end of a container ask of the store.
func BenchmarkContainer(b *testing.B) {
	ctx := context.Background()
	s, img := benchStore(b)
	b.Run("prepare+remove", func(b *testing.B) {
		for i := range b.N {
			key := fmt.Sprintf("p%d", i)
			must(b, s.Prepare(ctx, key, img))
			must(b, s.RemoveSnapshot(ctx, key))
		}
	})
	b.Run("prepare", func(b *testing.B) {
		for i := range b.N {
			must(b, s.Prepare(ctx, fmt.Sprintf("q%d-%d", b.N, i), img))
		}
		b.StopTimer()
		for i := range b.N {
			must(b, s.RemoveSnapshot(ctx, fmt.Sprintf("q%d-%d", b.N, i)))
		}
		s.janitor.wait()
	})
	for _, volatile := range []bool{false, true} {
		b.Run(fmt.Sprintf("mount+close/volatile=%v", volatile), func(b *testing.B) {
			key := fmt.Sprintf("m%v%d", volatile, b.N)
			prepare := s.Prepare
			if volatile {
				prepare = s.PrepareVolatile
			}
			must(b, prepare(ctx, key, img))
			for range b.N {
				f, err := s.MountDetached(ctx, key)
				must(b, err)
				must(b, f.Close())
			}
			must(b, s.RemoveSnapshot(ctx, key))
		})
	}
	b.Run("mount/legacy", func(b *testing.B) {
		key := fmt.Sprintf("l%d", b.N)
		must(b, s.Prepare(ctx, key, img))
		s.snap.(*overlaySnapshotter).mounter.legacy = true
		for range b.N {
			f, err := s.MountDetached(ctx, key)
			must(b, err)
			must(b, f.Close())
		}
		s.snap.(*overlaySnapshotter).mounter.legacy = false
		must(b, s.RemoveSnapshot(ctx, key))
	})
	b.Run("get", func(b *testing.B) {
		for range b.N {
			_, err := s.Get(ctx, "bench")
			must(b, err)
		}
	})
}

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
