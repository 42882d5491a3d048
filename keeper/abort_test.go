package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
)

// stuckHook is a hook that says its pid on a named pipe, and then does not end.
func (h *harness) stuckHook(pipe string) []specs.Hook {
	must(h.t, unix.Mkfifo(pipe, 0o600))
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo $$ >" + pipe + "; exec sleep 1000"}}}
}

// startStuck starts a container that hangs, and calls it off when that has said so.
func (h *harness) startStuck(r *StartRequest, pipe string) (said string, err error) {
	h.t.Helper()
	ctx, cancel := context.WithCancelCause(h.t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.Start(ctx, r)
		done <- err
	}()
	b, err := os.ReadFile(pipe)
	must(h.t, err)
	cancel(errChanged)
	return strings.TrimSpace(string(b)), <-done
}

var errChanged = errors.New("changed my mind")

// A start that hangs in a hook is ended by who asked for it, and nothing of it is
// left.
func TestStartIsCalledOff(t *testing.T) {
	for kind, list := range map[string]func(*specs.Hooks) *[]specs.Hook{
		"createRuntime":  func(k *specs.Hooks) *[]specs.Hook { return &k.CreateRuntime },
		"startContainer": func(k *specs.Hooks) *[]specs.Hook { return &k.StartContainer },
		"poststart":      func(k *specs.Hooks) *[]specs.Hook { return &k.Poststart },
	} {
		t.Run(kind, func(t *testing.T) {
			h := newContainerHarness(t)
			files := h.keeperFiles()
			r := h.container("a", "exec sleep 1000")
			pipe := filepath.Join(h.root, "rootfs", "pipe")
			r.Spec.Hooks = &specs.Hooks{}
			hooks := h.stuckHook(pipe)
			if kind == "startContainer" { // it sees the container's root
				hooks[0].Args[2] = strings.ReplaceAll(hooks[0].Args[2], pipe, "/pipe")
				r.Spec.Root.Readonly = false
			}
			*list(r.Spec.Hooks) = hooks
			said, err := h.startStuck(r, pipe)
			if !errors.Is(err, errChanged) || !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), kind+" hook 0") {
				t.Errorf("start called off: %v", err)
			}
			if pid, _ := strconv.Atoi(said); kind != "startContainer" && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				t.Errorf("the hook, process %s, runs on", said)
			}
			if _, err := cgroup.Load(r.Spec.Linux.CgroupsPath); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("its cgroup: %v", err)
			}
			if _, err := os.Stat(filepath.Join(h.root, "containers", "a")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its record: %v", err)
			}
			h.until("all descriptors are released", func() bool { return h.keeperFiles() <= files })
			h.start(h.container("a", "exec sleep 1000"))
		})
	}
}

// What begins while a request is on its way is not overtaken by its end: a keeper
// that stands still reads both, and nothing runs.
func TestStoppedKeeperHearsOfTheEnd(t *testing.T) {
	h := newContainerHarness(t)
	conn := h.rawConn()
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGSTOP))
	r := h.container("a", "exec sleep 1000")
	r.Spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}}}
	body, err := json.Marshal(r)
	must(t, err)
	must(t, writeFrame(conn, &request{Op: opStart, ID: "a", Body: body}))
	must(t, writeFrame(conn, &request{Op: opAbort}))
	must(t, syscall.Kill(h.Info().Pid, syscall.SIGCONT))
	if _, err := receive(conn); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("start called off: %v", err)
	}
}

// An exec that is frozen on its way in holds up
// neither who calls it off nor the container's end.
func TestExecIsCalledOff(t *testing.T) {
	h := newContainerHarness(t)
	r := h.container("a", "exec sleep 1000")
	h.start(r)
	g, err := cgroup.Load(r.Spec.Linux.CgroupsPath)
	must(t, err)
	defer g.Close()
	if g.Mode() == cgroup.Unified {
		t.Skip("on cgroup v2 a process is born in its cgroup, and one that is frozen there can be killed")
	}
	must(t, g.Freeze())
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.Exec(ctx, execIn("a", "x", "exec sleep 1000"))
		done <- err
	}()
	for entered := false; !entered; {
		procs, err := g.Procs()
		must(t, err)
		entered = len(procs) > 1
	}
	cancel(errChanged)
	if err := <-done; !errors.Is(err, errChanged) {
		t.Errorf("exec called off: %v", err)
	}
	if list, err := h.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the keeper knows %v, %v", list, err)
	}
	must(t, g.Thaw())
	must(t, h.Signal(t.Context(), "a", "", syscall.SIGKILL))
	h.wait("a", "")
}
