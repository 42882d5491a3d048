package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// These tests make real cgroups, on whichever layout the host has. The same
// binary passes on a hybrid and on a unified host.

// roleVariable makes the test binary play a process of a container.
const roleVariable = "BERTH_CGROUP_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		play(os.Args[1:])
	}
	status := m.Run()
	if err := RemoveEmpty(testRoot); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
		status = 1
	}
	os.Exit(status)
}

// play is the process in the group. It says "ready", then does its role.
func play(args []string) {
	switch args[0] {
	case "wait": // for the end of input
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	case "echo": // lines
		fmt.Println("ready")
		io.Copy(os.Stdout, os.Stdin)
	case "hog": // args[1] MiB of memory
		n, _ := strconv.Atoi(args[1])
		fmt.Println("ready")
		for i := range n {
			block := make([]byte, 1<<20)
			for j := 0; j < len(block); j += 4096 {
				block[j] = 1
			}
			hoard = append(hoard, block)
			fmt.Println(i + 1)
		}
	case "keep": // args[1] MiB of memory until the end of input
		n, _ := strconv.Atoi(args[1])
		block := make([]byte, n<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		hoard = append(hoard, block)
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	case "burn": // CPU time, for args[1] ms
		n, _ := strconv.Atoi(args[1])
		fmt.Println("ready")
		for ownCPU() < int64(n)*1e6 {
		}
	case "burn on": // says when args[1] ms of CPU time are used, and goes on
		n, _ := strconv.Atoi(args[1])
		fmt.Println("ready")
		for ownCPU() < int64(n)*1e6 {
		}
		fmt.Println("used")
		for ownCPU() > 0 {
		}
	case "spawn": // args[1] processes, says how many it got
		n, _ := strconv.Atoi(args[1])
		fmt.Println(forkWaiting(n))
		io.Copy(io.Discard, os.Stdin)
	case "open": // each device of args[1:], says which worked
		for _, name := range args[1:] {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			fmt.Println(name, err == nil)
			f.Close()
		}
		io.Copy(io.Discard, os.Stdin)
	case "write": // args[2] MiB to the file args[1], past the page cache
		f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|unix.O_DIRECT, 0o600)
		if err != nil {
			fmt.Println(err)
			break
		}
		n, _ := strconv.Atoi(args[2])
		block, _ := unix.Mmap(-1, 0, n<<20, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
		_, err = f.Write(block)
		fmt.Println(err, f.Close())
	case "create": // the group args[1] with a limit, says how that went
		g, err := Create(args[1], &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](64 << 20)}})
		switch {
		case errors.Is(err, errdefs.ErrPermission) && errdefs.Hint(err) != "":
			fmt.Println("permission denied")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println("made", g.Destroy())
		}
	case "affinity": // of all processors those it gets, whatever its parent may use
		var all unix.CPUSet
		all.Fill()
		if err := unix.SchedSetaffinity(os.Getpid(), &all); err != nil {
			fmt.Println(err)
		}
		status, _ := os.ReadFile("/proc/self/status")
		_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:")
		rest, _, _ = strings.Cut(rest, "\n")
		fmt.Println(strings.TrimSpace(rest))
	case "huge": // maps args[1] pages of 2 MiB
		n, _ := strconv.Atoi(args[1])
		b, err := unix.Mmap(-1, 0, n<<21, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_HUGETLB)
		for i := 0; i < len(b); i += 1 << 21 {
			b[i] = 1
		}
		fmt.Println(err)
	case "chain":
		fmt.Println("ready")
		runChain()
	}
	os.Exit(0)
}

var hoard [][]byte

func ownCPU() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return ts.Nano()
}

var testRoot = fmt.Sprintf("/berth-test-%d", os.Getpid())

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making cgroups needs root")
	}
}

// newGroup makes a group that the test's end kills, removes and looks for.
func newGroup(t testing.TB, res *specs.LinuxResources) *Group {
	t.Helper()
	needRoot(t)
	g, err := Create(testRoot+"/"+strings.ReplaceAll(t.Name(), "/", "-"), res)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endGroup(t, g) })
	return g
}

func endGroup(t testing.TB, g *Group) {
	t.Helper()
	if err := g.Kill(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := g.Destroy(); err != nil {
		t.Error(err)
	}
	assertGone(t, g)
}

func assertGone(t testing.TB, g *Group) {
	t.Helper()
	for name, dir := range g.State().Dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %s is left (%v)", name, dir, err)
		}
	}
}

// member is a process in a group, with its pipes.
type member struct {
	t    testing.TB
	pid  int
	in   *os.File
	out  *bufio.Reader
	done bool
}

func join(t testing.TB, g *Group, args ...string) *member {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, pid: spawnIn(t, g, inR, outW, args...), in: inW, out: bufio.NewReader(outR)}
	inR.Close()
	outW.Close()
	t.Cleanup(func() {
		inW.Close()
		if g != nil {
			g.Thaw() // on v1 the frozen cannot die
		}
		if !m.done {
			unix.Kill(m.pid, unix.SIGKILL)
			m.wait()
		}
		outR.Close()
	})
	return m
}

func (m *member) line() string {
	s, _ := m.out.ReadString('\n')
	return strings.TrimSuffix(s, "\n")
}

func (m *member) expect(want string) {
	m.t.Helper()
	got := m.line()
	if got == "" {
		ws := m.wait()
		m.t.Fatalf("process in the group ended (%d, signal %v) without a word, want %q", ws.ExitStatus(), ws.Signal(), want)
	}
	if got != want {
		m.t.Fatalf("process in the group said %q, want %q", got, want)
	}
}

func (m *member) wait() unix.WaitStatus {
	m.t.Helper()
	var ws unix.WaitStatus
	if _, err := retryEINTR(func() (int, error) { return unix.Wait4(m.pid, &ws, 0, nil) }); err != nil {
		m.t.Fatal(err)
	}
	m.done = true
	return ws
}

func ptr[T any](v T) *T { return &v }

func TestJoinEveryHierarchy(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "wait")
	m.expect("ready")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.pid))
	if err != nil {
		t.Fatal(err)
	}
	hs, err := parseProcCgroup(string(text))
	if err != nil {
		t.Fatal(err)
	}
	joined := 0
	for _, h := range hs {
		if _, ours := g.State().Dirs[h.name()]; ours {
			joined++
			if h.own != g.Path() {
				t.Errorf("hierarchy %q: process is in %s, want %s", h.name(), h.own, g.Path())
			}
		}
	}
	if joined != len(g.branches) {
		t.Errorf("process shows %d of %d hierarchies", joined, len(g.branches))
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{m.pid}) {
		t.Errorf("Procs: %v, %v; want [%d]", pids, err, m.pid)
	}
}

func TestMemoryLimitKillsAndTells(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](32 << 20), Swap: ptr[int64](32 << 20)}})
	w, err := g.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	told := make(chan error, 1)
	go func() { told <- w.Wait() }()
	m := join(t, g, "hog", "64")
	m.expect("ready")
	if ws := m.wait(); ws.Signal() != unix.SIGKILL {
		t.Errorf("hog ended with %v, want a kill", ws)
	}
	if err := <-told; err != nil {
		t.Errorf("watch: %v", err)
	}
	if n, err := g.OOMKills(); err != nil || n != 1 {
		t.Errorf("OOM kills: %d, %v; want 1", n, err)
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != 32<<20 || s.Memory.OOMKills != 1 {
		t.Errorf("memory: %+v", s.Memory)
	}
	// A process that is being killed may take a little more than the limit.
	if b, err := g.Balance(); err != nil || b.OOMKills != 1 || b.MemoryPeak < 16<<20 || b.MemoryPeak > 33<<20 || b.CPU == 0 {
		t.Errorf("balance: %+v, %v", b, err)
	}
	if g.Mode() == Unified && s.Memory.Failures == 0 { // Linux 6.18 does not count them on v1
		t.Error("no failures counted")
	}
}

func TestOOMWatchEndsWithGroup(t *testing.T) {
	g := newGroup(t, nil)
	w, err := g.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() { told <- w.Wait() }()
	m := join(t, g, "wait")
	m.expect("ready")
	m.in.Close()
	m.wait()
	if err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != io.EOF {
		t.Errorf("watch of a removed group: %v, want EOF", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := g.Stats(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Stats of a removed group: %v, want not found", err)
	}
}

func TestOOMWatchClose(t *testing.T) {
	w, err := newGroup(t, nil).WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() { told <- w.Wait() }()
	w.Close()
	if err := <-told; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed watch: %v", err)
	}
}

func TestPidsLimitBars(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](40)}})
	m := join(t, g, "spawn", "50")
	got, err := strconv.Atoi(m.line())
	if err != nil || got == 0 || got >= 40 {
		t.Errorf("a group of 40 tasks started %d processes (%v)", got, err)
	}
	s, err := g.Stats()
	if err != nil || s.Pids.Limit != 40 || s.Pids.Current == 0 || s.Pids.Current > 40 {
		t.Errorf("pids: %+v, %v", s.Pids, err)
	}
}

func TestCPUQuotaThrottles(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](5000), Period: ptr[uint64](20000)}})
	m := join(t, g, "burn", "1000000")
	m.expect("ready")
	// On a CPU with much else to do it may not come to its quota in every period.
	for throttled := false; !throttled; {
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		throttled = s.CPU.ThrottledPeriods > 0 && s.CPU.ThrottledTime > 0 && s.CPU.Total > 5e6
	}
}

func TestFreezeStopsThawResumes(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "burn", "1000000")
	m.expect("ready")
	used := func() uint64 {
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.CPU.Total
	}
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("Frozen: %v, %v", frozen, err)
	}
	// A thread counts as frozen when it is about to leave its CPU: what it uses until
	// it has is still to be added.
	var before uint64
	for try := 1; ; try++ {
		before = used()
		for start := ownCPU(); ownCPU()-start < 20e6; {
		}
		after := used()
		if after == before {
			break
		}
		if try == 5 {
			t.Fatalf("frozen group used %d ns", after-before)
		}
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || frozen {
		t.Errorf("Frozen after Thaw: %v, %v", frozen, err)
	}
	for used() == before { // ends when the process runs on
	}
}

func TestKillMissesNoFork(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			g := newGroup(t, nil)
			for range 3 {
				m := join(t, g, "chain")
				m.expect("ready")
			}
			if err := g.Kill(sig); err != nil {
				t.Fatal(err)
			}
			// Only a group without processes can be removed.
			if err := g.Destroy(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKillByFreezing is Kill(SIGKILL) where the kernel has no cgroup.kill.
func TestKillByFreezing(t *testing.T) {
	g := newGroup(t, nil)
	for range 3 {
		m := join(t, g, "chain")
		m.expect("ready")
	}
	if err := g.signalAll(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestKillUnfrozen(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "spawn", fmt.Sprint(signalBatch+5))
	m.expect(fmt.Sprint(signalBatch + 5))
	c := join(t, g, "chain")
	c.expect("ready")
	if err := g.killUnfrozen(errors.New("cannot freeze")); err != nil {
		t.Fatal(err)
	}
	if err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestKillFrozen(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "wait")
	m.expect("ready")
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("after SIGTERM, Frozen: %v, %v", frozen, err)
	}
	if err := g.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.wait()
	if err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

func dev(kind string, major, minor int64, access string, allow bool) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: &major, Minor: &minor, Access: access}
}

func TestDevices(t *testing.T) {
	denyAll := specs.LinuxDeviceCgroup{Access: "rwm"}
	res := func(rules ...specs.LinuxDeviceCgroup) *specs.LinuxResources {
		return &specs.LinuxResources{Devices: append([]specs.LinuxDeviceCgroup{denyAll}, rules...)}
	}
	g := newGroup(t, res(dev("c", 1, 3, "rwm", true), dev("c", 1, 5, "r", true)))
	check := func(null, zero, full bool) {
		t.Helper()
		m := join(t, g, "open", "/dev/null", "/dev/zero", "/dev/full")
		m.expect(fmt.Sprint("/dev/null ", null))
		m.expect(fmt.Sprint("/dev/zero ", zero))
		m.expect(fmt.Sprint("/dev/full ", full))
	}
	check(true, false, false)
	if err := g.Set(res(dev("c", 1, 5, "rw", true), dev("c", 1, wildcard, "m", true))); err != nil {
		t.Fatal(err)
	}
	check(false, true, false)
	if err := g.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
		{Allow: true, Access: "rwm"}, dev("c", 1, 7, "w", false)}}); err != nil {
		t.Fatal(err)
	}
	check(true, true, false)
	if err := g.Set(&specs.LinuxResources{}); err != nil {
		t.Fatal(err)
	}
	check(true, true, false)
}

func TestCreateConflictAndReuse(t *testing.T) {
	g := newGroup(t, nil)
	again, err := Create(g.Path(), nil)
	if err != nil {
		t.Fatalf("take over an empty group: %v", err)
	}
	again.Close()
	m := join(t, g, "wait")
	m.expect("ready")
	if _, err := Create(g.Path(), nil); !errors.Is(err, errdefs.ErrConflict) || errdefs.Hint(err) == "" {
		t.Errorf("create a group in use: %v, want a conflict with a hint", err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) != 1 {
		t.Errorf("the failed Create changed the group: %v, %v", pids, err)
	}
	m.in.Close()
	m.wait()
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(g.Path(), nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("create a frozen group: %v, want a conflict", err)
	}
}

// TestManyAtOnce makes and removes groups side by side, the shared parent included.
func TestManyAtOnce(t *testing.T) {
	needRoot(t)
	parent := testRoot + "/" + t.Name()
	errs := make(chan error)
	const many = 20
	for i := range many {
		go func() {
			g, err := Create(fmt.Sprintf("%s/%d", parent, i), usual())
			if err == nil {
				err = g.Destroy()
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if err := RemoveEmpty(parent); err != nil {
		t.Error(err)
	}
	if err := RemoveEmpty(parent); err != nil {
		t.Errorf("second RemoveEmpty: %v", err)
	}
}

func TestRemoveEmptyLeavesUsed(t *testing.T) {
	g := newGroup(t, nil)
	if err := RemoveEmpty(testRoot); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove the parent of a group: %v, want a conflict", err)
	}
	if _, err := Load(g.Path()); err != nil {
		t.Error(err)
	}
}

func TestCreateUndoes(t *testing.T) {
	needRoot(t)
	path := testRoot + "/" + t.Name()
	for _, res := range []*specs.LinuxResources{
		{CPU: &specs.LinuxCPU{Quota: ptr[int64](1)}},   // the kernel refuses less than 1 ms
		{CPU: &specs.LinuxCPU{Cpus: "0-100000"}},       // no such CPU
		{Rdma: map[string]specs.LinuxRdma{"mlx5": {}}}, // not done here
	} {
		_, err := Create(path, res)
		if !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("Create: %v, want invalid or unsupported", err)
		}
		if _, err := Load(path); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("after the failed Create, Load: %v, want not found", err)
		}
	}
}

func TestDestroyRemovesTree(t *testing.T) {
	g := newGroup(t, nil)
	long := strings.Repeat("n", 200)
	for _, dir := range g.State().Dirs {
		// Deeper than a path can name.
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 25 {
			for _, name := range []string{"beside", long} {
				if err := unix.Mkdirat(fd, name, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			next, err := unix.Openat(fd, long, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			unix.Close(fd)
			if err != nil {
				t.Fatal(err)
			}
			fd = next
		}
		unix.Close(fd)
	}
	if err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	assertGone(t, g)
	if err := g.Destroy(); err != nil {
		t.Errorf("second Destroy: %v", err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) > 0 {
		t.Errorf("Procs of a removed group: %v, %v", pids, err)
	}
	if err := g.Kill(unix.SIGKILL); err != nil {
		t.Errorf("Kill of a removed group: %v", err)
	}
}

func TestDestroyUnused(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "wait")
	m.expect("ready")
	stays := func(why string) {
		t.Helper()
		if done, err := g.DestroyUnused(); done || err != nil {
			t.Fatalf("%s: %v, %v", why, done, err)
		}
		for name, dir := range g.State().Dirs {
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("%s: %s: %v", why, name, err)
			}
		}
	}
	stays("in use")
	if g.mode == Unified {
		return
	}
	// Gone from the hierarchies by which processes are held and kept from forking.
	for _, controller := range []string{"freezer", "pids", "cpu"} {
		b := g.branch(controller)
		if b == nil || b.v2 {
			continue
		}
		up := branch{hierarchy: b.hierarchy, dir: filepath.Dir(b.dir)}
		pids, err := b.procs()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range pids {
			if err := up.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	stays("in use in some hierarchies")
	if err := g.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if ws := m.wait(); ws.Signal() != unix.SIGKILL {
		t.Errorf("the process that had left some hierarchies: %v", ws)
	}
	if err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	assertGone(t, g)
	if done, err := g.DestroyUnused(); !done || err != nil {
		t.Errorf("a group that is gone: %v, %v", done, err)
	}

	g = newGroup(t, nil)
	if done, err := g.DestroyUnused(); !done || err != nil {
		t.Errorf("a fresh group: %v, %v", done, err)
	}
	assertGone(t, g)
}

func TestDestroyWaitsForTheDying(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "spawn", "20")
	m.expect("20")
	if err := g.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
}

func TestRestoreAndLoad(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "wait")
	m.expect("ready")
	for name, find := range map[string]func() (*Group, error){
		"Load":    func() (*Group, error) { return Load(g.Path()) },
		"Restore": func() (*Group, error) { return Restore(g.State()) },
	} {
		same, err := find()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if pids, err := same.Procs(); err != nil || !slices.Equal(pids, []int{m.pid}) {
			t.Errorf("%s: Procs %v, %v", name, pids, err)
		}
		if fmt.Sprint(same.State()) != fmt.Sprint(g.State()) {
			t.Errorf("%s: %v, want %v", name, same.State(), g.State())
		}
		same.Close()
	}
	forged := g.State()
	for k, dir := range forged.Dirs {
		forged.Dirs[k] = filepath.Dir(filepath.Dir(dir))
	}
	if _, err := Restore(forged); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("Restore of a hierarchy's root: %v, want invalid", err)
	}
}

// TestUnprivileged: who may not make a cgroup there is told so, and who was
// given one makes others in it.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	create := func(path string) string {
		exe, err := os.ReadFile("/proc/self/exe") // the test's directory is shut for others
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("/tmp", "berth-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/exe", exe, 0o755)); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(dir+"/exe", "create", path)
		c.Env = []string{roleVariable + "=1"}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := create(testRoot + "/unprivileged"); got != "permission denied" {
		t.Errorf("as an ordinary user: %s", got)
	}
	if mode, err := HostMode(); err != nil || mode != Unified {
		return
	}
	g := newGroup(t, nil)
	dir := g.unified().dir
	for _, file := range []string{"", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"} { // v2 kernel doc, "Delegation"
		if err := os.Chown(dir+file, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if got := create(g.Path() + "/own"); got != "made <nil>" {
		t.Errorf("in a delegated cgroup: %s", got)
	}
}

func TestRelativePath(t *testing.T) {
	needRoot(t)
	name := filepath.Base(testRoot) + "-relative"
	g, err := Create(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer endGroup(t, g)
	_, hs, err := discover(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		own := h.own
		if g.Mode() == Unified {
			own = filepath.Dir(own)
		}
		if want := filepath.Join(h.mount, own, name); g.State().Dirs[h.name()] != want {
			t.Errorf("%q: %s, want %s", h.name(), g.State().Dirs[h.name()], want)
		}
	}
}

func TestCloneFDOfFindsSubgroup(t *testing.T) {
	g := newGroup(t, nil)
	b := g.unified()
	if b == nil {
		t.Skip("no cgroup2 tree on this host")
	}
	m := join(t, g, "wait")
	m.expect("ready")
	sub := b.dir + "/init.scope"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sub+"/cgroup.procs", []byte(strconv.Itoa(m.pid)), 0); err != nil {
		t.Fatal(err)
	}
	f, err := g.CloneFDOf(m.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, _ := os.Stat(sub)
	if got, err := f.Stat(); err != nil || !os.SameFile(got, want) {
		t.Errorf("CloneFDOf is not %s (%v)", sub, err)
	}
	if _, err := g.CloneFDOf(os.Getpid()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("CloneFDOf a stranger: %v, want not found", err)
	}
}

func TestSetTightensAndLoosens(t *testing.T) {
	const mib = 1 << 20
	limits := func(limit, swap int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}
	}
	g := newGroup(t, limits(64*mib, 128*mib))
	for _, l := range [][2]int64{{32 * mib, 32 * mib}, {256 * mib, 512 * mib}, {48 * mib, 48 * mib}, {-1, -1}, {16 * mib, 64 * mib}} {
		if err := g.Set(limits(l[0], l[1])); err != nil {
			t.Errorf("set %v: %v", l, err)
			continue
		}
		want := uint64(l[0])
		if l[0] == -1 {
			want = Unlimited
		}
		if s, err := g.Stats(); err != nil || s.Memory.Limit != want {
			t.Errorf("set %v: limit reads %d, %v", l, s.Memory.Limit, err)
		}
	}
}

// TestSetTakesBack: of a change with one value that the kernel refuses nothing
// is left, whichever the others are.
func TestSetTakesBack(t *testing.T) {
	const mib = 1 << 20
	g := newGroup(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr[int64](64 * mib), Swap: ptr[int64](96 * mib), Reservation: ptr[int64](32 * mib)},
		CPU:    &specs.LinuxCPU{Shares: ptr[uint64](512), Quota: ptr[int64](50000), Period: ptr[uint64](100000)},
		Pids:   &specs.LinuxPids{Limit: ptr[int64](50)},
	})
	before := controlFiles(t, g)
	for _, refused := range []specs.LinuxResources{
		{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 4095, Minor: 3}, Rate: 1}}}},
		{CPU: &specs.LinuxCPU{Cpus: "4000"}},
		{CPU: &specs.LinuxCPU{Period: ptr[uint64](1)}},
	} {
		res := refused
		res.Memory = &specs.LinuxMemory{Limit: ptr[int64](16 * mib), Swap: ptr[int64](16 * mib), Reservation: ptr[int64](8 * mib)}
		if res.CPU == nil {
			res.CPU = &specs.LinuxCPU{Shares: ptr[uint64](2048), Quota: ptr[int64](20000), Period: ptr[uint64](200000), Cpus: "0", Mems: "0"}
		}
		res.Pids = &specs.LinuxPids{Limit: ptr[int64](5)}
		if err := g.Set(&res); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("a wrong value: %v, want invalid", err)
		}
		if after := controlFiles(t, g); after != before {
			t.Errorf("after a refused change:\n%s\nwant\n%s", after, before)
		}
	}
}

// controlFiles shows what the limits are.
func controlFiles(t *testing.T, g *Group) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range g.State().Dirs {
		for _, file := range []string{
			"memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "io.max", "pids.max",
			"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "cpu.shares", "cpu.cfs_quota_us",
			"cpu.cfs_period_us", "blkio.throttle.read_bps_device",
		} {
			if content, err := os.ReadFile(dir + "/" + file); err == nil {
				fmt.Fprintf(&b, "%s: %s\n", file, strings.TrimSpace(string(content)))
			}
		}
	}
	lines := strings.Split(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestCheckBeforeUpdate(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "hog", "32")
	m.expect("ready")
	for i := range 32 {
		m.expect(strconv.Itoa(i + 1))
	}
	m.wait()
	m = join(t, g, "keep", "32")
	m.expect("ready")
	err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 20), CheckBeforeUpdate: ptr(true)}})
	if !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("limit below use: %v, want a conflict", err)
	}
	if !strings.Contains(fmt.Sprint(err), "1048576") {
		t.Errorf("%v does not name the value", err)
	}
}

func TestStatsCount(t *testing.T) {
	g := newGroup(t, nil)
	m := join(t, g, "hog", "16")
	m.expect("ready")
	for i := range 16 {
		m.expect(strconv.Itoa(i + 1))
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Total == 0 || s.Memory.Detail == nil || s.Memory.Limit != Unlimited || s.Pids.Limit != Unlimited {
		t.Errorf("stats: %+v", s)
	}
	if s.Memory.Peak != 0 && s.Memory.Peak < 16<<20 {
		t.Errorf("peak %d after use of 16 MiB", s.Memory.Peak)
	}
}

func TestMoreStats(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](64 << 20), Swap: ptr[int64](96 << 20)}})
	m := join(t, g, "keep", "16")
	m.expect("ready")
	s, err := g.MoreStats()
	if err != nil {
		t.Fatal(err)
	}
	if b := g.branch("memory"); !b.v2 || fileExists(b.dir+"/memory.swap.max") {
		if s.Swap.Limit != 96<<20 || s.Swap.Usage < 16<<20 {
			t.Errorf("swap: %+v", s.Swap)
		}
	}
	if b := g.branch("cpuset"); !b.v2 && (len(s.CPUs) == 0 || len(s.Mems) == 0 || len(s.Cpuset) == 0) {
		t.Errorf("cpuset: %v, %v, %v", s.CPUs, s.Mems, s.Cpuset)
	}
	for _, p := range []struct {
		file string
		got  *Pressure
	}{{"cpu.pressure", s.CPUPressure}, {"memory.pressure", s.MemoryPressure}, {"io.pressure", s.IOPressure}} {
		if b := g.unified(); b != nil && fileExists(b.dir+"/"+p.file) != (p.got != nil) {
			t.Errorf("%s: %v", p.file, p.got)
		}
	}
	if b := g.branch("hugetlb"); b != nil && b.hasAny([]string{"hugetlb"}) {
		for _, size := range pageSizes() {
			_, ok := s.HugeTLB[size]
			files, _ := filepath.Glob(b.dir + "/hugetlb." + size + ".*")
			if ok != (len(files) > 0) {
				t.Errorf("huge pages of %s: %v", size, s.HugeTLB)
			}
		}
	}
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestParsePressure(t *testing.T) {
	p, err := parsePressure("some avg10=1.50 avg60=0.25 avg300=0.01 total=123456789012345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
	if err != nil || p.Some != (Stall{1.5, 0.25, 0.01, 123456789012345}) || p.Full.Total != 7 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := parsePressure("some avg10=x\n"); err == nil {
		t.Error("a malformed line is no error")
	}
}

func TestParseList(t *testing.T) {
	if got, err := parseList("0-2,7"); err != nil || !slices.Equal(got, []uint16{0, 1, 2, 7}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseList("3-1"); err == nil {
		t.Errorf("a backward range is %v", got)
	}
}

func TestIOCountsAndThrottles(t *testing.T) {
	g := newGroup(t, nil)
	dir, err := os.MkdirTemp("/var/lib", "berth-test-") // /tmp may have no disk below
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	disk := specs.LinuxBlockIODevice{Major: int64(unix.Major(st.Dev)), Minor: int64(unix.Minor(st.Dev))}
	if disk.Major == 0 {
		t.Skip("/var/lib is on no block device")
	}
	rate := specs.LinuxThrottleDevice{LinuxBlockIODevice: disk, Rate: 1 << 30}
	if err := g.Set(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleWriteBpsDevice: []specs.LinuxThrottleDevice{rate}}}); err != nil {
		t.Fatal(err)
	}
	// On v1 the kernel counts for a device with a throttle only (since 6.10).
	m := join(t, g, "write", dir+"/file", "4")
	m.expect("<nil> <nil>")
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if d := s.device(fmt.Sprintf("%d:%d", disk.Major, disk.Minor)); d.WriteBytes < 4<<20 || d.WriteOps == 0 {
		t.Errorf("after a write of 4 MiB to %v: %+v", disk, s.IO)
	}
	b, file, want := g.branch("blkio"), "blkio.throttle.write_bps_device", fmt.Sprintf("%d:%d 1073741824", disk.Major, disk.Minor)
	if b == nil {
		b, file, want = g.branch("io"), "io.max", "wbps=1073741824"
	}
	if got, err := b.read(file); err != nil || !strings.Contains(got, want) {
		t.Errorf("%s is %q, want %q (%v)", file, got, want, err)
	}
}

func TestMountsNameTheGroup(t *testing.T) {
	g := newGroup(t, nil)
	mounts := g.Mounts()
	if len(mounts) != len(g.branches) {
		t.Fatalf("%d mounts of %d branches", len(mounts), len(g.branches))
	}
	for _, m := range mounts {
		if !strings.HasSuffix(m.Source, g.Path()) {
			t.Errorf("mount %q comes from %s", m.Name, m.Source)
		}
		if g.Mode() == Unified && (m.Name != "" || m.FSType != "cgroup2") {
			t.Errorf("mount of a unified host: %+v", m)
		}
		if g.Mode() != Unified && m.Name == "" {
			t.Errorf("mount without a name: %+v", m)
		}
	}
}

// v2 only.

func needUnified(t testing.TB) {
	t.Helper()
	needRoot(t)
	if mode, err := HostMode(); err != nil || mode != Unified {
		t.Skipf("needs a unified host, this one is %v (%v)", mode, err)
	}
}

func TestUnifiedFiles(t *testing.T) {
	needUnified(t)
	g := newGroup(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr[int64](64 << 20), Swap: ptr[int64](96 << 20), Reservation: ptr[int64](16 << 20)},
		CPU: &specs.LinuxCPU{Shares: ptr[uint64](2048), Quota: ptr[int64](50000), Period: ptr[uint64](100000),
			Burst: ptr[uint64](10000), Cpus: "0", Mems: "0"},
		Pids:           &specs.LinuxPids{Limit: ptr[int64](99)},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		BlockIO:        &specs.LinuxBlockIO{Weight: ptr[uint16](500)},
		Unified:        map[string]string{"memory.high": "50331648", "cgroup.max.depth": "4"},
	})
	b := g.unified()
	expect := func(file, want string) {
		t.Helper()
		if got, err := b.read(file); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("%s is %q, want %q (%v)", file, got, want, err)
		}
	}
	expect("memory.max", "67108864")
	expect("memory.low", "16777216")
	expect("memory.high", "50331648")
	expect("cpu.weight", "174")
	expect("cpu.max", "50000 100000")
	expect("cpu.max.burst", "10000")
	expect("cpuset.cpus", "0")
	expect("pids.max", "99")
	expect("hugetlb.2MB.max", "4194304")
	expect("cgroup.max.depth", "4")
	if err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](20000)}}); err != nil {
		t.Error(err)
	}
	expect("cpu.max", "20000 100000") // the period stays
	if err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr[uint64](50000)}}); err != nil {
		t.Error(err)
	}
	expect("cpu.max", "20000 50000") // the quota stays
	err := g.Set(&specs.LinuxResources{Unified: map[string]string{"memory.nonsense": "1"}})
	if !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("unknown file: %v, want unsupported", err)
	}
}

// TestInternalProcesses: a cgroup with processes of its own cannot pass a
// controller on, and the error says what to do.
func TestInternalProcesses(t *testing.T) {
	needUnified(t)
	g := newGroup(t, nil)
	m := join(t, g, "wait")
	m.expect("ready")
	_, err := Create(g.Path()+"/inner", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 24)}})
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(errdefs.Hint(err), "processes of its own") {
		t.Errorf("limit below a cgroup with processes: %v (hint %q)", err, errdefs.Hint(err))
	}
	inner, err := Create(g.Path()+"/inner", nil)
	if err != nil {
		t.Fatalf("no limit, no conflict: %v", err)
	}
	if err := inner.Destroy(); err != nil {
		t.Error(err)
	}
}

// TestThreadedParent: nobody can live below a threaded cgroup.
// TestThreadedChild: a container may spread the threads of a process over threaded
// cgroups of its own. They are found, killed and removed with the rest.
func TestThreadedChild(t *testing.T) {
	g := newGroup(t, nil)
	b := g.unified()
	if b == nil || g.mode != Unified {
		t.Skip("threaded cgroups need cgroup v2")
	}
	m := join(t, g, "echo")
	m.expect("ready")
	sub := b.dir + "/threads"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range [][2]string{{"/cgroup.type", "threaded"}, {"/cgroup.threads", strconv.Itoa(m.pid)}} {
		if err := os.WriteFile(sub+f[0], []byte(f[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{m.pid}) {
		t.Errorf("Procs: %v, %v; want [%d]", pids, err, m.pid)
	}
	if err := errors.Join(g.Freeze(), g.Thaw()); err != nil {
		t.Error(err)
	}
	if _, err := g.Stats(); err != nil {
		t.Error(err)
	}
	if err := g.Kill(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if ws := m.wait(); ws.Signal() != unix.SIGTERM {
		t.Errorf("ended with %v, want SIGTERM", ws)
	}
}

func TestThreadedParent(t *testing.T) {
	needUnified(t)
	g := newGroup(t, nil)
	threaded := g.unified().dir + "/threaded"
	if err := os.Mkdir(threaded, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(threaded+"/cgroup.type", []byte("threaded"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := Create(g.Path()+"/threaded/x", nil)
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(errdefs.Hint(err), "threaded") {
		t.Errorf("create below a threaded cgroup: %v (hint %q)", err, errdefs.Hint(err))
	}
}
