package engine

import (
	"errors"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
)

func TestRunPrintsAndExits(t *testing.T) {
	te := newTestEngine(t)
	out, code := te.output(request("sh", "-c", "echo hello; exit 3"))
	if out != "hello\n" || code != 3 {
		t.Errorf("printed %q, exited %d", out, code)
	}
}

func TestAutoRemove(t *testing.T) {
	te := newTestEngine(t)
	req := request("false")
	req.HostConfig.AutoRemove = true
	id := te.create("", req)
	ch, err := te.ContainerWait(t.Context(), id, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerStart(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if resp := <-ch; resp.StatusCode != 1 {
		t.Errorf("exit code %d", resp.StatusCode)
	}
	if _, err := te.ContainerInspect(t.Context(), id, false); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("inspect after --rm: %v", err)
	}
}
