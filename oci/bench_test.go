package oci

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/berth-containers/berth/kernel/cgroup"
)

func BenchmarkTmp(b *testing.B) {
	raw, _ := os.ReadFile("/tmp/b1/config.json")
	r, err := NewRunner()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			ParseSpec(raw)
		}
	})
	spec, _ := ParseSpec(raw)
	_ = json.Marshal
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			pl, err := Compile(spec, "/tmp/b1")
			if err != nil {
				b.Fatal(err)
			}
			pl.Program.Encode()
		}
	})
	b.Run("cgroup", func(b *testing.B) {
		for b.Loop() {
			g, err := cgroup.Create("/bench", Resources(spec))
			if err != nil {
				b.Fatal(err)
			}
			if err := g.Destroy(); err != nil {
				b.Fatal(err)
			}
			g.Close()
		}
	})
	b.Run("startNoCgroup", func(b *testing.B) {
		for b.Loop() {
			pr, err := r.Start(&StartRequest{ID: "b", Spec: spec, Bundle: "/tmp/b1"})
			if err != nil {
				b.Fatal(err)
			}
			pr.Wait()
			pr.Close()
		}
	})
	b.Run("startCgroup", func(b *testing.B) {
		for b.Loop() {
			g, err := cgroup.Create("/bench", Resources(spec))
			if err != nil {
				b.Fatal(err)
			}
			pr, err := r.Start(&StartRequest{ID: "b", Spec: spec, Bundle: "/tmp/b1", Cgroup: g})
			if err != nil {
				b.Fatal(err)
			}
			pr.Wait()
			pr.Close()
			if err := g.Destroy(); err != nil {
				b.Fatal(err)
			}
			g.Close()
		}
	})
}
