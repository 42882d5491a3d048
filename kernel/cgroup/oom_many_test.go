package cgroup

import (
	"errors"
	"os"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// One watcher tells which of its groups has run out of memory, and not of one that is
// not watched any more.
func TestOOMWatcher(t *testing.T) {
	needRoot(t)
	w, err := NewOOMWatcher()
	if err != nil {
		t.Fatal(err)
	}
	limits := func() *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](32 << 20), Swap: ptr[int64](32 << 20)}}
	}
	groups := map[string]*Group{}
	for _, name := range []string{"quiet", "left", "hungry"} {
		g, err := Create(testRoot+"/"+t.Name()+"-"+name, limits())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { endGroup(t, g) })
		groups[name] = g
		stop, err := w.Add(g, name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "left" {
			stop()
			stop() // in vain
		}
	}
	for _, name := range []string{"left", "hungry"} {
		m := join(t, groups[name], "hog", "64")
		m.expect("ready")
		m.wait()
	}
	names, err := w.Next()
	if err != nil || slices.Contains(names, "left") || !slices.Contains(names, "hungry") || slices.Contains(names, "quiet") {
		t.Errorf("out of memory: %q, %v", names, err)
	}
	told := make(chan error, 1)
	go func() {
		_, err := w.Next()
		for err == nil { // on v2 once for each of the figures
			_, err = w.Next()
		}
		told <- err
	}()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-told; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed watcher: %v", err)
	}
}
