package engine

import (
	"errors"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

// TestIntentsAreFinished writes what the records say when an engine is killed in the
// middle of an act of several steps, and opens another: it finishes the act, or undoes
// what was to be temporary.
func TestIntentsAreFinished(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	begun := func(name string, fn func(r *record)) *ctr {
		t.Helper()
		req := request("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done")
		req.StopSignal = "KILL"
		req.Volumes = map[string]struct{}{"/data": {}}
		c := te.mustGet(te.run(name, req))
		rec := c.snapshot()
		fn(rec)
		must(t, rec.save(c.dir))
		return c
	}
	restarting := begun("restarting", func(r *record) { r.State.Restart = true })
	stopped := begun("stopped", func(*record) {})
	must(t, te.ContainerKill(ctx, stopped.id, "KILL"))
	te.wait(stopped.id, container.WaitConditionNotRunning)
	te.awaitForgotten(stopped.id)
	rec := stopped.snapshot()
	rec.State.Restart = true
	must(t, rec.save(stopped.dir))
	removed := begun("removed", func(r *record) { r.State.Remove, r.State.RemoveVolumes = true, true })
	volume := removed.snapshot().Mounts[0].Source
	frozen := te.mustGet(te.run("frozen", request("sleep", "1000")))
	must(t, frozen.lock(ctx))
	must(t, te.pause(frozen, true))
	frozen.unlock()
	limited := begun("limited", func(r *record) {
		hc := *r.HostConfig
		hc.Memory, hc.MemorySwap = 64<<20, 64<<20
		r.HostConfig, r.State.Apply = &hc, true
	})
	was := restarting.snapshot().State.StartedAt
	te.reopen()

	if gone, err := te.containers.get(removed.id); err == nil {
		if _, err := gone.wait(ctx, container.WaitConditionRemoved, 0); err != nil {
			t.Error(err)
		}
	}
	if _, err := te.ContainerInspect(ctx, removed.id, false); !errors.Is(err, errdefs.ErrNotFound) || exists(volume) {
		t.Errorf("forced removal: %v, volume there %v", err, exists(volume))
	}
	for _, c := range []*ctr{te.mustGet(restarting.id), te.mustGet(stopped.id)} {
		awaitRecord(t, c, func(r *record) bool {
			return r.State.Status == stateRunning && r.State.StartedAt.After(was) && !r.State.Restart
		})
	}
	if st := te.inspect("frozen").State; st.Status != stateRunning {
		t.Errorf("paused for a commit: %+v", st)
	}
	g, err := te.cgroup(te.mustGet(limited.id).snapshot())
	must(t, err)
	defer g.Close()
	stats, err := g.Stats()
	must(t, err)
	if stats.Memory.Limit != 64<<20 || te.mustGet(limited.id).snapshot().State.Apply {
		t.Errorf("limit %d", stats.Memory.Limit)
	}
	if report, err := te.Check(ctx, false); err != nil || len(report.Findings) > 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// awaitRecord waits until a container's record is as wanted.
func awaitRecord(t *testing.T, c *ctr, want func(r *record) bool) {
	t.Helper()
	for {
		c.mu.Lock()
		changed, ok := c.changed, want(c.rec)
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("container is %+v", c.snapshot().State)
		}
	}
}
