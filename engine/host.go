package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/berth-containers/berth/kernel/lsm"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// hostFacts is what requests are checked against. It is a value, filled once
// at Open, so that checks and specs can be tested without the host.
type hostFacts struct {
	// caps are the capabilities this process may hand on: its bounding set.
	caps []string
	// raiseLimits says that this process may raise hard rlimits and lower
	// oom_score_adj (CAP_SYS_RESOURCE).
	raiseLimits bool
	// rlimits are this process' hard limits by OCI name (RLIMIT_NOFILE, ...).
	rlimits map[string]uint64
	// oomScoreAdj is this process' own; lower is only allowed with raiseLimits.
	oomScoreAdj int
	// controllers are the cgroup controllers by their v1 names (memory, cpu,
	// cpuset, pids, blkio, devices, ...).
	controllers map[string]bool
	unified     bool // pure cgroup v2
	swapLimit   bool
	appArmor    bool
	seLinux     bool
	landlock    int // version of the kernel's interface, 0: none
	seccomp     bool
	// realtime and weights: the cpu controller has real-time shares, the blkio
	// controller weights (cgroup v2 tells of weights only when one is set).
	realtime, weights bool
	cpus              int
	memTotal          int64
	kernel            string
	osName            string
	osVersion         string
	// maskedCPUs are the per-CPU thermal_throttle directories that exist.
	maskedCPUs []string
	// sysctls are the optional default sysctls this kernel has.
	sysctls map[string]bool
}

// probeHost asks the kernel.
func probeHost() (*hostFacts, error) {
	h := &hostFacts{
		cpus:        runtime.NumCPU(),
		rlimits:     map[string]uint64{},
		controllers: map[string]bool{},
		sysctls:     map[string]bool{},
		osName:      "Linux",
	}
	if err := h.probeCaps(); err != nil {
		return nil, err
	}
	if err := h.probeLimits(); err != nil {
		return nil, err
	}
	if err := h.probeControllers(); err != nil {
		return nil, err
	}
	h.probeKernel()
	h.probeOSRelease()
	return h, nil
}

func (h *hostFacts) probeCaps() error {
	self, err := capability.NewPid2(0)
	if err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	if err := self.Load(); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	known, err := capability.ListSupported()
	if err != nil {
		return fmt.Errorf("list capabilities: %w", err)
	}
	for _, c := range known {
		if self.Get(capability.BOUNDING, c) {
			h.caps = append(h.caps, capName(c))
		}
	}
	h.raiseLimits = self.Get(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE)
	return nil
}

func capName(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }

func (h *hostFacts) probeLimits() error {
	for name, number := range rlimitNumbers {
		var lim unix.Rlimit
		if err := unix.Getrlimit(number, &lim); err != nil {
			return fmt.Errorf("read own limit %s: %w", name, err)
		}
		h.rlimits[name] = lim.Max
	}
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	h.oomScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return err
}

// probeControllers reads the controllers, v1 and v2 together, in v1's names.
func (h *hostFacts) probeControllers() error {
	v2, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err == nil {
		h.unified = true
		for _, c := range strings.Fields(string(v2)) {
			if c == "io" {
				c = "blkio"
			}
			h.controllers[c] = true
		}
		h.controllers["devices"] = true // by BPF
		h.controllers["freezer"] = true // cgroup.freeze
		h.swapLimit, h.weights = exists("/proc/swaps"), true
		return nil
	}
	v1, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(v1)) {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || f[1] == "" {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			h.controllers[c] = true
		}
	}
	h.swapLimit = exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	h.realtime = exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
	h.weights = exists("/sys/fs/cgroup/blkio/blkio.weight") || exists("/sys/fs/cgroup/blkio/blkio.bfq.io_service_bytes")
	return nil
}

func (h *hostFacts) probeKernel() {
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		h.memTotal = int64(si.Totalram) * int64(si.Unit)
	}
	h.seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")
	h.appArmor, h.seLinux, h.landlock = lsm.AppArmor(), lsm.SELinux(), lsm.Landlock()
	h.maskedCPUs, _ = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	for _, s := range []string{sysctlPing, sysctlPorts} {
		h.sysctls[s] = exists("/proc/sys/" + strings.ReplaceAll(s, ".", "/"))
	}
}

func (h *hostFacts) probeOSRelease() {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		data, _ = os.ReadFile("/usr/lib/os-release")
	}
	for line := range strings.Lines(string(data)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "PRETTY_NAME":
			h.osName = v
		case "VERSION_ID":
			h.osVersion = v
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// rlimitNumbers are the resource limits by OCI name, setrlimit(2).
var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}
