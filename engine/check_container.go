package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
)

// checkPatience is how long a check waits for a container that is being worked
// on (committed, say); it is left out then.
const checkPatience = 3 * time.Second

// containers looks at every container while its state does not change.
func (a *auditor) containers(ctx context.Context) error {
	client, err := a.e.keeper.connect(ctx)
	if err != nil {
		return err
	}
	for _, c := range a.e.containers.all() {
		patient, cancel := context.WithTimeout(ctx, checkPatience)
		err := c.lock(patient)
		cancel()
		if err != nil {
			continue // removed, or busy
		}
		err = a.container(ctx, c, client)
		c.unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// containerAudit is one container being looked at. Who made it holds act.
type containerAudit struct {
	*auditor
	c      *ctr
	rec    *record
	object string
}

func (a *auditor) container(ctx context.Context, c *ctr, client *keeper.Client) error {
	x := &containerAudit{auditor: a, c: c, rec: c.rec, object: fmt.Sprintf("container %s (%s)", c.rec.Name, short(c.id))}
	st, err := client.Status(ctx, c.id, "")
	there := err == nil
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	x.state(st, there)
	x.files()
	x.disk(ctx)
	x.shm()
	if there && !st.Exited && x.rec.State.active() {
		x.running(st)
	} else if !there && !x.rec.State.active() {
		x.ended()
	}
	return x.execs(ctx, client)
}

// state compares the state with the keeper's word.
func (x *containerAudit) state(st keeper.Status, there bool) {
	settle := func(ctx context.Context) (string, error) { return x.e.settle(ctx, x.c) }
	status, runs := x.rec.State.Status, there && !st.Exited
	switch {
	case status == stateCreating || status == stateStarting || status == stateRemoving:
		x.found.Add(x.object, fmt.Sprintf("it was left half done: %s", status), "finish it or undo it", settle)
	case status == stateDead:
		x.found.Add(x.object, "its removal has failed: "+x.rec.State.Error, "remove it again", settle)
	case x.rec.State.active() && !there:
		x.found.Add(x.object, fmt.Sprintf("it is %s by its record, and the keeper knows no process of it", status),
			fmt.Sprintf("note that it has ended, with exit code %d", keeper.ExitCodeLost), settle)
	case x.rec.State.active() && !runs && !x.c.owed:
		x.found.Add(x.object, "it has ended and the record does not say so", "note its exit", settle)
	case x.rec.State.active() && runs && x.rec.State.Pid != st.Pid:
		x.found.Add(x.object, fmt.Sprintf("its record says process %d, the keeper %d", x.rec.State.Pid, st.Pid), "note the right one", settle)
	case !x.rec.State.active() && runs:
		x.found.Add(x.object, fmt.Sprintf("process %d runs, and the record says %s", st.Pid, status), "kill the process", settle)
	}
}

// settle brings a container's record in line, as the start of an engine does.
func (e *Engine) settle(ctx context.Context, c *ctr) (string, error) {
	client, err := e.keeper.connect(ctx)
	if err != nil {
		return "", err
	}
	st, err := client.Status(ctx, c.id, "")
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", err
	}
	there := err == nil
	if err = c.lock(ctx); err == nil {
		err = e.reconcileNow(ctx, c, st, there)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", err
	}
	if c.gone() {
		return "removed what was left of it", nil
	}
	return fmt.Sprintf("noted that it is %s", c.snapshot().State.Status), nil
}

// running looks at what the kernel has for a running container.
func (x *containerAudit) running(st keeper.Status) {
	g, err := cgroup.Load(x.e.cgroupPath(x.rec))
	if err != nil {
		x.found.Add(x.object, "its cgroup "+x.e.cgroupPath(x.rec)+" is gone: it has no limits", "restart the container", nil)
	} else {
		defer g.Close()
		frozen, err := g.Frozen()
		if paused := x.rec.State.Status == statePaused; err == nil && frozen != paused && x.rec.State.Status != stateStarting {
			problem := "it is frozen, and the record says that it runs"
			if paused {
				problem = "it is paused by its record, and runs"
			}
			x.found.Add(x.object, problem, "note what is", func(ctx context.Context) (string, error) { return x.e.settle(ctx, x.c) })
		}
	}
	if !x.rec.HostConfig.NetworkMode.IsBridge() {
		return
	}
	n, err := x.e.nets.Inspect("")
	if _, has := n.Containers[x.c.id]; err == nil && !has {
		x.found.Add(x.object, "it has no address on its network", "restart the container", nil)
	}
	if !x.e.nets.Pinned(x.c.id, st.Pid) {
		x.found.Add(x.object, "its network namespace is not pinned at "+x.e.netnsPath(x.c.id), "pin it again", func(ctx context.Context) (string, error) {
			if err := x.c.lock(ctx); err != nil {
				return "", err
			}
			defer x.c.unlock()
			if x.c.rec.State.Pid != st.Pid {
				return "left it alone: it has ended meanwhile", nil
			}
			return "pinned it again", x.e.nets.Repin(x.c.id, st.Pid)
		})
	}
}

// ended looks for what a container that does not run has left in the kernel.
func (x *containerAudit) ended() {
	path := x.e.cgroupPath(x.rec)
	g, err := cgroup.Load(path)
	if err != nil {
		return // gone, as it should be
	}
	g.Close()
	x.found.Add(x.object, "it does not run and its cgroup "+path+" is still there", "kill what is in it and remove it",
		func(ctx context.Context) (string, error) {
			if err := x.c.lock(ctx); err != nil {
				return "", err
			}
			defer x.c.unlock()
			if x.c.rec.State.active() {
				return "left it alone: it runs now", nil
			}
			return "removed the cgroup", endCgroup(path)
		})
}

// endCgroup kills what is in a cgroup and removes it.
func endCgroup(path string) error {
	g, err := cgroup.Load(path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.Kill(unix.SIGKILL); err != nil {
		return errors.Join(err, g.Close())
	}
	return g.Destroy()
}

// files looks at what is in the container's directory.
func (x *containerAudit) files() {
	path := filepath.Join(x.c.dir, recordFile)
	onDisk, err := loadRecord(x.c.dir)
	if err == nil && sameRecord(onDisk, x.rec) {
		return
	}
	problem := "its record " + path + " is not what the engine holds"
	if err != nil {
		problem = fmt.Sprintf("its record cannot be read: %v", err)
	}
	x.found.Add(x.object, problem, "write it again", func(ctx context.Context) (string, error) {
		if err := x.c.lock(ctx); err != nil {
			return "", err
		}
		defer x.c.unlock()
		if err := os.MkdirAll(x.c.dir, 0o700); err != nil {
			return "", err
		}
		return "wrote it", x.c.rec.save(x.c.dir)
	})
}

// sameRecord compares what is lasting in two records. What the network gave is
// written with the next change of state.
func sameRecord(a, b *record) bool {
	x, y := *a, *b
	x.Attached, y.Attached = nil, nil
	one, err := json.Marshal(x)
	two, err2 := json.Marshal(y)
	return err != nil || err2 != nil || string(one) == string(two)
}

// disk looks for the writable layer, the volumes and the sources of binds.
func (x *containerAudit) disk(ctx context.Context) {
	if problem := x.e.images.SnapshotProblem(ctx, x.c.id); problem != "" && x.rec.State.Status != stateRemoving {
		x.found.Add(x.object, "its writable layer "+problem, "remove the container; what it had changed is lost", nil)
	}
	for i := range x.rec.Mounts {
		m := &x.rec.Mounts[i]
		if m.Source == "" || exists(m.Source) {
			continue
		}
		problem := fmt.Sprintf("what it mounts at %s is gone: %s", m.Destination, m.Source)
		if m.Type == mount.TypeVolume && strings.HasPrefix(m.Source, x.e.volumesDir()+"/") {
			x.found.Add(x.object, problem, "make an empty volume in its place", func(context.Context) (string, error) {
				return "made an empty volume; what was in it is lost", os.MkdirAll(m.Source, 0o755)
			})
			continue
		}
		x.found.Add(x.object, problem, "put it back, or remove the container", nil)
	}
}

// shm looks at shared memory, which is mounted while a container runs.
func (x *containerAudit) shm() {
	if !x.rec.HostConfig.IpcMode.IsShareable() {
		return
	}
	dir, mounted := x.e.shmDir(x.c.id), false
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st) == nil {
		mounted = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	switch active := x.rec.State.active(); {
	case active && !mounted:
		x.found.Add(x.object, "its shared memory is not mounted at "+dir+": other containers cannot join it", "restart the container", nil)
	case !active && exists(dir):
		x.found.Add(x.object, "it does not run and its shared memory is still at "+dir, "unmount it", func(ctx context.Context) (string, error) {
			if err := x.c.lock(ctx); err != nil {
				return "", err
			}
			defer x.c.unlock()
			if x.c.rec.State.active() {
				return "left it alone: it runs now", nil
			}
			return "unmounted it", x.e.removeShm(x.c.id)
		})
	}
}

// execs looks for executed commands that have ended and are not known to have.
func (x *containerAudit) execs(ctx context.Context, client *keeper.Client) error {
	for _, id := range x.c.execIDs() {
		x.c.mu.Lock()
		exec := x.c.execs[id]
		x.c.mu.Unlock()
		if exec == nil || x.c.snapshotExec(exec).Status != execRunning {
			continue
		}
		st, err := client.Status(ctx, x.c.id, id)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		if err == nil && !st.Exited {
			continue
		}
		x.found.Add(x.object, fmt.Sprintf("its exec %s is running by its record, and is not", short(id)), "note that it has ended",
			func(ctx context.Context) (string, error) {
				st, err := client.Status(ctx, x.c.id, id)
				if errors.Is(err, errdefs.ErrNotFound) {
					st = keeper.Status{ContainerID: x.c.id, ExecID: id, ExitCode: keeper.ExitCodeLost, ExitedAt: time.Now()}
				} else if err != nil || !st.Exited {
					return "left it alone", err
				}
				return fmt.Sprintf("noted exit code %d", st.ExitCode), x.e.execEnded(x.c, st)
			})
	}
	return nil
}
