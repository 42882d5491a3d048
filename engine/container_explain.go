package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-containers/berth/engine/explain"
	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/keeper"
	"github.com/berth-containers/berth/kernel/cgroup"
	"github.com/berth-containers/berth/kernel/lsm"
	"github.com/berth-containers/berth/oci"
	"github.com/docker/go-units"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ContainerExplain says why a container ended, what it was short of, what
// confines it and how its process is made: the facts and the sentences.
func (e *Engine) ContainerExplain(_ context.Context, ref string) (*explain.Container, error) {
	c, err := e.containers.get(ref)
	if err != nil {
		return nil, err
	}
	rec := c.snapshot()
	out := &explain.Container{
		ID: rec.ID, Name: rec.Name, Image: rec.Config.Image, Status: string(rec.State.shown()), Ending: explainEnding(rec),
	}
	if health := c.healthNow(); health != nil {
		out.Ending.Health = string(health.Status)
	}
	if out.Use, err = e.explainUse(rec); err != nil {
		return nil, err
	}
	spec, rebuilt, err := e.specOf(rec)
	if err != nil {
		out.Program.Problem = err.Error()
		spec = &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	} else {
		out.Program = explainProgram(spec)
	}
	out.Program.Rebuilt = rebuilt
	out.Confinement = e.explainConfinement(rec, spec, &out.Program)
	if rec.State.Pid > 0 {
		out.Confinement.Seen = readSeen(rec.State.Pid)
	}
	out.Explain(time.Now())
	return out, nil
}

// explainEnding takes the ending from a record.
func explainEnding(rec *record) explain.Ending {
	st, hc := &rec.State, rec.HostConfig
	en := explain.Ending{
		Status: string(st.shown()), CreatedAt: rec.Created, StartedAt: st.StartedAt, FinishedAt: st.FinishedAt, Pid: st.Pid,
		ExitCode: st.ExitCode, Signal: st.Signal, MemoryLimit: uint64(max(hc.Memory, 0)), Error: st.Error,
		FailedStart: !st.active() && st.Error != "" && st.Used == nil, Lost: st.ExitCode == keeper.ExitCodeLost && st.Error != "",
		Restart: string(hc.RestartPolicy.Name), MaxRetries: hc.RestartPolicy.MaximumRetryCount, Restarts: rec.RestartCount,
		StoppedByUser: st.Stopped, AutoRemove: hc.AutoRemove, Command: append([]string{rec.Path}, rec.Args...),
	}
	if st.Signal != 0 {
		en.SignalName = explain.SignalName(st.Signal)
	}
	for _, s := range st.Sent {
		en.Sent = append(en.Sent, explain.Sent{
			Signal: explain.SignalName(int(s.Signal)), Number: int(s.Signal), By: string(s.By), At: s.At,
		})
	}
	if u := st.Used; u != nil {
		en.OOMKills = u.OOMKills
		en.ByLimit = hitLimit(u, hc.Memory)
	}
	return en
}

// hitLimit tells whether a container that was killed for want of memory had
// come to its own limit. Kernels that count no failures on cgroup v1 are asked
// for the peak.
func hitLimit(u *keeper.Used, limit int64) bool {
	return limit > 0 && (u.MemoryFailures > 0 || u.MemoryPeak > uint64(limit)/100*95)
}

// explainUse reads the cgroup of what runs, and the balance of what has ended.
func (e *Engine) explainUse(rec *record) (explain.Use, error) {
	hc := rec.HostConfig
	u := explain.Use{CPUs: cpuLimit(hc.NanoCPUs, hc.CPUQuota, hc.CPUPeriod), MemoryLimit: uint64(max(hc.Memory, 0))}
	if hc.PidsLimit != nil && *hc.PidsLimit > 0 {
		u.PidsLimit = uint64(*hc.PidsLimit)
	}
	if used := rec.State.Used; used != nil && !rec.State.active() {
		u.Known, u.CPU, u.Periods, u.ThrottledPeriods, u.ThrottledTime = true, used.CPU, used.Periods, used.ThrottledPeriods, used.ThrottledTime
		u.MemoryPeak, u.MemoryFailures, u.OOMKills, u.ForksRefused = used.MemoryPeak, used.MemoryFailures, used.OOMKills, used.ForksRefused
		return u, nil
	}
	if rec.State.Pid == 0 {
		return u, nil
	}
	g, err := e.cgroup(rec)
	if err == nil {
		defer g.Close()
		err = readUse(g, &u)
	}
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return u, nil // it ends at this moment
	}
	return u, err
}

func readUse(g *cgroup.Group, u *explain.Use) error {
	st, err := g.Stats()
	if err != nil {
		return err
	}
	more, err := g.MoreStats()
	if err != nil {
		return err
	}
	balance, err := g.Balance()
	if err != nil {
		return err
	}
	u.Known, u.CPU = true, time.Duration(st.CPU.Total)
	u.Periods, u.ThrottledPeriods, u.ThrottledTime = st.CPU.Periods, st.CPU.ThrottledPeriods, time.Duration(st.CPU.ThrottledTime)
	u.Memory, u.MemoryPeak, u.MemoryFailures, u.OOMKills = st.Memory.Usage, st.Memory.Peak, st.Memory.Failures, st.Memory.OOMKills
	if st.Memory.Limit != cgroup.Unlimited {
		u.MemoryLimit = st.Memory.Limit
	}
	u.Pids, u.ForksRefused = st.Pids.Current, balance.ForksRefused
	for _, p := range []struct {
		from *cgroup.Pressure
		to   **explain.Pressure
	}{{more.CPUPressure, &u.CPUPressure}, {more.MemoryPressure, &u.MemoryPressure}, {more.IOPressure, &u.IOPressure}} {
		if p.from != nil {
			*p.to = &explain.Pressure{Avg10: p.from.Some.Avg10, Avg60: p.from.Some.Avg60, Avg300: p.from.Some.Avg300, Total: p.from.Some.Total}
		}
	}
	return nil
}

// specOf is the specification a container runs by, which the keeper has, or
// the one by which it would be started now.
func (e *Engine) specOf(rec *record) (spec *specs.Spec, rebuilt bool, err error) {
	if rec.State.Pid > 0 {
		if spec, err = keeper.LoadSpec(e.cfg.RunRoot, rec.ID); err == nil && spec.Process != nil && spec.Linux != nil {
			return spec, false, nil
		}
	}
	src := &specSources{rec: rec, host: e.host, parent: e.cgroupParent(rec), shmSize: e.cfg.DefaultShmSize}
	if src.sec, err = parseSecurityOpt(rec.HostConfig.SecurityOpt, e.host); err != nil {
		return nil, true, err
	}
	if src.devices, err = resolveDevices(rec.HostConfig.Devices); err != nil {
		return nil, true, err
	}
	src.user.User = likelyUser(rec.Config.User)
	spec, err = buildSpec(src)
	return spec, true, err
}

// likelyUser is the user without a look into the image's files: what matters
// here is whether it is root.
func likelyUser(name string) specs.User {
	name, _, _ = strings.Cut(name, ":")
	if name == "" || name == "root" {
		return specs.User{}
	}
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return specs.User{UID: uint32(uid)}
	}
	const nobody = 65534
	return specs.User{UID: nobody}
}

// explainProgram compiles the specification, without touching the host.
func explainProgram(spec *specs.Spec) explain.Program {
	plan, err := oci.Compile(spec, "/")
	if err != nil {
		return explain.Program{Problem: err.Error()}
	}
	var text bytes.Buffer
	if err := plan.Explain(&text); err != nil {
		return explain.Program{Problem: err.Error()}
	}
	return explain.Program{Calls: plan.Program.Len(), Steps: plan.Program.Steps(), Listing: text.String()}
}

// explainConfinement reads the specification.
func (e *Engine) explainConfinement(rec *record, spec *specs.Spec, program *explain.Program) explain.Confinement {
	hc := rec.HostConfig
	con := explain.Confinement{
		Namespaces: explainNamespaces(rec, spec), Privileged: hc.Privileged, UID: spec.Process.User.UID, User: firstNonEmpty(rec.Config.User, "root"),
		NoNewPrivileges: spec.Process.NoNewPrivileges, Seccomp: e.explainSeccomp(rec, spec),
		AppArmor: spec.Process.ApparmorProfile, SELinux: spec.Process.SelinuxLabel,
		Landlock:     lsm.Landlock() > 0 && strings.Contains(program.Listing, "landlock_restrict_self"),
		ReadonlyRoot: spec.Root != nil && spec.Root.Readonly, MaskedPaths: spec.Linux.MaskedPaths, ReadonlyPaths: spec.Linux.ReadonlyPaths,
		AllDevices: hc.Privileged, Limits: explainLimits(rec),
	}
	if caps := spec.Process.Capabilities; caps != nil {
		con.Capabilities, con.Effective = caps.Bounding, caps.Effective
	}
	for _, m := range spec.Linux.UIDMappings {
		if m.ContainerID == 0 {
			con.UserMap = fmt.Sprintf("its root is user %d of the host, an ordinary one", m.HostID)
		}
	}
	if !hc.Privileged {
		for i := range spec.Linux.Devices {
			con.Devices = append(con.Devices, spec.Linux.Devices[i].Path)
		}
	}
	return con
}

// namespaceKinds are OCI's names of namespaces and the kernel's.
var namespaceKinds = map[specs.LinuxNamespaceType]string{
	specs.MountNamespace: "mnt", specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc",
	specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup", specs.UserNamespace: "user", specs.TimeNamespace: "time",
}

func explainNamespaces(rec *record, spec *specs.Spec) []explain.Namespace {
	hc := rec.HostConfig
	joined := map[string]string{}
	if hc.NetworkMode.IsContainer() {
		joined["net"] = "container " + short(hc.NetworkMode.ConnectedContainer())
	}
	if hc.PidMode.IsContainer() {
		joined["pid"] = "container " + short(hc.PidMode.Container())
	}
	if hc.IpcMode.IsContainer() {
		joined["ipc"] = "container " + short(hc.IpcMode.Container())
	}
	if other, ok := joinedUserns(hc.UsernsMode); ok {
		joined["user"] = "container " + short(other)
	}
	var list []explain.Namespace
	for _, n := range spec.Linux.Namespaces {
		kind := namespaceKinds[n.Type]
		list = append(list, explain.Namespace{Kind: kind, Of: firstNonEmpty(joined[kind], "own")})
	}
	return list
}

func (e *Engine) explainSeccomp(rec *record, spec *specs.Spec) explain.Seccomp {
	p := spec.Linux.Seccomp
	if p == nil {
		return explain.Seccomp{Profile: "none"}
	}
	s := explain.Seccomp{Profile: "default", Default: string(p.DefaultAction)}
	if slices.ContainsFunc(rec.HostConfig.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, "seccomp") }) {
		s.Profile = "custom"
	}
	allowed := map[string]bool{}
	for i := range p.Syscalls {
		if p.Syscalls[i].Action == specs.ActAllow {
			for _, name := range p.Syscalls[i].Names {
				allowed[name] = true
			}
		}
	}
	s.Allowed = len(allowed)
	return s
}

// explainLimits are the limits that are set, each as a phrase.
func explainLimits(rec *record) []string {
	hc := rec.HostConfig
	var list []string
	add := func(set bool, format string, args ...any) {
		if set {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(hc.Memory > 0, "memory %s", units.BytesSize(float64(hc.Memory)))
	add(hc.MemorySwap > 0 && hc.MemorySwap != hc.Memory, "memory and swap together %s", units.BytesSize(float64(hc.MemorySwap)))
	add(hc.MemoryReservation > 0, "memory reserved %s", units.BytesSize(float64(hc.MemoryReservation)))
	add(hc.NanoCPUs > 0, "%.3g processors", float64(hc.NanoCPUs)/1e9)
	add(hc.NanoCPUs == 0 && hc.CPUQuota > 0, "%d µs of processor time in each %d µs", hc.CPUQuota, max(hc.CPUPeriod, 0))
	add(hc.CPUShares > 0, "%d shares of the processors when they are short", hc.CPUShares)
	add(hc.CpusetCpus != "", "processors number %s", hc.CpusetCpus)
	add(hc.CpusetMems != "", "memory nodes number %s", hc.CpusetMems)
	add(hc.PidsLimit != nil && *hc.PidsLimit > 0, "%d processes and threads", deref(hc.PidsLimit))
	add(hc.BlkioWeight > 0, "block I/O weight %d", hc.BlkioWeight)
	for _, u := range hc.Ulimits {
		add(true, "ulimit %s %d", u.Name, u.Soft)
	}
	return list
}

func deref(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

// readSeen asks the kernel; nil when the process has ended.
func readSeen(pid int) *explain.Seen {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	seen := new(explain.Seen)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "CapBnd":
			seen.CapBnd, _ = strconv.ParseUint(value, 16, 64) // the kernel writes numbers
			for _, c := range capability.ListKnown() {
				if seen.CapBnd&(1<<uint(c)) != 0 {
					seen.Bounding = append(seen.Bounding, capName(c))
				}
			}
		case "CapEff":
			seen.CapEff, _ = strconv.ParseUint(value, 16, 64)
		case "NoNewPrivs":
			seen.NoNewPrivs = value == "1"
		case "Seccomp":
			seen.Seccomp, _ = strconv.Atoi(value)
		}
	}
	if label, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", pid)); err == nil {
		seen.Label = strings.TrimRight(string(label), "\x00\n")
	}
	return seen
}
