package engine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
)

// Info describes the host and the engine.
func (e *Engine) Info(ctx context.Context) (*system.Info, error) {
	images, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	h := e.host
	driver, backing := e.images.Snapshotter()
	info := &system.Info{
		ID: e.id, Images: len(images), Driver: driver, DriverStatus: e.driverStatus(backing),
		MemoryLimit: h.controllers["memory"], SwapLimit: h.swapLimit, CPUCfsPeriod: h.controllers["cpu"], CPUCfsQuota: h.controllers["cpu"],
		CPUShares: h.controllers["cpu"], CPUSet: h.controllers["cpuset"], PidsLimit: h.controllers["pids"],
		OomKillDisable: h.controllers["memory"] && !h.unified, IPv4Forwarding: fileIs("/proc/sys/net/ipv4/ip_forward", '1'),
		NFd: countEntries("/proc/self/fd"), NGoroutines: runtime.NumGoroutine(), NEventsListener: e.events.listeners(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: e.cfg.LogDriver,
		CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(h), KernelVersion: h.kernel,
		OperatingSystem: h.osName, OSVersion: h.osVersion, OSType: "linux", Architecture: machine(), NCPU: h.cpus, MemTotal: h.memTotal,
		DockerRootDir: e.cfg.StateRoot, Labels: orEmpty(*e.labels.Load()), ServerVersion: e.cfg.Version,
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: &registry.ServiceConfig{},
		Plugins:  system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: LogDrivers()},
		Runtimes: map[string]system.RuntimeWithStatus{runtimeName: {Runtime: system.Runtime{Path: e.keeper.opts.Binary}}}, DefaultRuntime: runtimeName,
		LiveRestoreEnabled: true, SecurityOptions: e.securityNames(), Warnings: e.warnings(),
		InitBinary: "berth-init",
	}
	e.cdi.describe(info)
	if info.Name, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("read host name: %w", err)
	}
	for _, c := range e.containers.all() {
		info.Containers++
		switch st := c.snapshot().State.Status; st {
		case stateRunning, stateStarting, stateRestarting:
			info.ContainersRunning++
		case statePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
	return info, nil
}

// warnings say what this host lacks or what is set against us.
func (e *Engine) warnings() []string {
	var list []string
	for _, c := range []string{"memory", "cpu", "cpuset", "pids", "blkio"} {
		if !e.host.controllers[c] {
			list = append(list, "no "+c+" cgroup controller: its limits cannot be set")
		}
	}
	if !e.host.raiseLimits {
		list = append(list, "no CAP_SYS_RESOURCE: ulimits above the engine's own cannot be set")
	}
	if e.host.appArmor && !e.appArmor.canLoad(e.host) {
		list = append(list, "AppArmor is on, but "+appArmorParser+" is not installed: containers that name no profile run without one")
	}
	if e.host.seLinux && !policyKnowsContainers() {
		list = append(list, "SELinux is on, but its policy has no labels for containers: they get none")
	}
	if !e.host.seccomp {
		list = append(list, "the kernel has no seccomp: system calls are not filtered")
	}
	return list
}

// securityNames are the protections a container has that asks for nothing, in
// Docker's words; landlock is an addition of ours.
func (e *Engine) securityNames() []string {
	h, list := e.host, []string{}
	if e.appArmor.canLoad(h) {
		list = append(list, "name=apparmor")
	} else if h.landlock >= landlockVersion {
		list = append(list, fmt.Sprintf("name=landlock,abi=%d", h.landlock))
	}
	if h.seLinux {
		list = append(list, "name=selinux")
	}
	if h.seccomp {
		list = append(list, "name=seccomp,profile=builtin")
	}
	if e.cfg.Userns != usernsHost {
		list = append(list, "name=userns")
	}
	if h.unified {
		list = append(list, "name=cgroupns")
	}
	return list
}

func cgroupVersion(h *hostFacts) string {
	if h.unified {
		return "2"
	}
	return "1"
}

// machine is the architecture as uname and Docker's Info write it.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

func fileIs(path string, first byte) bool {
	data, err := os.ReadFile(path)
	return err == nil && len(data) > 0 && data[0] == first
}

func countEntries(dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return -1
	}
	return len(entries)
}

// Version describes the build. The API's versions are the door's to add.
func (e *Engine) Version(context.Context) (*system.VersionResponse, error) {
	return &system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Berth"}, Version: e.cfg.Version, Os: runtime.GOOS, Arch: runtime.GOARCH,
		GitCommit: e.cfg.Commit, GoVersion: runtime.Version(), KernelVersion: e.host.kernel, BuildTime: e.cfg.BuildTime,
		Components: []system.ComponentVersion{{
			Name: "Engine", Version: e.cfg.Version, Details: map[string]string{
				"Arch": runtime.GOARCH, "Os": runtime.GOOS, "GitCommit": e.cfg.Commit, "GoVersion": runtime.Version(),
				"KernelVersion": e.host.kernel, "BuildTime": e.cfg.BuildTime,
			},
		}},
	}, nil
}

// DiskUsage sums up what images, containers and volumes take on disk.
func (e *Engine) DiskUsage(ctx context.Context) (*system.DiskUsage, error) {
	images, err := e.imageUsage(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := e.containerUsage(ctx)
	if err != nil {
		return nil, err
	}
	volumes, err := e.volumeUsage(ctx)
	if err != nil {
		return nil, err
	}
	return &system.DiskUsage{ImageUsage: images, ContainerUsage: containers, VolumeUsage: volumes}, nil
}

func (e *Engine) imageUsage(ctx context.Context) (*imagetypes.DiskUsage, error) {
	items, err := e.ImageList(ctx, ImageListOptions{All: true, ContainerCount: true, SharedSize: true})
	if err != nil {
		return nil, err
	}
	usage, err := e.images.DiskUsage(ctx)
	if err != nil {
		return nil, err
	}
	u := &imagetypes.DiskUsage{Items: items, TotalCount: int64(len(items)), TotalSize: usage.Total, Reclaimable: usage.Reclaimable}
	for i := range items {
		if items[i].Containers > 0 {
			u.ActiveCount++
		}
	}
	return u, nil
}

func (e *Engine) containerUsage(ctx context.Context) (*container.DiskUsage, error) {
	items, err := e.ContainerList(ctx, ListOptions{All: true, Size: true})
	if err != nil {
		return nil, err
	}
	u := &container.DiskUsage{Items: items, TotalCount: int64(len(items))}
	for i := range items {
		u.TotalSize += items[i].SizeRw
		if st := items[i].State; st == stateRunning || st == statePaused || st == stateRestarting {
			u.ActiveCount++
		} else {
			u.Reclaimable += items[i].SizeRw
		}
	}
	return u, nil
}
