package engine

import (
	"errors"
	"os"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// TestStartUndoesItself makes each step of a start fail and looks for what is
// left of those before it.
func TestStartUndoesItself(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	port := network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: addr("127.0.0.1"), HostPort: "8099"}}}
	for _, tc := range []struct {
		name  string
		set   func(r *container.CreateRequest)
		spoil func(id string)
	}{
		{"no root file system", nil, func(id string) {
			if err := te.images.RemoveSnapshot(ctx, id); err != nil {
				t.Fatal(err)
			}
		}},
		{"no user", func(r *container.CreateRequest) { r.User = "pirate" }, nil},
		{"no gateway for a host entry", func(r *container.CreateRequest) {
			r.HostConfig.NetworkMode, r.HostConfig.PortBindings = "none", nil
			r.HostConfig.ExtraHosts = []string{"up:host-gateway"}
		}, nil},
		{"no device any more", func(r *container.CreateRequest) {
			r.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: te.dir + "/null", PathInContainer: "/dev/x"}}
		}, func(string) { os.Remove(te.dir + "/null") }},
		{"no command", func(r *container.CreateRequest) { r.Cmd = []string{"none"} }, nil},
		{"no bind source", func(r *container.CreateRequest) { r.HostConfig.Binds = []string{te.dir + "/gone:/x"} },
			func(string) { os.RemoveAll(te.dir + "/gone") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.Symlink("/dev/null", te.dir+"/null"); err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
			req := request("true")
			req.HostConfig.NetworkMode, req.HostConfig.PortBindings, req.HostConfig.IpcMode = "bridge", port, "shareable"
			if tc.set != nil {
				tc.set(req)
			}
			id := te.create("", req)
			if tc.spoil != nil {
				tc.spoil(id)
			}
			if err := te.ContainerStart(ctx, id); err == nil {
				t.Fatal("it started")
			}
			n, err := te.NetworkInspect(ctx, "bridge")
			if err != nil || len(n.Containers) > 0 {
				t.Errorf("attachments left: %+v, %v", n.Containers, err)
			}
			for _, dir := range []string{te.cfg.RunRoot + "/netns", te.cfg.RunRoot + "/shm"} {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("left in %s: %v", dir, left)
				}
			}
			if known, err := te.keeper.list(ctx); err != nil || len(known) > 0 {
				t.Errorf("the keeper knows %v, %v", known, err)
			}
			if err := te.ContainerRemove(ctx, id, RemoveOptions{}); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
}

// TestCreateUndoesItself makes the making of a container fail.
func TestCreateUndoesItself(t *testing.T) {
	te := newTestEngine(t)
	if err := os.WriteFile(te.dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	req := request("true")
	req.Volumes = map[string]struct{}{"/home/sailor": {}}
	req.HostConfig.Binds = []string{te.dir + "/file/below:/x"} // cannot be made
	if _, err := te.ContainerCreate(t.Context(), "ship", req, nil); err == nil {
		t.Fatal("it was created")
	}
	for _, dir := range []string{te.containersDir(), te.volumesDir(), te.cfg.StateRoot + "/image/containers"} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	te.create("ship", request("true")) // the name is free again
}

// TestExitThatCannotBeWritten takes the container's directory away while it
// runs: the exit is known all the same, and kept by the keeper.
func TestExitThatCannotBeWritten(t *testing.T) {
	te := newTestEngine(t)
	ctx := t.Context()
	te.log = quietLog()
	id := te.run("ship", request("sleep", "1000"))
	c, err := te.containers.get(id)
	if err != nil {
		t.Fatal(err)
	}
	mark, dir := c.exitCount(), c.dir
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerKill(ctx, id, "KILL"); err != nil {
		t.Errorf("kill: %v", err)
	}
	if res, err := c.wait(ctx, container.WaitConditionNextExit, mark); err != nil || res.code != 137 {
		t.Errorf("exit %+v, %v", res, err)
	}
	if err := te.ContainerStart(ctx, id); err == nil {
		t.Error("started without a place for its record")
	}
	if known, err := te.keeper.list(ctx); err != nil || len(known) != 0 && !c.owed {
		t.Errorf("keeper: %v, %v", known, err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerStart(ctx, id); err != nil {
		t.Errorf("start when there is room again: %v", err)
	}
	if err := te.ContainerStart(ctx, id); !errors.Is(err, errdefs.ErrNotModified) {
		t.Errorf("start twice: %v", err)
	}
}
