package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// hungry is a container whose first process starts another that needs more memory than
// there is, each time again is called, which waits for its end.
func hungry(t *testing.T) (req *container.CreateRequest, again func()) {
	t.Helper()
	dir := t.TempDir()
	// Both ends are kept open here, so that no write and no read fails while the
	// container does not have its own open.
	pipe := func(name string) *os.File {
		path := filepath.Join(dir, name)
		if err := unixMkfifo(path); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	begin, ended := pipe("begin"), pipe("ended")
	req = request("sh", "-c", "while read x </f/begin; do sh -c 'a=x; while :; do a=$a$a; done'; echo >/f/ended; done")
	req.HostConfig.Memory, req.HostConfig.MemorySwap = 16<<20, 16<<20
	req.HostConfig.Binds = []string{dir + ":/f"}
	return req, func() {
		if _, err := begin.WriteString("on\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := ended.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// A kill for want of memory is told of while the container lives on, each of them,
// and none of them again at its end.
func TestOOMOfALivingContainer(t *testing.T) {
	te := newTestEngine(t)
	ch, err := te.Subscribe(t.Context(), filter("event", "oom", "event", "die"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	req, again := hungry(t)
	id := te.run("hungry", req)
	for range 2 {
		again()
		if m := <-ch; m.Action != events.ActionOOM || m.Actor.ID != id {
			t.Fatalf("event %v", m)
		}
		if st := te.inspect(id).State; !st.OOMKilled || !st.Running {
			t.Errorf("state %+v", st)
		}
	}
	if err := te.ContainerKill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if m := <-ch; m.Action != events.ActionDie {
		t.Errorf("event %v, want its end alone", m)
	}
	if st := te.inspect(id).State; !st.OOMKilled {
		t.Errorf("state %+v", st)
	}
}

// What has happened while there was no engine the next one tells.
func TestOOMBetweenEngines(t *testing.T) {
	te := newTestEngine(t)
	req, again := hungry(t)
	id := te.run("hungry", req)
	begun := time.Now()
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	again()
	te.open()
	ch, err := te.Subscribe(t.Context(), filter("event", "oom"), begun, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if m := <-ch; m.Actor.ID != id {
		t.Errorf("event %v", m)
	}
	te.reopen()
	if st := te.inspect(id).State; !st.OOMKilled || !st.Running {
		t.Errorf("state %+v", st)
	}
}
