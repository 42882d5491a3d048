package engine

import (
	"context"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
)

func TestCheckHealth(t *testing.T) {
	for _, tc := range []struct {
		h  *container.HealthConfig
		ok bool
	}{
		{nil, true},
		{&container.HealthConfig{}, true},
		{&container.HealthConfig{Test: []string{"NONE"}}, true},
		{&container.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Millisecond}, true},
		{&container.HealthConfig{Test: []string{"CMD-SHELL", "true"}, Retries: 1}, true},
		{&container.HealthConfig{Test: []string{"CMD"}}, false},
		{&container.HealthConfig{Test: []string{"CMD-SHELL", ""}}, false},
		{&container.HealthConfig{Test: []string{"EXEC", "true"}}, false},
		{&container.HealthConfig{Interval: time.Microsecond}, false},
		{&container.HealthConfig{Timeout: -1}, false},
		{&container.HealthConfig{StartPeriod: 1}, false},
		{&container.HealthConfig{StartInterval: 1}, false},
		{&container.HealthConfig{Retries: -1}, false},
	} {
		err := checkConfig(&container.Config{Healthcheck: tc.h})
		if tc.ok != (err == nil) || err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v", tc.h, err)
		}
	}
}

func TestMergeHealth(t *testing.T) {
	img := &dockerspec.HealthcheckConfig{Test: []string{"CMD", "image"}, Interval: 7 * time.Second, Retries: 9}
	for _, tc := range []struct {
		name string
		req  *container.HealthConfig
		want container.HealthConfig
	}{
		{"the image's", nil, *img},
		{"another test", &container.HealthConfig{Test: []string{"CMD-SHELL", "own"}},
			container.HealthConfig{Test: []string{"CMD-SHELL", "own"}, Interval: 7 * time.Second, Retries: 9}},
		{"another interval", &container.HealthConfig{Interval: time.Second, Timeout: time.Minute},
			container.HealthConfig{Test: []string{"CMD", "image"}, Interval: time.Second, Timeout: time.Minute, Retries: 9}},
	} {
		if got := mergeHealth(tc.req, img); !reflect.DeepEqual(*got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.name, *got, tc.want)
		}
	}
	own := &container.HealthConfig{Test: []string{"NONE"}}
	if mergeHealth(own, nil) != own {
		t.Error("a request's health check is changed by an image without one")
	}
	cfg := &container.Config{Healthcheck: mergeHealth(own, img)}
	if healthCommand(cfg) != nil {
		t.Error("--no-healthcheck does not disable the image's")
	}
}

func TestHealthCommand(t *testing.T) {
	for _, tc := range []struct{ test, shell, want []string }{
		{[]string{"CMD", "a", "b"}, nil, []string{"a", "b"}},
		{[]string{"CMD-SHELL", "a b"}, nil, []string{"/bin/sh", "-c", "a b"}},
		{[]string{"CMD-SHELL", "a b"}, []string{"/bin/ash", "-ec"}, []string{"/bin/ash", "-ec", "a b"}},
		{[]string{"NONE"}, nil, nil},
		{nil, nil, nil},
	} {
		cfg := &container.Config{Healthcheck: &container.HealthConfig{Test: tc.test}, Shell: tc.shell}
		if got := healthCommand(cfg); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%v: %v, want %v", tc.test, got, tc.want)
		}
	}
}

func TestJudgeHealth(t *testing.T) {
	start := time.Now()
	rec := &record{
		Config: &container.Config{Healthcheck: &container.HealthConfig{StartPeriod: time.Minute, Retries: 2}},
		State:  lifeState{StartedAt: start},
	}
	h := &container.Health{Status: container.Starting}
	for i, step := range []struct {
		after  time.Duration
		code   int
		want   container.HealthStatus
		streak int
	}{
		{time.Second, 1, container.Starting, 0}, // within the start period
		{2 * time.Second, 1, container.Starting, 0},
		{61 * time.Second, 1, container.Starting, 1},
		{62 * time.Second, 0, container.Healthy, 0},
		{63 * time.Second, 2, container.Healthy, 1},
		{64 * time.Second, -1, container.Unhealthy, 2},
		{65 * time.Second, 1, container.Unhealthy, 3},
		{66 * time.Second, 0, container.Healthy, 0},
		{67 * time.Second, 0, container.Healthy, 0},
	} {
		h = judge(h, rec, &container.HealthcheckResult{Start: start.Add(step.after), ExitCode: step.code})
		if h.Status != step.want || h.FailingStreak != step.streak {
			t.Errorf("step %d: %s, %d failures; want %s, %d", i, h.Status, h.FailingStreak, step.want, step.streak)
		}
	}
	if len(h.Log) != healthKeep || h.Log[healthKeep-1].Start != start.Add(67*time.Second) {
		t.Errorf("log has %d entries, or not the last ones", len(h.Log))
	}
	// A failure within the start period counts once the container was healthy.
	h = &container.Health{Status: container.Healthy}
	h = judge(h, rec, &container.HealthcheckResult{Start: start, ExitCode: 1})
	if h.FailingStreak != 1 {
		t.Error("a failure after a success does not count within the start period")
	}
}

func TestProbeOutput(t *testing.T) {
	for n, want := range map[int]int{0: 0, healthOutput: healthOutput, healthOutput + 1: healthOutput + 3} {
		if got := probeOutput(strings.Repeat("x", n)); len(got) != want {
			t.Errorf("%d bytes: %d are shown, want %d", n, len(got), want)
		}
	}
}

// checked is a container whose health check is the command.
func checked(test string, h container.HealthConfig) *container.CreateRequest {
	req := request("sleep", "1000")
	h.Test = []string{"CMD-SHELL", test}
	req.Config.Healthcheck = &h
	return req
}

// awaitHealth waits until a container's health is as wanted.
func (te *testEngine) awaitHealth(id string, want func(h *container.Health) bool) *container.Health {
	te.t.Helper()
	ctx, cancel := context.WithTimeout(te.t.Context(), time.Minute)
	defer cancel()
	c := te.named(id)
	for {
		c.mu.Lock()
		changed, h := c.changed, c.health.now
		c.mu.Unlock()
		if h != nil && want(h) {
			return h
		}
		select {
		case <-changed:
		case <-ctx.Done():
			te.t.Fatalf("health stays %+v", h)
		}
	}
}

// named finds a container.
func (te *testEngine) named(id string) *ctr {
	te.t.Helper()
	c, err := te.containers.get(id)
	if err != nil {
		te.t.Fatal(err)
	}
	return c
}

func is(status container.HealthStatus) func(*container.Health) bool {
	return func(h *container.Health) bool { return h.Status == status }
}

func TestHealth(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	ch, err := te.Subscribe(ctx, filter("event", "health_status"), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	id := te.create("ship", checked("echo look; cat /ok 2>&1", container.HealthConfig{Interval: time.Millisecond, Retries: 2}))
	if got, err := te.ContainerInspect(ctx, id, false); err != nil || got.State.Health != nil {
		t.Errorf("health before the first start: %+v, %v", got.State.Health, err)
	}
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Fatal(err)
	}
	h := te.awaitHealth(id, is(container.Unhealthy))
	if last := h.Log[len(h.Log)-1]; last.ExitCode != 1 || !strings.HasPrefix(last.Output, "look\ncat:") || last.End.Before(last.Start) {
		t.Errorf("result %+v", last)
	}
	if msg := <-ch; msg.Action != "health_status: unhealthy" || msg.Actor.Attributes["name"] != "ship" {
		t.Errorf("event %+v", msg)
	}
	te.exec(id, "touch", "/ok")
	h = te.awaitHealth(id, func(h *container.Health) bool { return h.Status == container.Healthy && len(h.Log) == healthKeep })
	if h.FailingStreak != 0 {
		t.Errorf("%d failures after a success", h.FailingStreak)
	}
	if msg := <-ch; msg.Action != "health_status: healthy" {
		t.Errorf("event %+v", msg)
	}
	for want, f := range map[int]Filters{1: filter("health", "healthy"), 0: filter("health", "none", "health", "starting")} {
		list, err := te.ContainerList(ctx, ListOptions{Filters: f})
		if err != nil || len(list) != want {
			t.Fatalf("list %v: %d containers, %v", f, len(list), err)
		}
		if want == 1 && (!strings.HasSuffix(list[0].Status, " (healthy)") || list[0].Health.Status != container.Healthy) {
			t.Errorf("listed as %q, %+v", list[0].Status, list[0].Health)
		}
	}
	te.checkNoProbeLeft(id)
	if err := te.ContainerStop(ctx, id, StopOptions{Timeout: new(int)}); err != nil {
		t.Fatal(err)
	}
	got, err := te.ContainerInspect(ctx, id, false)
	if err != nil || got.State.Health.Status != container.Unhealthy {
		t.Errorf("health after the end: %+v, %v", got.State.Health, err)
	}
	// A new run begins anew.
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Fatal(err)
	}
	te.awaitHealth(id, is(container.Healthy))
}

// checkNoProbeLeft looks for what probes could leave: records, and processes
// at the keeper. One probe may be running.
func (te *testEngine) checkNoProbeLeft(id string) {
	te.t.Helper()
	c := te.named(id)
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		te.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), execPrefix+probePrefix) {
			te.t.Errorf("a probe has a record: %s", e.Name())
		}
	}
	// What has ended is forgotten in the background, in the order of the ends.
	known, err := te.keeper.list(te.t.Context())
	if err != nil {
		te.t.Fatal(err)
	}
	probes := 0
	for _, st := range known {
		if isProbe(st.ExecID) {
			probes++
		}
	}
	if probes > 8 {
		te.t.Errorf("the keeper knows %d probes", probes)
	}
}

func TestHealthStops(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.run("", checked("true", container.HealthConfig{Interval: time.Millisecond}))
	te.awaitHealth(id, is(container.Healthy))
	if err := te.ContainerPause(ctx, id); err != nil {
		t.Fatal(err)
	}
	c := te.named(id)
	c.mu.Lock()
	if c.health.cancel != nil {
		t.Error("a paused container is probed")
	}
	c.mu.Unlock()
	paused := time.Now()
	if err := te.ContainerUnpause(ctx, id); err != nil {
		t.Fatal(err)
	}
	after := func(h *container.Health) bool { return h.Log[0].Start.After(paused) }
	if h := te.awaitHealth(id, after); h.Status != container.Healthy {
		t.Errorf("health after a pause: %s", h.Status)
	}
	// Another engine goes on where this one left.
	te.reopen()
	reopened := time.Now()
	after = func(h *container.Health) bool { return h.Log[0].Start.After(reopened) }
	if h := te.awaitHealth(id, after); h.Status != container.Healthy {
		t.Errorf("health after a restart of the engine: %s", h.Status)
	}
}

// TestHealthTimeout ends a probe with what it has started, in its session and
// out of it, and nothing else.
func TestHealthTimeout(t *testing.T) {
	te := newTestEngine(t)
	probe := "echo begun; setsid sleep 2000 & sleep 3000 & sleep 4000"
	id := te.run("", checked(probe, container.HealthConfig{Interval: time.Millisecond, Timeout: 300 * time.Millisecond, Retries: 1}))
	// On a busy machine a probe's time may be over before it has said anything.
	const over = "Health check exceeded timeout (300ms): "
	h := te.awaitHealth(id, func(h *container.Health) bool {
		return h.Status == container.Unhealthy && h.Log[len(h.Log)-1].Output != over
	})
	if r := h.Log[len(h.Log)-1]; r.ExitCode != -1 || r.Output != over+"begun\n" {
		t.Errorf("result %+v", r)
	}
	c := te.named(id)
	c.haltHealth()
	te.awaitAlone(c)
}

// awaitAlone waits until a container's init is its only process.
func (te *testEngine) awaitAlone(c *ctr) {
	te.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		top, err := te.ContainerTop(te.t.Context(), c.id, "")
		if err != nil {
			te.t.Fatal(err)
		}
		if len(top.Processes) == 1 {
			return
		}
		if time.Now().After(end) {
			te.t.Fatalf("processes are left: %v", top.Processes)
		}
	}
}

// TestHealthStrays lets an engine end what another one's probe left running.
func TestHealthStrays(t *testing.T) {
	te := newTestEngine(t)
	id := te.run("", checked("sleep 2000", container.HealthConfig{Interval: time.Hour}))
	rec := te.named(id).snapshot()
	process, err := execProcess(rec, &container.ExecCreateRequest{Cmd: healthCommand(rec.Config)}, te.host)
	if err != nil {
		t.Fatal(err)
	}
	_, err = te.keeper.exec(t.Context(), &keeper.ExecRequest{ContainerID: id, ExecID: probePrefix + "stray", Process: process})
	if err != nil {
		t.Fatal(err)
	}
	te.reopen()
	te.awaitAlone(te.named(id))
}

// BenchmarkHealth is what one probe costs.
func BenchmarkHealth(b *testing.B) {
	te := newTestEngine(b)
	id := te.run("", checked("true", container.HealthConfig{Interval: time.Hour}))
	c := te.named(id)
	rec := c.snapshot()
	for b.Loop() {
		if r := te.probe(b.Context(), c, rec); r.ExitCode != 0 {
			b.Fatal(r)
		}
	}
}
