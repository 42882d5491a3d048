package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

// TestUpgradeKeeper: a container counts and is attached to, commands are executed in
// it, while the keeper becomes another program again and again.
func TestUpgradeKeeper(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	const n = 3000
	id := te.create("ship", request("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; sleep 1000", n)))
	s, err := te.ContainerAttach(ctx, id, AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Fatal(err)
	}
	client, err := te.keeper.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := client.Info()
	for i := range 3 {
		done := make(chan error, 1)
		go func() {
			_, code := te.exec(id, "sh", "-c", "exit 7")
			if code != 7 {
				done <- fmt.Errorf("exec ended with %d", code)
			}
			close(done)
		}()
		up, err := te.UpgradeKeeper(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if up.Before.Pid != before.Pid || up.After.Pid != before.Pid || !up.After.Since.After(up.Before.Since) {
			t.Errorf("upgrade %d: %+v", i, up)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	te.awaitLog(id, fmt.Sprintf("\n%d\n", n))
	if err := te.ContainerKill(ctx, id, "KILL"); err != nil {
		t.Fatal(err)
	}
	if out := demux(t, s); strings.Count(out, "\n") != n || !strings.HasSuffix(out, fmt.Sprintf("\n%d\n", n)) {
		t.Errorf("attached client got %d lines", strings.Count(out, "\n"))
	}
	if code := te.wait(id, container.WaitConditionNotRunning); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if out, _ := te.logs(id); strings.Count(out, "\n") != n {
		t.Errorf("%d lines in the log", strings.Count(out, "\n"))
	}
	if report, err := te.Check(ctx, false); err != nil || len(report.Findings) > 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// TestUpgradeKeeperRefused: a berth-oci that is none leaves the keeper as it is.
func TestUpgradeKeeperRefused(t *testing.T) {
	te := newTestEngine(t)
	id := te.run("ship", request("sleep", "1000"))
	good := te.keeper.opts.Binary
	te.keeper.opts.Binary = "/bin/false"
	_, err := te.UpgradeKeeper(t.Context())
	te.keeper.opts.Binary = good
	if err == nil || errdefs.Hint(err) == "" {
		t.Errorf("upgrade to /bin/false: %v", err)
	}
	if out, code := te.exec(id, "echo", "on"); out != "on\n" || code != 0 {
		t.Errorf("exec afterwards: %q, %d", out, code)
	}
}
