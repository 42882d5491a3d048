package cgroup

import (
	"fmt"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// usual is what an engine asks for an ordinary container with limits.
func usual() *specs.LinuxResources {
	res := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}},
		Memory:  &specs.LinuxMemory{Limit: ptr[int64](64 << 20), Swap: ptr[int64](128 << 20)},
		CPU:     &specs.LinuxCPU{Shares: ptr[uint64](512), Quota: ptr[int64](50000), Period: ptr[uint64](100000)},
		Pids:    &specs.LinuxPids{Limit: ptr[int64](100)},
	}
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {136, wildcard}} {
		res.Devices = append(res.Devices, dev("c", n[0], n[1], "rwm", true))
	}
	for _, kind := range []string{"b", "c"} {
		res.Devices = append(res.Devices, dev(kind, wildcard, wildcard, "m", true))
	}
	return res
}

// BenchmarkLife makes a limited group, joins it, and removes it. Beside the mean
// it reports medians of the parts in µs. "paced" leaves 20 ms between the runs, as
// a loop without pauses hides what waits for an RCU grace period.
func BenchmarkLife(b *testing.B) {
	needRoot(b)
	keep, err := Create(testRoot+"/keep", nil) // so that the parent is not made each time
	if err != nil {
		b.Fatal(err)
	}
	defer keep.Destroy()
	for _, pause := range []time.Duration{0, 20 * time.Millisecond} {
		name := "tight"
		if pause > 0 {
			name = "paced"
		}
		b.Run(name, func(b *testing.B) { benchmarkLife(b, pause) })
	}
}

func benchmarkLife(b *testing.B, gap time.Duration) {
	times := sharedTimes(b)
	parts := make(map[string][]float64)
	note := func(part string, d time.Duration) { parts[part] = append(parts[part], float64(d)/1e3) }
	path := testRoot + "/" + "life"
	for b.Loop() {
		b.StopTimer()
		pause(gap)
		b.StartTimer()
		start := time.Now()
		g, err := Create(path, usual())
		if err != nil {
			b.Fatal(err)
		}
		made := time.Now()
		note("create", made.Sub(start))
		l := launch{clone: cloneArgs{exitSignal: uint64(unix.SIGCHLD)}}
		files, err := joinFiles(g)
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range files {
			l.join = append(l.join, int(f.Fd()))
		}
		if f := g.CloneFD(); f != nil {
			l.clone.flags, l.clone.cgroup = unix.CLONE_INTO_CGROUP, uint64(f.Fd())
		}
		note("open", time.Since(made))
		pid, errno := forkJoin(&l, times)
		if errno != 0 {
			b.Fatal(errno)
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
			b.Fatalf("child: %v, %v", ws, err)
		}
		closeAll(files)
		note("join", time.Duration(times[0]))
		ended := time.Now()
		if err := g.Destroy(); err != nil {
			b.Fatal(err)
		}
		note("destroy", time.Since(ended))
	}
	for part, t := range parts {
		slices.Sort(t)
		b.ReportMetric(t[len(t)/2], fmt.Sprintf("µs-%s", part))
	}
}

// BenchmarkCgroupProcs is the other way to join: the parent writes the child's pid
// to cgroup.procs.
func BenchmarkCgroupProcs(b *testing.B) {
	g := newGroup(b, nil)
	m := join(b, nil, "wait")
	m.expect("ready")
	home := g.roster().mount
	var out branch = *g.roster()
	out.dir = home
	var took []float64
	for b.Loop() {
		pause(20 * time.Millisecond)
		start := time.Now()
		if err := g.roster().write("cgroup.procs", fmt.Sprint(m.pid)); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(start))/1e3)
		if err := out.write("cgroup.procs", fmt.Sprint(m.pid)); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "µs-migrate")
}

func BenchmarkStats(b *testing.B) {
	g := newGroup(b, nil)
	m := join(b, g, "wait")
	m.expect("ready")
	for b.Loop() {
		if _, err := g.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, path := range []string{"/berth/x", "berth-x"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				if _, err := place(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCreate tells what of Create is the directories, the limits, the device
// rules; and what a device program costs where v1 has the rules.
func BenchmarkCreate(b *testing.B) {
	keep := newGroup(b, nil)
	limits := usual()
	limits.Devices = nil
	devices := &specs.LinuxResources{Devices: usual().Devices}
	for _, c := range []struct {
		name string
		res  *specs.LinuxResources
	}{{"nothing", nil}, {"limits", limits}, {"devices", devices}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				g, err := Create(keep.Path()+"/x", c.res)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := g.Destroy(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
	set, err := compileDevices(devices)
	if err != nil {
		b.Fatal(err)
	}
	if u := keep.unified(); u != nil {
		b.Run("program", func(b *testing.B) {
			for b.Loop() {
				if err := u.setDevicesV2(set); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
