package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/lsm"
	"github.com/berth-containers/berth/oci"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// What is asked for is looked up in the kernel, from inside the container.
func TestConfinementInTheKernel(t *testing.T) {
	te := newTestEngine(t)
	parent := testConfig(te.dir).CgroupParent
	t.Cleanup(func() { // before the engine's own end
		if err := cgroup.RemoveEmpty(parent + "/dock"); err != nil {
			t.Error(err)
		}
	})
	opts := func(list ...string) func(*container.CreateRequest) {
		return func(r *container.CreateRequest) { r.HostConfig.SecurityOpt = list }
	}
	for _, tc := range []struct {
		name string
		set  func(*container.CreateRequest)
		sh   string
		want string
	}{
		{"privileged with the built-in filter", func(r *container.CreateRequest) {
			r.HostConfig.Privileged, r.HostConfig.SecurityOpt = true, []string{"seccomp=builtin"}
		}, "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		{"a filter of one's own", opts(`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`),
			"mkdir /tmp/d 2>/dev/null || echo refused; touch /tmp/f && echo made", "refused\nmade\n"},
		{"system paths shown", func(r *container.CreateRequest) {
			r.HostConfig.MaskedPaths, r.HostConfig.ReadonlyPaths = []string{}, []string{}
		}, "grep -c -E ' /proc/(kcore|sys|keys) ' /proc/mounts; true", "0\n"},
		{"domain name", func(r *container.CreateRequest) { r.Domainname = "harbour.example" }, "cat /proc/sys/kernel/domainname", "harbour.example\n"},
		{"sysctl of the ipc namespace", func(r *container.CreateRequest) {
			r.HostConfig.Sysctls = map[string]string{"kernel.msgmax": "9999", "fs.mqueue.msg_max": "11"}
		}, "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max", "9999\n11\n"},
		{"ulimit", func(r *container.CreateRequest) {
			r.HostConfig.Ulimits = []*container.Ulimit{{Name: "core", Soft: 0, Hard: 0}, {Name: "nofile", Soft: 40, Hard: 50}}
		}, "ulimit -n; ulimit -H -n; ulimit -c", "40\n50\n0\n"},
		{"no ipc", func(r *container.CreateRequest) { r.HostConfig.IpcMode = "none" }, "grep -c ' /dev/shm ' /proc/mounts; true", "0\n"},
		{"host uts", func(r *container.CreateRequest) { r.HostConfig.UTSMode = "host" }, "readlink /proc/self/ns/uts", hostNamespace(t, "uts")},
		{"host pid", func(r *container.CreateRequest) { r.HostConfig.PidMode = "host" }, "readlink /proc/self/ns/pid", hostNamespace(t, "pid")},
		{"host ipc", func(r *container.CreateRequest) { r.HostConfig.IpcMode = "host" }, "readlink /proc/self/ns/ipc", hostNamespace(t, "ipc")},
		{"host cgroup", func(r *container.CreateRequest) { r.HostConfig.CgroupnsMode = "host" }, "readlink /proc/self/ns/cgroup", hostNamespace(t, "cgroup")},
		{"host network", func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "host" }, "readlink /proc/self/ns/net", hostNamespace(t, "net")},
		{"own cgroup", func(r *container.CreateRequest) { r.HostConfig.CgroupnsMode = "private" },
			"test $(readlink /proc/self/ns/cgroup) = " + strings.TrimSpace(hostNamespace(t, "cgroup")) + " || echo own", "own\n"},
		{"parent of the cgroup", func(r *container.CreateRequest) {
			r.HostConfig.CgroupParent, r.HostConfig.CgroupnsMode = parent+"/dock", "host"
		}, "grep -q '" + parent + "/dock/' /proc/self/cgroup && echo below", "below\n"},
		{"device rule", func(r *container.CreateRequest) {
			r.HostConfig.DeviceCgroupRules = []string{"c 1:1 r"}
			r.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/none", CgroupPermissions: "r"}}
		}, "test -c /dev/none && cat /dev/none && echo read", "read\n"},
		{"a directory of devices", func(r *container.CreateRequest) {
			r.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: deviceDir(t), PathInContainer: "/dev/dock", CgroupPermissions: "rw"}}
		}, "echo x > /dev/dock/deep/nil && ls /dev/dock", "deep\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := request("sh", "-c", tc.sh)
			tc.set(req)
			if out, code := te.output(req); out != tc.want {
				t.Errorf("printed %q (exit %d), want %q", out, code, tc.want)
			}
		})
	}
}

// hostNamespace is a namespace of this process, whose children's containers'
// "host" ones are.
func hostNamespace(t *testing.T, kind string) string {
	name, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return name + "\n"
}

// deviceDir is a directory with a device node somewhere in it.
func deviceDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "dock")
	if err := os.MkdirAll(filepath.Join(dir, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	makeNull(t, filepath.Join(dir, "deep", "nil"))
	return dir
}

func TestConfinementRefused(t *testing.T) {
	te := newTestEngine(t)
	for _, tc := range []struct {
		name  string
		set   func(*container.HostConfig)
		class error
		text  string
	}{
		{"isolation", func(h *container.HostConfig) { h.Isolation = "hyperv" }, errdefs.ErrUnsupported, "--isolation hyperv"},
		{"landlock level", func(h *container.HostConfig) {
			h.Annotations = map[string]string{oci.LandlockAnnotation: "most"}
		}, errdefs.ErrInvalid, "must be off, default or strict"},
		{"sysctl in the host's network", func(h *container.HostConfig) {
			h.NetworkMode, h.Sysctls = "host", map[string]string{"net.core.somaxconn": "1"}
		}, errdefs.ErrInvalid, "is not allowed with --network=host"},
		{"throttle of no device", func(h *container.HostConfig) {
			h.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{{Path: "/dev/null", Rate: 1}}
		}, errdefs.ErrInvalid, "/dev/null is not a block device"},
		{"weight of no device", func(h *container.HostConfig) {
			h.BlkioWeightDevice = []*blkiodev.WeightDevice{{Path: "/dev/nothing", Weight: 10}}
		}, errdefs.ErrInvalid, "/dev/nothing"},
		{"device that is not there", func(h *container.HostConfig) {
			h.Devices = []container.DeviceMapping{{PathOnHost: "/dev/nothing"}}
		}, errdefs.ErrInvalid, "/dev/nothing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := request("true")
			tc.set(req.HostConfig)
			_, err := te.ContainerCreate(t.Context(), "", req, nil)
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %q (%v)", err, tc.text, tc.class)
			}
		})
	}
}

// The default layer of Landlock keeps init's processes from looking into those
// of an exec; without the layer they may.
func TestLandlockIsOnByDefault(t *testing.T) {
	te := newTestEngine(t)
	if lsm.Landlock() < landlockVersion || lsm.AppArmor() {
		t.Skip("needs a kernel with Landlock and without AppArmor")
	}
	for annotation, want := range map[string]string{"": "hidden\n", "off": "seen\n"} {
		req := request("sh", "-c", `until [ -e /go ]; do usleep 10000; done
			head -c 1 /proc/$(cat /go)/environ >/dev/null 2>&1 && echo seen || echo hidden`)
		if annotation != "" {
			req.HostConfig.Annotations = map[string]string{oci.LandlockAnnotation: annotation}
		}
		id := te.run("", req)
		x, err := te.ExecCreate(t.Context(), id, &container.ExecCreateRequest{
			Cmd: []string{"sh", "-c", "echo $$ > /go.new; busybox mv /go.new /go; exec sleep 1000"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := te.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}); err != nil {
			t.Fatal(err)
		}
		te.wait(id, container.WaitConditionNotRunning)
		if out, _ := te.logs(id); out != want {
			t.Errorf("annotation %q: %q, want %q", annotation, out, want)
		}
	}
	info, err := te.Info(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(info.SecurityOptions), fmt.Sprintf("name=landlock,abi=%d", lsm.Landlock())) {
		t.Errorf("info says %v, %v", info.SecurityOptions, err)
	}
}

// inCgroup reads a file of the container's own cgroup: on v1 of a controller.
func (te *testEngine) inCgroup(id, v1, v2 string) string {
	te.t.Helper()
	file := v1
	if te.host.unified {
		file = v2
	}
	out, code := te.exec(id, "cat", "/sys/fs/cgroup/"+file)
	if code != 0 {
		te.t.Errorf("read %s: %s", file, out)
	}
	return strings.TrimSpace(out)
}

// disk is a whole block device of this host and its number.
func disk(t *testing.T) (path, number string) {
	list, _ := filepath.Glob("/sys/block/*/dev")
	for _, file := range list {
		name := filepath.Base(filepath.Dir(file))
		data, err := os.ReadFile(file)
		if _, serr := os.Stat("/dev/" + name); err != nil || serr != nil || strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") {
			continue
		}
		return "/dev/" + name, strings.TrimSpace(string(data))
	}
	t.Skip("needs a disk in /dev")
	return "", ""
}

func TestUpdateReachesTheKernel(t *testing.T) {
	te := newTestEngine(t)
	path, number := disk(t)
	req := request("sleep", "1000")
	req.HostConfig.Memory, req.HostConfig.MemorySwap = 64<<20, 128<<20
	req.HostConfig.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{{Path: path, Rate: 1 << 20}}
	id := te.run("", req)
	pids := int64(33)
	upd := &container.UpdateConfig{Resources: container.Resources{
		// Both at once, above what both were: memory may not pass memory and swap.
		Memory: 256 << 20, MemorySwap: 256 << 20, MemoryReservation: 32 << 20, PidsLimit: &pids, CPUShares: 512,
		CPUQuota: 20000, CPUPeriod: 50000, CpusetCpus: "0",
		BlkioDeviceReadBps:   []*blkiodev.ThrottleDevice{{Path: path, Rate: 2 << 20}},
		BlkioDeviceWriteIOps: []*blkiodev.ThrottleDevice{{Path: path, Rate: 300}},
	}}
	if _, err := te.ContainerUpdate(t.Context(), id, upd); err != nil {
		t.Fatal(err)
	}
	for _, f := range [][3]string{
		{"memory/memory.limit_in_bytes", "memory.max", "268435456"},
		{"memory/memory.soft_limit_in_bytes", "memory.low", "33554432"},
		{"pids/pids.max", "pids.max", "33"},
		{"cpuset/cpuset.cpus", "cpuset.cpus", "0"},
	} {
		if got := te.inCgroup(id, f[0], f[1]); got != f[2] {
			t.Errorf("%s: %q, want %q", f[0], got, f[2])
		}
	}
	if te.host.unified {
		if got := te.inCgroup(id, "", "cpu.max"); got != "20000 50000" {
			t.Errorf("cpu.max: %q", got)
		}
		if got := te.inCgroup(id, "", "io.max"); got != number+" rbps=2097152 wbps=max riops=max wiops=300" {
			t.Errorf("io.max: %q", got)
		}
	} else {
		for file, want := range map[string]string{
			"cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "50000", "cpu/cpu.shares": "512",
			"blkio/blkio.throttle.read_bps_device": number + " 2097152", "blkio/blkio.throttle.write_iops_device": number + " 300",
		} {
			if got := te.inCgroup(id, file, ""); got != want {
				t.Errorf("%s: %q, want %q", file, got, want)
			}
		}
	}
	if hc := te.inspect(id).HostConfig; hc.BlkioDeviceReadBps[0].Rate != 2<<20 || len(hc.BlkioDeviceReadBps) != 1 || *hc.PidsLimit != 33 {
		t.Errorf("inspect shows %+v", hc.Resources)
	}
	te.refusesUpdates(id)
}

// refusesUpdates: one field that cannot be changed, and nothing is.
func (te *testEngine) refusesUpdates(id string) {
	t := te.t
	pids := int64(44)
	for name, upd := range map[string]*container.UpdateConfig{
		"ulimits":         {Resources: container.Resources{PidsLimit: &pids, Ulimits: []*container.Ulimit{{Name: "core"}}}},
		"a cpu not there": {Resources: container.Resources{PidsLimit: &pids, CpusetCpus: "4095"}},
		"a memory node":   {Resources: container.Resources{PidsLimit: &pids, CpusetMems: "900"}},
		"restart":         {Resources: container.Resources{PidsLimit: &pids}, RestartPolicy: container.RestartPolicy{Name: "sometimes"}},
	} {
		if _, err := te.ContainerUpdate(t.Context(), id, upd); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v", name, err)
		}
		if got := te.inCgroup(id, "pids/pids.max", "pids.max"); got != "33" {
			t.Errorf("after refused %s: pids.max %s", name, got)
		}
		if hc := te.inspect(id).HostConfig; *hc.PidsLimit != 33 || hc.CpusetMems != "" {
			t.Errorf("after refused %s: %+v", name, hc.Resources)
		}
	}
}

// makeNull makes a file the null device.
func makeNull(t *testing.T, path string) {
	if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
}

// What only one cgroup version has is set there and left out, with a warning,
// on the other.
func TestLimitsOfOneCgroupVersion(t *testing.T) {
	te := newTestEngine(t)
	req := request("sleep", "1000")
	off, swappiness := true, int64(30)
	req.HostConfig.Memory, req.HostConfig.OomKillDisable, req.HostConfig.MemorySwappiness = 64<<20, &off, &swappiness
	made, err := te.ContainerCreate(t.Context(), "", req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := te.ContainerStart(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if te.host.unified {
		if len(made.Warnings) != 2 {
			t.Errorf("warnings %q", made.Warnings)
		}
		return
	}
	if out := te.inCgroup(made.ID, "memory/memory.oom_control", ""); !strings.Contains(out, "oom_kill_disable 1") {
		t.Errorf("oom_control: %q", out)
	}
	if out := te.inCgroup(made.ID, "memory/memory.swappiness", ""); out != "30" {
		t.Errorf("swappiness: %q", out)
	}
	swappiness = 40
	upd := &container.UpdateConfig{Resources: container.Resources{MemorySwappiness: &swappiness, BlkioWeight: 300}}
	if _, err := te.ContainerUpdate(t.Context(), made.ID, upd); err != nil {
		t.Fatal(err)
	}
	if out := te.inCgroup(made.ID, "memory/memory.swappiness", ""); out != "40" {
		t.Errorf("swappiness after the update: %q", out)
	}
	if !exists("/sys/fs/cgroup/blkio/blkio.bfq.io_service_bytes") {
		return // another scheduler's file
	}
	if out := te.inCgroup(made.ID, "blkio/blkio.bfq.weight", ""); out != "300" {
		t.Errorf("weight: %q", out)
	}
}
