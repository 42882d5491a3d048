package engine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/google/nftables"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// damage is one thing put wrong behind the engine's back.
type damage struct {
	name string
	// plant does it; "ship" runs on the bridge, with a published port, shared
	// memory and a volume, "wreck" has exited.
	plant func(t *testing.T, te *testEngine, ship, wreck *ctr)
	// object and problem are parts of what must be found.
	object, problem string
	// undo is what a person does where the engine cannot mend it; nil: it can.
	undo func(t *testing.T, te *testEngine, ship, wreck *ctr)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// restart is the remedy for what only a new start gives back.
func restart(t *testing.T, te *testEngine, ship, _ *ctr) {
	t.Helper()
	zero := 0
	must(t, te.ContainerRestart(t.Context(), ship.id, StopOptions{Timeout: &zero}))
}

func damages() []damage {
	stray := strings.Repeat("ab", 32)
	return []damage{
		{name: "record lost", object: "container wreck", problem: "record cannot be read",
			plant: func(t *testing.T, te *testEngine, _, wreck *ctr) {
				must(t, os.Remove(filepath.Join(wreck.dir, recordFile)))
			}},
		{name: "record changed", object: "container ship", problem: "not what the engine holds",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				rec := *ship.rec
				rec.Name = "pirate"
				must(t, rec.save(ship.dir))
			}},
		{name: "frozen by somebody", object: "container ship", problem: "frozen",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				g, err := te.cgroup(ship.rec)
				must(t, err)
				defer g.Close()
				must(t, g.Freeze())
			},
			undo: func(t *testing.T, te *testEngine, ship, _ *ctr) { must(t, te.ContainerUnpause(t.Context(), ship.id)) }},
		{name: "says it runs", object: "container wreck", problem: "the keeper knows no process",
			plant: func(t *testing.T, te *testEngine, _, wreck *ctr) {
				must(t, wreck.note(func(r *record) { r.State.Status, r.State.Pid = stateRunning, 1 }))
			}},
		{name: "left half done", object: "container wreck", problem: "half done: starting",
			plant: func(t *testing.T, te *testEngine, _, wreck *ctr) {
				must(t, wreck.note(func(r *record) { r.State.Status = stateStarting }))
			}},
		{name: "wrong pid", object: "container ship", problem: "its record says process 1",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, ship.note(func(r *record) { r.State.Pid = 1 }))
			}},
		{name: "runs in spite of its record", object: "container ship", problem: "the record says exited",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, ship.note(func(r *record) { r.State.Status = stateExited }))
			},
			undo: func(t *testing.T, te *testEngine, ship, _ *ctr) {}},
		{name: "volume lost", object: "container ship", problem: "what it mounts at /data is gone",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, os.RemoveAll(filepath.Dir(ship.rec.Mounts[0].Source)))
			}},
		{name: "writable layer lost", object: "container wreck", problem: "its writable layer is missing",
			plant: func(t *testing.T, te *testEngine, _, wreck *ctr) {
				must(t, te.images.RemoveSnapshot(t.Context(), wreck.id))
			},
			undo: func(t *testing.T, te *testEngine, _, wreck *ctr) {
				img, err := te.images.Get(t.Context(), "busybox")
				must(t, err)
				must(t, te.images.Prepare(t.Context(), wreck.id, img))
			}},
		{name: "shared memory unmounted", object: "container ship", problem: "shared memory is not mounted",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, unix.Unmount(te.shmDir(ship.id), unix.MNT_DETACH))
			},
			undo: restart},
		{name: "shared memory of nobody", object: "mount ", problem: "shared memory of a container that is gone",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, os.MkdirAll(te.shmDir(stray), 0o700))
				must(t, unix.Mount("shm", te.shmDir(stray), "tmpfs", 0, ""))
			}},
		{name: "cgroup of nobody", object: "cgroup ", problem: "belongs to no container",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) { plantCgroup(t, te.cfg.CgroupParent+"/"+stray) }},
		{name: "cgroup of what has ended", object: "container wreck", problem: "its cgroup",
			plant: func(t *testing.T, te *testEngine, _, wreck *ctr) { plantCgroup(t, te.cgroupPath(wreck.rec)) }},
		{name: "directory of nobody", object: "directory ", problem: "what is left of a container that was removed",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, os.Mkdir(filepath.Join(te.containersDir(), stray+doomedSuffix), 0o700))
			}},
		{name: "writable layer of nobody", object: "directory ", problem: "writable layer of no container",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				img, err := te.images.Get(t.Context(), "busybox")
				must(t, err)
				must(t, te.images.Prepare(t.Context(), stray, img))
			}},
		{name: "list of images lost", object: "file ", problem: "not the list of images",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, os.Remove(filepath.Join(te.cfg.StateRoot, "image/images.json")))
			}},
		{name: "blob lost", object: "image ", problem: "is missing",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) { must(t, os.Rename(aBlob(t, te), te.dir+"/blob")) },
			undo: func(t *testing.T, te *testEngine, _, _ *ctr) {
				img, err := te.images.Get(t.Context(), "busybox")
				must(t, err)
				must(t, os.Rename(te.dir+"/blob", te.cfg.StateRoot+"/image/content/blobs/sha256/"+img.Layers[0].Digest.Encoded()))
			}},
		{name: "layer lost", object: "image ", problem: "without its directory",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				dirs, err := filepath.Glob(te.cfg.StateRoot + "/image/layers/snapshots/*/fs/bin/busybox")
				if err != nil || len(dirs) != 1 {
					t.Fatal(dirs, err)
				}
				must(t, os.RemoveAll(filepath.Dir(filepath.Dir(filepath.Dir(dirs[0])))))
			}},
		{name: "blob of nobody", object: "image store", problem: "1 blobs and 0 layers",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				path := te.cfg.StateRoot + "/image/content/blobs/sha256/" + stray
				must(t, os.WriteFile(path, nil, 0o600))
			}},
		{name: "namespace of nobody", object: "network namespace ", problem: "belongs to no running container",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				_, err := te.nets.NewNamespace(stray)
				must(t, err)
			}},
		{name: "namespace not pinned", object: "container ship", problem: "not pinned",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) { must(t, te.nets.RemoveNamespace(ship.id)) }},
		{name: "lease lost", object: "network of container ", problem: "its lease on disk",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, os.Remove(filepath.Join(te.cfg.RunRoot, "network", ship.id+".lease")))
			}},
		{name: "lease of nobody", object: "file ", problem: "a lease that nobody holds",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, os.WriteFile(filepath.Join(te.cfg.RunRoot, "network", stray+".lease"), nil, 0o600))
			}},
		{name: "link lost", object: "network of container ", problem: "has no network",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, netlink.LinkDel(linkNamed(t, ship.rec.Attached.HostLink)))
			},
			undo: restart},
		{name: "link off the bridge", object: "network of container ", problem: "not on the bridge",
			plant: func(t *testing.T, te *testEngine, ship, _ *ctr) {
				must(t, netlink.LinkSetNoMaster(linkNamed(t, ship.rec.Attached.HostLink)))
			}},
		{name: "bridge down", object: "link ", problem: "the bridge is down",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, netlink.LinkSetDown(linkNamed(t, te.cfg.BridgeName)))
			}},
		{name: "bridge lost", object: "link ", problem: "is gone",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, netlink.LinkDel(linkNamed(t, te.cfg.BridgeName)))
			}},
		{name: "forwarding off", object: "sysctl ", problem: "it is off",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
			}},
		{name: "firewall flushed", object: "firewall table ", problem: "it is gone",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				withFirewall(t, func(c *nftables.Conn) { c.DelTable(ourTable(te)) })
			}},
		{name: "firewall rules flushed", object: "firewall table ", problem: "chain forward has 0 rules",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				withFirewall(t, func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Name: "forward", Table: ourTable(te)}) })
			}},
		{name: "published port lost", object: "firewall table ", problem: "1 of 1 published ports are missing",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				withFirewall(t, func(c *nftables.Conn) {
					for _, name := range []string{"by_addr", "by_port"} {
						set, err := c.GetSetByName(ourTable(te), name)
						must(t, err)
						c.FlushSet(set)
					}
				})
			}},
		{name: "network record lost", object: "file ", problem: "not what the engine holds",
			plant: func(t *testing.T, te *testEngine, _, _ *ctr) {
				must(t, os.Remove(filepath.Join(te.cfg.StateRoot, "network/network.json")))
			}},
	}
}

func ourTable(te *testEngine) *nftables.Table {
	return &nftables.Table{Name: te.cfg.BridgeName, Family: nftables.TableFamilyIPv4}
}

func withFirewall(t *testing.T, f func(c *nftables.Conn)) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	f(c)
	must(t, c.Flush())
}

func linkNamed(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func aBlob(t *testing.T, te *testEngine) string {
	t.Helper()
	img, err := te.images.Get(t.Context(), "busybox")
	must(t, err)
	return te.cfg.StateRoot + "/image/content/blobs/sha256/" + img.Layers[0].Digest.Encoded()
}

// plantCgroup makes a cgroup with a process in it.
func plantCgroup(t *testing.T, path string) {
	t.Helper()
	g, err := cgroup.Create(path, nil)
	must(t, err)
	defer g.Close()
	sleeper := exec.Command("sleep", "1000")
	must(t, sleeper.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); sleeper.Wait() }() // the repair kills it
	t.Cleanup(func() { sleeper.Process.Kill(); <-ended })
	for _, file := range g.JoinPaths() {
		must(t, os.WriteFile(file, []byte(fmt.Sprint(sleeper.Process.Pid)), 0))
	}
}

// TestCheck plants one damage after the other: each is found, and nothing else;
// it is mended, by the engine or by a person; and then it is found no more.
func TestCheck(t *testing.T) {
	te := newTestEngine(t)
	te.log = quietLog()
	req := request("sleep", "1000")
	req.Volumes = map[string]struct{}{"/data": {}}
	req.HostConfig.NetworkMode, req.HostConfig.IpcMode = "bridge", "shareable"
	req.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: addr("127.0.0.1"), HostPort: "8098"}}}
	ship := te.mustGet(te.run("ship", req))
	wreckReq := request("true")
	wreck := te.mustGet(te.run("wreck", wreckReq))
	te.wait(wreck.id, container.WaitConditionNotRunning)
	must(t, wreck.lock(t.Context()))
	wreck.unlock()
	te.findNothing(t)
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) {
			d.plant(t, te, ship, wreck)
			f := te.findOne(t, false, d)
			if f.Repairable != (d.undo == nil) && d.name != "frozen by somebody" && d.name != "runs in spite of its record" {
				t.Errorf("repairable %v: %+v", f.Repairable, f)
			}
			f = te.findOne(t, true, d)
			if f.Repairable != (f.Repaired != "") || f.Error != "" || f.Remedy == "" {
				t.Errorf("after the repair: %+v", f)
			}
			if d.undo != nil {
				d.undo(t, te, ship, wreck)
			}
			if !ship.snapshot().State.active() {
				te.wait(ship.id, container.WaitConditionNotRunning)
				must(t, te.ContainerStart(t.Context(), ship.id))
			}
			te.findNothing(t)
		})
	}
	if st := te.inspect("ship").State; !st.Running {
		t.Errorf("state at the end: %+v", st)
	}
}

func (te *testEngine) mustGet(id string) *ctr {
	te.t.Helper()
	c, err := te.containers.get(id)
	if err != nil {
		te.t.Fatal(err)
	}
	return c
}

// findOne checks and wants the damage found, among what follows from it.
func (te *testEngine) findOne(t *testing.T, repair bool, d damage) CheckFinding {
	t.Helper()
	report, err := te.Check(t.Context(), repair)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if strings.HasPrefix(f.Object, d.object) && strings.Contains(f.Problem, d.problem) {
			return f
		}
	}
	t.Fatalf("%s %q is not found, but %+v", d.object, d.problem, report.Findings)
	return CheckFinding{}
}

func (te *testEngine) findNothing(t *testing.T) {
	t.Helper()
	report, err := te.Check(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		t.Errorf("found %s: %s", f.Object, f.Problem)
	}
	if report.Checked["containers"] != 2 || report.Checked["images"] != 1 || report.Checked["networks"] != 3 {
		t.Errorf("checked %v", report.Checked)
	}
}
