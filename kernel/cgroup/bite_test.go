package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// These tests show limits to have an effect, where a figure in a file could be
// all there is.

func TestMemoryHighThrottles(t *testing.T) {
	needRoot(t)
	if mode, err := HostMode(); err != nil || mode != Unified {
		t.Skipf("memory.high needs cgroup v2, have %v, %v", mode, err)
	}
	g := newGroup(t, &specs.LinuxResources{Unified: map[string]string{"memory.high": "16777216", "memory.swap.max": "0"}})
	m := join(t, g, "hog", "1000")
	m.expect("ready")
	for i := 1; ; i++ {
		m.expect(fmt.Sprint(i))
		high, _, err := g.unified().readKey("memory.events", "high")
		if err != nil {
			t.Fatal(err)
		}
		if high > 0 {
			break
		}
		if i == 32 {
			t.Fatal("32 MiB were had where memory.high is 16")
		}
	}
	if kills, err := g.OOMKills(); err != nil || kills != 0 {
		t.Errorf("%d were killed (%v)", kills, err)
	}
}

func TestCpusetConfines(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}})
	m := join(t, g, "affinity")
	m.expect("0")
	if err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1"}}); err != nil {
		t.Fatal(err)
	}
	m = join(t, g, "affinity")
	m.expect("0-1")
}

// TestCPUWeightShares: of two groups that want all of one CPU the one with more
// weight gets clearly more.
func TestCPUWeightShares(t *testing.T) {
	needRoot(t)
	group := func(name string, shares uint64) *Group {
		g, err := Create(testRoot+"/weight-"+name, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares, Cpus: "0", Mems: "0"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { endGroup(t, g) })
		return g
	}
	little, much := group("little", 128), group("much", 10240)
	join(t, little, "burn", "1000000").expect("ready")
	m := join(t, much, "burn on", "200")
	m.expect("ready")
	used := func(g *Group) uint64 {
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.CPU.Total
	}
	// Neither ends, and the time of the much-weighted encloses the other's: it does
	// not matter when the kernel lets this process look.
	muchBefore := used(much)
	littleBefore := used(little)
	m.expect("used")
	littleUsed := used(little) - littleBefore
	if muchUsed := used(much) - muchBefore; littleUsed > muchUsed/2 {
		t.Errorf("%d ms of CPU time were used with the weight of 128 shares, beside %d ms with that of 10240", littleUsed/1e6, muchUsed/1e6)
	}
}

func TestIOMaxSlows(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/var/lib", "berth-test-") // /tmp may have no disk below
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if unix.Major(st.Dev) == 0 {
		t.Skip("/var/lib is on no block device")
	}
	disk := specs.LinuxBlockIODevice{Major: int64(unix.Major(st.Dev)), Minor: int64(unix.Minor(st.Dev))}
	g := newGroup(t, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
		ThrottleWriteBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 4 << 20}}}})
	start := time.Now()
	m := join(t, g, "write", dir+"/file", "4")
	m.expect("<nil> <nil>")
	// Nothing can make it faster; a slow machine makes it only slower.
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("4 MiB at 4 MiB/s took %v", took)
	}
}

// TestHugePagesLimitBites needs huge pages that are free.
func TestHugePagesLimitBites(t *testing.T) {
	needRoot(t)
	free, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if err != nil || strings.TrimSpace(string(free)) < "2" {
		t.Skipf("this host has no free huge pages: %s %v", free, err)
	}
	limit := func(n uint64) *specs.LinuxResources {
		return &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: n << 21}}}
	}
	g := newGroup(t, limit(1))
	m := join(t, g, "huge", "1")
	m.expect("<nil>")
	m = join(t, g, "huge", "2")
	m.expect("cannot allocate memory")
	if err := g.Set(limit(2)); err != nil {
		t.Fatal(err)
	}
	m = join(t, g, "huge", "2")
	m.expect("<nil>")
}

// TestDeviceThatIsNotThere: the error says so, for each kind of device.
func TestDeviceThatIsNotThere(t *testing.T) {
	g := newGroup(t, nil)
	none := specs.LinuxBlockIODevice{Major: 4095, Minor: 3}
	for _, c := range []struct {
		controller, field string
		res               specs.LinuxResources
	}{
		{"rdma", "rdma.none0", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"none0": {HcaHandles: ptr[uint32](1)}}}},
		{"blkio", "blockIO.throttleReadBpsDevice", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: none, Rate: 1}}}}},
	} {
		want := errdefs.ErrInvalid
		if g.branch(c.controller) == nil && (c.controller != "blkio" || g.branch("io") == nil) {
			want = errdefs.ErrUnsupported
		}
		err := g.Set(&c.res)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: %v, want %v", c.field, err, want)
		}
	}
}
