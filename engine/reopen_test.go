package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/network"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// reopen closes the engine and opens another on the same directories.
func (te *testEngine) reopen() {
	te.t.Helper()
	if err := te.Close(); err != nil {
		te.t.Fatalf("close: %v", err)
	}
	te.open()
}

func TestContainersOutliveTheEngine(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := unixMkfifo(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	running := te.run("running", request("sleep", "1000"))
	paused := te.run("paused", request("sleep", "1000"))
	if err := te.ContainerPause(ctx, paused); err != nil {
		t.Fatal(err)
	}
	reader := func(fifo string) *container.CreateRequest {
		req := request("sh", "-c", "read x < /f/"+fifo+"; echo $x; exit 7")
		req.HostConfig.Binds = []string{dir + ":/f"}
		req.HostConfig.AutoRemove = fifo == "two"
		return req
	}
	ends, vanishes := te.run("ends", reader("one")), te.run("vanishes", reader("two"))
	fresh := te.create("fresh", request("true"))
	before := te.inspect(running).State
	x, err := te.ExecCreate(ctx, running, &container.ExecCreateRequest{Cmd: []string{"sh", "-c", "exec 3<>/tmp/none; exit 8"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("while nobody looked\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	te.open()
	if code := te.wait(ends, container.WaitConditionNotRunning); code != 7 {
		t.Errorf("exit code %d", code)
	}
	if out, _ := te.logs(ends); out != "while nobody looked\n" {
		t.Errorf("logged %q", out)
	}
	if c, err := te.containers.get(vanishes); err == nil {
		if _, err := c.wait(ctx, container.WaitConditionRemoved, 0); err != nil {
			t.Error(err)
		}
	}
	if st := te.inspect(running).State; st.Status != stateRunning || st.Pid != before.Pid || st.StartedAt != before.StartedAt {
		t.Errorf("running: %+v, was %+v", st, before)
	}
	if st := te.inspect(paused).State; st.Status != statePaused {
		t.Errorf("paused: %+v", st)
	}
	if st := te.inspect(fresh).State; st.Status != stateCreated {
		t.Errorf("created: %+v", st)
	}
	if resp, err := te.ExecInspect(ctx, x); err != nil || resp.Running || resp.ExitCode != nil {
		t.Errorf("prepared exec: %+v, %v", resp, err)
	}
	if err := te.ContainerUnpause(ctx, paused); err != nil {
		t.Error(err)
	}
	if _, code := te.exec(running, "true"); code != 0 {
		t.Errorf("exec in an adopted container: %d", code)
	}
	if err := te.stopIn(running, 0); err != nil {
		t.Error(err)
	}
	if _, err := te.ContainerCreate(ctx, "fresh", request("true"), nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("the name was forgotten: %v", err)
	}
}

// TestHalfDoneActsAreSettled writes the records an engine leaves when it is
// killed at the worst moments, and opens another on them.
func TestHalfDoneActsAreSettled(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	rewrite := func(id string, fn func(r *record)) {
		t.Helper()
		c, err := te.containers.get(id)
		if err != nil {
			t.Fatal(err)
		}
		rec := c.snapshot()
		fn(rec)
		if err := rec.save(c.dir); err != nil {
			t.Fatal(err)
		}
	}
	volume := request("true")
	volume.Volumes = map[string]struct{}{"/v": {}}
	creating := te.create("creating", volume)
	source := te.inspect(creating).Mounts[0].Source
	rewrite(creating, func(r *record) { r.State.Status = stateCreating })
	starting := te.create("starting", request("true"))
	rewrite(starting, func(r *record) { r.State.Status = stateStarting })
	inFlight := te.run("inflight", request("sleep", "1000"))
	rewrite(inFlight, func(r *record) { r.State = lifeState{Status: stateStarting} })
	removing := te.create("removing", request("true"))
	rewrite(removing, func(r *record) { r.State.Status = stateRemoving })
	lost := te.create("lost", request("true"))
	rewrite(lost, func(r *record) { r.State = lifeState{Status: stateRunning, Pid: 4194000, StartedAt: r.Created} })
	given := te.run("given", request("sleep", "1000")) // a start that was given up and went through
	rewrite(given, func(r *record) { r.State = lifeState{Status: stateExited, StartedAt: r.Created, FinishedAt: r.Created} })
	pausing := te.run("pausing", request("sleep", "1000"))
	rewrite(pausing, func(r *record) { r.State.Status = statePaused })
	torn := te.create("torn", request("true"))
	c, err := te.containers.get(torn)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, recordFile), []byte(`{"ID":"`), 0o600); err != nil {
		t.Fatal(err)
	}
	precious := te.run("precious", request("touch", "/treasure"))
	te.wait(precious, container.WaitConditionNotRunning)
	te.awaitForgotten(precious)
	aside := filepath.Join(te.containersDir(), precious+damagedSuffix)
	if err := os.WriteFile(filepath.Join(te.containersDir(), precious, recordFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	netns, err := te.nets.NewNamespace("0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := te.nets.Connect(ctx, network.Endpoint{ContainerID: "0123456789abcdef", NetnsPath: netns}); err != nil {
		t.Fatal(err)
	}
	te.quietly(te.reopen)

	for _, id := range []string{creating, removing, torn} {
		if _, err := te.ContainerInspect(ctx, id, false); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s is still there: %v", short(id), err)
		}
	}
	treasure := filepath.Join(te.cfg.StateRoot, "image/containers", precious, "upper/treasure")
	if _, err := os.Stat(treasure); err != nil || !exists(aside) {
		t.Errorf("a container's files went with its record: %v", err)
	}
	report, err := te.Check(ctx, true)
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Object != "directory "+aside || report.Findings[0].Repairable {
		t.Errorf("check: %+v, %v", report, err)
	}
	if err := errors.Join(os.RemoveAll(aside), te.images.RemoveSnapshot(ctx, precious)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(source); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the volume of a container never made is left: %v", err)
	}
	if _, err := os.Stat(netns); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a namespace of nobody is left: %v", err)
	}
	for id, want := range map[string]state{starting: stateCreated, inFlight: stateRunning, lost: stateExited, given: stateExited, pausing: stateRunning} {
		if st := te.inspect(id).State; st.Status != want {
			t.Errorf("%s: %+v, want %s", te.inspect(id).Name, st, want)
		}
	}
	if st := te.inspect(lost).State; st.ExitCode != 255 || !strings.Contains(st.Error, "restarted") {
		t.Errorf("lost: %+v", st)
	}
	if err := te.ContainerStart(ctx, starting); err != nil {
		t.Errorf("start after roll back: %v", err)
	}
	te.wait(starting, container.WaitConditionNotRunning)
	te.awaitForgotten(given)
	if err := te.ContainerStart(ctx, given); err != nil {
		t.Errorf("start what was given up: %v", err)
	}
}

// quietly runs f with the engine's log discarded: it provokes errors.
func (te *testEngine) quietly(f func()) {
	te.t.Setenv("BERTH_TEST_QUIET", "1")
	f()
	os.Unsetenv("BERTH_TEST_QUIET")
}

// awaitForgotten waits until the keeper knows nothing of the container.
func (te *testEngine) awaitForgotten(id string) {
	te.t.Helper()
	client, err := te.keeper.connect(te.t.Context())
	if err != nil {
		te.t.Fatal(err)
	}
	for {
		_, err := client.Wait(te.t.Context(), id, "")
		if errors.Is(err, errdefs.ErrNotFound) {
			return
		}
		if err != nil {
			te.t.Fatal(err)
		}
	}
}

func TestPoliciesAtOpen(t *testing.T) {
	te := newTestEngine(t)
	policy := func(name container.RestartPolicyMode) *container.CreateRequest {
		req := request("sleep", "1000")
		req.HostConfig.RestartPolicy.Name = name
		return req
	}
	always, unless, never := te.run("always", policy("always")), te.run("unless", policy("unless-stopped")), te.run("never", policy("no"))
	created := te.create("created", policy("always"))
	for _, id := range []string{always, unless, never} {
		if err := te.stopIn(id, 0); err != nil {
			t.Fatal(err)
		}
	}
	te.reopen()
	c, err := te.containers.get(always)
	if err != nil {
		t.Fatal(err)
	}
	for { // started in the background
		c.mu.Lock()
		changed, running := c.changed, c.rec.State.Status == stateRunning
		c.mu.Unlock()
		if running {
			break
		}
		<-changed
	}
	for id, want := range map[string]state{unless: stateExited, never: stateExited, created: stateCreated} {
		if st := te.inspect(id).State; st.Status != want {
			t.Errorf("%s: %s, want %s", te.inspect(id).Name, st.Status, want)
		}
	}
}

func TestKeeperIsReplaced(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	id := te.run("", request("sleep", "1000"))
	client, err := te.keeper.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	te.quietly(func() {
		killProcess(t, client.Info().Pid)
		<-client.Done()
	})
	if code := te.wait(id, container.WaitConditionNotRunning); code != 255 {
		t.Errorf("exit code of a container whose keeper was killed: %d", code)
	}
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Errorf("start with the new keeper: %v", err)
	}
}

// TestHostRestart opens the engine as after a reboot: what was at run time is
// gone, the keeper, the cgroups and the run root, and nobody saw how the
// containers ended.
func TestHostRestart(t *testing.T) {
	te := newTestEngine(t)
	policy := func(name container.RestartPolicyMode) *container.CreateRequest {
		req := request("sleep", "1000")
		req.HostConfig.RestartPolicy.Name = name
		return req
	}
	gone := policy("no")
	gone.HostConfig.AutoRemove = true
	ids := map[string]string{
		"always": te.run("", policy("always")), "unless-stopped": te.run("", policy("unless-stopped")),
		"on-failure": te.run("", policy("on-failure")), "no": te.run("", policy("no")), "rm": te.run("", gone),
		"stopped": te.run("", policy("unless-stopped")),
	}
	if err := te.stopIn(ids["stopped"], 0); err != nil {
		t.Fatal(err)
	}
	client, err := te.keeper.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pid := client.Info().Pid
	if err := te.Close(); err != nil {
		t.Fatal(err)
	}
	killProcess(t, pid)
	for name, id := range ids {
		if g, err := te.cgroup(te.named(id).snapshot()); err == nil {
			if err := errors.Join(g.Kill(unix.SIGKILL), g.Destroy(), g.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	cfg := testConfig(te.dir)
	for _, dir := range []string{"containers", "keeper.sock", "keeper.lock"} {
		if err := os.RemoveAll(filepath.Join(cfg.RunRoot, dir)); err != nil {
			t.Fatal(err)
		}
	}
	te.open()
	for _, name := range []string{"always", "unless-stopped", "on-failure"} {
		c := te.named(ids[name])
		for running := false; !running; {
			c.mu.Lock()
			changed := c.changed
			running = c.rec.State.Status == stateRunning
			c.mu.Unlock()
			if !running {
				<-changed
			}
		}
	}
	for name, want := range map[string]int{"no": 255, "stopped": 137} {
		if st := te.inspect(ids[name]).State; st.Status != stateExited || st.ExitCode != want {
			t.Errorf("%s: %s, exit code %d", name, st.Status, st.ExitCode)
		}
	}
	if _, err := te.containers.get(ids["rm"]); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a container to be removed: %v", err)
	}
}
