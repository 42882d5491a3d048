package network

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func BenchmarkContainer(b *testing.B) {
	for _, ports := range []int{0, 1} {
		b.Run(fmt.Sprintf("ports=%d", ports), func(b *testing.B) { benchContainer(b, ports) })
	}
}

func benchContainer(b *testing.B, ports int) {
	s := openStore(b, testOptions(b))
	ctx := context.Background()
	var spent [3]time.Duration
	lap := func(i int, t time.Time) time.Time { n := time.Now(); spent[i] += n.Sub(t); return n }
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprintf("c%d", i)
		t := time.Now()
		path, err := s.NewNamespace(id)
		if err != nil {
			b.Fatal(err)
		}
		t = lap(0, t)
		ep := Endpoint{ContainerID: id, NetnsPath: path}
		for p := range ports {
			ep.Ports = append(ep.Ports, PortBinding{ContainerPort: uint16(80 + p)})
		}
		if _, err := s.Connect(ctx, ep); err != nil {
			b.Fatal(err)
		}
		t = lap(1, t)
		if err := s.Release(ctx, id); err != nil {
			b.Fatal(err)
		}
		lap(2, t)
	}
	for i, name := range []string{"new", "connect", "release"} {
		b.ReportMetric(float64(spent[i].Microseconds())/float64(b.N), name+"-µs")
	}
}
