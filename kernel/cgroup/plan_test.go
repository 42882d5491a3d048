package cgroup

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// onPaper is a group of a host that need not be this one.
func onPaper(mode Mode) *Group {
	v1 := func(name string, controllers ...string) branch {
		return branch{hierarchy: hierarchy{controllers: controllers, mount: "/sys/fs/cgroup/" + name, root: "/"},
			dir: "/sys/fs/cgroup/" + name + "/berth/x"}
	}
	g := &Group{path: "/berth/x", mode: mode}
	if mode != Unified {
		g.branches = []branch{v1("memory", "memory"), v1("cpu,cpuacct", "cpu", "cpuacct"), v1("cpuset", "cpuset"), v1("blkio", "blkio"),
			v1("pids", "pids"), v1("devices", "devices"), v1("freezer", "freezer"), v1("systemd", "name=systemd"),
			v1("rdma", "rdma"), v1("net_cls,net_prio", "net_cls", "net_prio")}
	}
	switch mode {
	case Hybrid:
		b := v1("unified", "hugetlb")
		b.v2 = true
		g.branches = append(g.branches, b)
	case Unified:
		g.branches = []branch{{hierarchy: hierarchy{v2: true, mount: "/sys/fs/cgroup", root: "/",
			controllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"}}, dir: "/sys/fs/cgroup/berth/x"}}
	}
	return g
}

// text writes settings one by line, as FILE=VALUE.
func text(settings []setting) string {
	var b strings.Builder
	for _, s := range settings {
		b.WriteString(s.file + "=" + s.value)
		if s.otherwise != nil {
			b.WriteString(" or " + s.otherwise.file + "=" + s.otherwise.value)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestCompile(t *testing.T) {
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	for _, c := range []struct {
		name     string
		res      specs.LinuxResources
		v1, want string // want is v2's
	}{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1000), Swap: ptr[int64](1500), Reservation: ptr[int64](500)}},
			"memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1500 memory.soft_limit_in_bytes=500",
			"memory.swap.max=500 memory.max=1000 memory.low=500"},
		{"no swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1000), Swap: ptr[int64](1000)}},
			"memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1000", "memory.swap.max=0 memory.max=1000"},
		{"unlimited memory means unlimited swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1)}},
			"memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1", "memory.swap.max=max memory.max=max"},
		{"unlimited swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1000), Swap: ptr[int64](-1)}},
			"memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=-1", "memory.swap.max=max memory.max=1000"},
		{"zero is unset", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](0), Swap: ptr[int64](0), DisableOOMKiller: ptr(false)},
			CPU: &specs.LinuxCPU{Shares: ptr[uint64](0), Quota: ptr[int64](0), Period: ptr[uint64](0)}}, "", ""},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](1024), Quota: ptr[int64](50000), Period: ptr[uint64](100000), Burst: ptr[uint64](0)}},
			"cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 cpu.cfs_burst_us=0",
			"cpu.weight=100 cpu.max.burst=0 cpu.max=50000 100000"},
		{"no quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](-1)}}, "cpu.cfs_quota_us=-1", "cpu.max=max"},
		{"period alone", specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr[uint64](20000)}}, "cpu.cfs_period_us=20000", "cpu.max=max 20000"},
		{"idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1)}}, "cpu.idle=1", "cpu.idle=1"},
		{"idle has no shares", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1), Shares: ptr[uint64](512)}}, "cpu.idle=1", "cpu.idle=1"},
		{"idle no more", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](0), Shares: ptr[uint64](1024)}},
			"cpu.idle=0 cpu.shares=1024", "cpu.idle=0 cpu.weight=100"},
		//lint:ignore SA1019 it has no effect
		{"kernel memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Kernel: ptr[int64](1)}}, "", ""},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{
			"mlx5_1": {HcaHandles: ptr[uint32](3), HcaObjects: ptr[uint32](10000)}, "hfi1": {HcaObjects: ptr[uint32](0)}}},
			"rdma.max=hfi1 hca_object=0 rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
			"rdma.max=hfi1 hca_object=0 rdma.max=mlx5_1 hca_handle=3 hca_object=10000"},
		{"cpuset", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}}, "cpuset.cpus=0-1 cpuset.mems=0", "cpuset.cpus=0-1 cpuset.mems=0"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](7)}}, "pids.max=7", "pids.max=7"},
		{"pids none", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](0)}}, "pids.max=1", "pids.max=1"},
		{"pids any", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}, "pids.max=max", "pids.max=max"},
		{"io weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](1000),
			WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev, Weight: ptr[uint16](10)}}}},
			"blkio.bfq.weight=1000 or blkio.weight=1000 blkio.bfq.weight_device=8:16 10 or blkio.weight_device=8:16 10",
			"io.bfq.weight=1000 or io.weight=10000 io.bfq.weight=8:16 10 or io.weight=8:16 1"},
		{"io throttle", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 1}},
			ThrottleWriteBpsDevice:  []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 2}},
			ThrottleReadIOPSDevice:  []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 3}},
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 0}}}},
			"blkio.throttle.read_bps_device=8:16 1 blkio.throttle.write_bps_device=8:16 2 " +
				"blkio.throttle.read_iops_device=8:16 3 blkio.throttle.write_iops_device=8:16 0",
			"io.max=8:16 rbps=1 io.max=8:16 wbps=2 io.max=8:16 riops=3 io.max=8:16 wiops=max"},
	} {
		for mode, want := range map[Mode]string{Legacy: c.v1, Hybrid: c.v1, Unified: c.want} {
			settings, err := onPaper(mode).compile(&c.res, true)
			if got := strings.ReplaceAll(strings.TrimSpace(text(settings)), "\n", " "); err != nil || got != want {
				t.Errorf("%s, %v:\n got %s (%v)\nwant %s", c.name, mode, got, err, want)
			}
		}
	}
}

func TestCompileV1Only(t *testing.T) {
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Swappiness: ptr[uint64](10), DisableOOMKiller: ptr(true)},
		CPU:    &specs.LinuxCPU{RealtimePeriod: ptr[uint64](1000000), RealtimeRuntime: ptr[int64](1000)},
		Network: &specs.LinuxNetwork{ClassID: ptr[uint32](0x100001),
			Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 5}, {Name: "eth0", Priority: 7}}},
	}
	res.Memory.KernelTCP = ptr[int64](4096)
	settings, err := onPaper(Legacy).compile(res, true)
	want := "memory.kmem.tcp.limit_in_bytes=4096\nmemory.oom_control=1\nmemory.swappiness=10\ncpu.rt_period_us=1000000\ncpu.rt_runtime_us=1000\n" +
		"net_cls.classid=1048577\nnet_prio.ifpriomap=lo 5\nnet_prio.ifpriomap=eth0 7\n"
	if got := text(settings); err != nil || got != want {
		t.Errorf("got %s (%v)\nwant %s", got, err, want)
	}
}

func TestCompileV2Only(t *testing.T) {
	res := &specs.LinuxResources{
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4}},
		Unified:        map[string]string{"memory.high": "12", "io.max": "8:0 rbps=1\n8:16 wbps=2", "cgroup.max.descendants": "9"},
	}
	settings, err := onPaper(Unified).compile(res, true)
	want := "hugetlb.2MB.max=4\nhugetlb.2MB.rsvd.max=4\ncgroup.max.descendants=9\nio.max=8:0 rbps=1\nio.max=8:16 wbps=2\nmemory.high=12\n"
	if got := text(settings); err != nil || got != want {
		t.Errorf("got %s (%v)\nwant %s", got, err, want)
	}
	res.Unified = nil
	settings, err = onPaper(Hybrid).compile(res, true)
	if got := needed(settings); err != nil || !slices.Equal(got, []string{"hugetlb"}) || settings[0].file != "hugetlb.2MB.max" {
		t.Errorf("hugetlb of a hybrid host's v2 side: %v, %v (%v)", got, settings, err)
	}
}

// TestRefused: what is not carried out is named, never ignored.
func TestRefused(t *testing.T) {
	u, v := errdefs.ErrUnsupported, errdefs.ErrInvalid
	for _, c := range []struct {
		field  string
		v1, v2 error
		res    specs.LinuxResources
	}{
		{"network.classID", nil, u, specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr[uint32](1)}}},
		{"network.priorities", v, v, specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "a b"}}}}},
		{"network.priorities", nil, u, specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo"}}}}},
		{"rdma.x", v, v, specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x": {}}}},
		{"rdma", v, v, specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x\n": {HcaHandles: ptr[uint32](1)}}}},
		{"memory.kernelTCP", v, v, specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr[int64](-2)}}},
		{"memory.kernelTCP", nil, u, specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr[int64](1)}}},
		{"memory.useHierarchy", u, u, specs.LinuxResources{Memory: &specs.LinuxMemory{UseHierarchy: ptr(false)}}},
		{"memory.swappiness", nil, u, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr[uint64](1)}}},
		{"memory.swappiness", v, u, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr[uint64](101)}}},
		{"memory.disableOOMKiller", nil, u, specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}},
		{"memory.limit", v, v, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-2)}}},
		{"memory.swap", nil, v, specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr[int64](10)}}},
		{"memory.swap", nil, v, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](11), Swap: ptr[int64](10)}}},
		{"cpu.realtimeRuntime", nil, u, specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: ptr[int64](1)}}},
		{"blockIO.leafWeight", u, u, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: ptr[uint16](10)}}},
		{"blockIO.weight", v, v, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](9)}}},
		{"hugepageLimits", u, nil, specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}}}},
		{"hugepageLimits", v, v, specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../../2MB"}}}},
		{"unified", u, v, specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}},
		{"unified", u, v, specs.LinuxResources{Unified: map[string]string{"memory": "1"}}},
		{"unified.memory.max", u, v, specs.LinuxResources{Unified: map[string]string{"memory.max": ""}}},
		{"unified.cgroup.procs", u, u, specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}},
		{"unified.misc.max", u, u, specs.LinuxResources{Unified: map[string]string{"misc.max": "1"}}},
	} {
		for mode, class := range map[Mode]error{Legacy: c.v1, Unified: c.v2} {
			_, err := onPaper(mode).compile(&c.res, true)
			field, _, _ := strings.Cut(c.field, ".unified")
			if mode == Legacy && len(c.res.Unified) > 0 {
				field = "unified"
			}
			if !errors.Is(err, class) || class != nil && !strings.HasPrefix(err.Error(), field) {
				t.Errorf("%s, %v: %v, want %v", c.field, mode, err, class)
			}
		}
	}
}

// The ends and defaults are of opencontainers/cgroups' own test; 2048 is worked
// out: log2 is 11, 10^((121+1375)/612-7/34) is 173.2.
func TestSharesToWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{1: 1, 2: 1, 3: 2, 1024: 100, 2048: 174, 262143: 10000, 262144: 10000, 1 << 30: 10000} {
		if got := sharesToWeight(shares); got != want {
			t.Errorf("weight of %d shares is %d, want %d", shares, got, want)
		}
	}
}

func TestCleanPath(t *testing.T) {
	for path, want := range map[string]string{"/berth/x": "/berth/x", "/berth//x/": "/berth/x", "x/./y": "x/y", "/a:b/c": "/a:b/c", "/...": "/..."} {
		if got, err := cleanPath(path); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", path, got, err, want)
		}
	}
	for path, class := range map[string]error{
		"": errdefs.ErrInvalid, "/": errdefs.ErrInvalid, ".": errdefs.ErrInvalid, "/a/../b": errdefs.ErrInvalid, "..": errdefs.ErrInvalid,
		"/a\nb": errdefs.ErrInvalid, "/a\x00": errdefs.ErrInvalid, "system.slice:berth:x": errdefs.ErrUnsupported, ":berth:x": errdefs.ErrUnsupported,
	} {
		if got, err := cleanPath(path); !errors.Is(err, class) {
			t.Errorf("%q is %q, %v; want %v", path, got, err, class)
		}
	}
}

func TestMatchMounts(t *testing.T) {
	hs, err := parseProcCgroup("12:cpu,cpuacct:/user\n2:name=systemd:/init.scope\n3:net_cls:/\n0::/a:b\n")
	if err != nil {
		t.Fatal(err)
	}
	matchMounts(hs, `30 1 0:1 / /proc rw - proc proc rw
31 1 0:2 /user /opt/cg/cpu rw,relatime - cgroup cgroup rw,cpuacct,cpu
32 1 0:2 /user /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
33 1 0:2 /other /mnt rw - cgroup cgroup rw,cpu,cpuacct
34 1 0:3 / /sys/fs/cgroup/with\040blank rw - cgroup cgroup rw,xattr,name=systemd
35 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
`)
	want := []hierarchy{
		{controllers: []string{"cpu", "cpuacct"}, mount: "/sys/fs/cgroup/cpu,cpuacct", root: "/user", own: "/user"},
		{controllers: []string{"name=systemd"}, mount: "/sys/fs/cgroup/with blank", root: "/", own: "/init.scope"},
		{controllers: []string{"net_cls"}, root: "/", own: "/"},
		{v2: true, mount: "/sys/fs/cgroup/unified", root: "/", own: "/a:b"},
	}
	for i := range want {
		g, w := hs[i], want[i]
		if g.v2 != w.v2 || g.name() != w.name() || g.mount != w.mount || g.root != w.root || g.own != w.own {
			t.Errorf("got %+v\nwant %+v", g, w)
		}
	}
	if _, err := parseProcCgroup("nonsense\n"); err == nil {
		t.Error("a malformed line is no error")
	}
}

func TestMountsOfCombinedControllers(t *testing.T) {
	mounts := onPaper(Hybrid).Mounts()
	if m := mounts[1]; m.Name != "cpu,cpuacct" || m.Options != "cpu,cpuacct" || !slices.Equal(m.Links, []string{"cpu", "cpuacct"}) {
		t.Errorf("cpu: %+v", m)
	}
	if m := mounts[7]; m.Name != "systemd" || m.Options != "name=systemd" || m.Links != nil {
		t.Errorf("systemd: %+v", m)
	}
	if m := mounts[10]; m.Name != "unified" || m.FSType != "cgroup2" || m.Options != "" || m.Links != nil {
		t.Errorf("unified: %+v", m)
	}
}
