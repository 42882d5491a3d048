// Package report has the results of a run of the benchmarks and writes them
// down: as JSON, as Markdown tables and as a plot.
package report

import (
	"slices"
	"time"

	"github.com/berth-containers/berth/bench/measure"
)

// The names of what Berth's programs are compared under.
const (
	BerthRuntime = "berth-oci"
	BerthEngine  = "berth"
	// BerthKeeper starts no command for a container: Berth's keeper, asked as the
	// engine asks it.
	BerthKeeper = "berth keeper"
	// DefaultSnapshotter is the one Berth takes when it is not told.
	DefaultSnapshotter = "overlayfs"
)

// The kinds of what is compared.
const (
	Runtimes = "oci"
	Engines  = "engine"
	// Pulls are engines that bring an image in.
	Pulls = "pull"
	// Snapshots are Berth's ways of keeping layers.
	Snapshots = "snapshotter"
)

// The ways of repeating a command.
const (
	Tight = "tight" // one after the other
	Paced = "paced" // with a pause in between
)

// Results is all that one run of the benchmarks found.
type Results struct {
	Machine    Machine      `json:"machine"`
	Quick      bool         `json:"quick"` // few rounds: for a first look only
	Programs   []Program    `json:"programs"`
	Timings    []Timing     `json:"timings,omitempty"`
	Throughput []Throughput `json:"throughput,omitempty"`
	Memory     []Memory     `json:"memory,omitempty"`
	Scale      []Scale      `json:"scale,omitempty"`
	// Snapshotters are Berth's.
	Snapshotters []Snapshotter `json:"snapshotters,omitempty"`
	Notes        []string      `json:"notes,omitempty"` // how this run differs from others
}

// Machine is where and when it was.
type Machine struct {
	CPU         string    `json:"cpu"`
	CPUs        int       `json:"cpus"`
	MemoryMiB   int64     `json:"memory_mib"`
	Kernel      string    `json:"kernel"`
	System      string    `json:"system"`
	Cgroups     string    `json:"cgroups"`
	Begin       time.Time `json:"begin"`
	End         time.Time `json:"end"`
	LoadAtBegin string    `json:"load_at_begin"` // over 1, 5 and 15 minutes
	LoadAtEnd   string    `json:"load_at_end"`
}

// Program is a candidate or a part of one.
type Program struct {
	Name string `json:"name"`
	// Kind is Runtimes or Engines; "" for a part of an engine.
	Kind    string `json:"kind,omitempty"`
	Version string `json:"version,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"` // of its file
	// Missing says why it is not compared; "" when it is.
	Missing string `json:"missing,omitempty"`
}

// Timing is one command of one candidate, repeated. A slice has one value for
// each time.
type Timing struct {
	Kind      string    `json:"kind"`
	Case      string    `json:"case"`
	Loop      string    `json:"loop"`
	Candidate string    `json:"candidate"`
	WallMS    []float64 `json:"wall_ms"`
	// CPUMS is the processor time of everything in the candidate's cgroup: the
	// command, the container, daemons. For engines it is the whole loop's,
	// divided by the number of commands: one value.
	CPUMS []float64 `json:"cpu_ms"`
	// The following are the command's own and of processes it waited for
	// (getrusage(2)).
	UserMS   []float64 `json:"user_ms"`
	SystemMS []float64 `json:"system_ms"`
	PeakKiB  []float64 `json:"peak_kib"`
	Faults   []float64 `json:"faults"`   // of pages
	Switches []float64 `json:"switches"` // of context
}

// Throughput is how many containers a runtime runs to their end per second for
// callers that do it at the same time.
type Throughput struct {
	Candidate string    `json:"candidate"`
	Callers   int       `json:"callers"`
	PerSecond []float64 `json:"per_second"` // one value for each round
	CPUMS     []float64 `json:"cpu_ms"`     // processor time per container
}

// Memory is what an engine's own processes occupy, as their proportional set
// size: shared pages are divided by the number of processes that share them.
type Memory struct {
	Candidate  string `json:"candidate"`
	Containers int    `json:"containers"`
	// IdleKiB is before there are containers, LoadedKiB with all of them idle;
	// by program, in KiB.
	IdleKiB   map[string]int64 `json:"idle_kib"`
	LoadedKiB map[string]int64 `json:"loaded_kib"`
}

// Scale is how an engine fares with many idle containers that have limits and
// logs.
type Scale struct {
	Candidate  string `json:"candidate"`
	Containers int    `json:"containers"`
	// Callers start them, with the engine's command, at the same time.
	Callers   int     `json:"callers"`
	PerSecond float64 `json:"per_second"` // started
	// CPUMS is the processor time for each start: command, container, daemons.
	CPUMS float64 `json:"cpu_ms"`
	// ListMS is the median wall time of the command that lists them.
	ListMS float64 `json:"list_ms"`
	// KiB is what the engine's own processes occupy (Pss), by program.
	KiB map[string]int64 `json:"kib"`
}

// Snapshotter is what a way of keeping layers takes on the disk: for the store
// with one image, and for a container that was created.
type Snapshotter struct {
	Candidate    string `json:"candidate"`
	ImageKiB     int64  `json:"image_kib"`
	ContainerKiB int64  `json:"container_kib"`
}

func sum(kib map[string]int64) int64 {
	var total int64
	for _, n := range kib {
		total += n
	}
	return total
}

// PerContainerKiB is what one more container adds.
func (m *Memory) PerContainerKiB() float64 {
	return float64(sum(m.LoadedKiB)-sum(m.IdleKiB)) / float64(m.Containers)
}

// IdleMiB is what the engine occupies without containers.
func (m *Memory) IdleMiB() float64 { return float64(sum(m.IdleKiB)) / 1024 }

// cases are the cases of a kind, in the order they were measured.
func (r *Results) cases(kind string) []string {
	var cases []string
	for _, t := range r.Timings {
		if t.Kind == kind && !slices.Contains(cases, t.Case) {
			cases = append(cases, t.Case)
		}
	}
	return cases
}

// timing finds a measurement, nil when there is none.
func (r *Results) timing(kind, name, loop, candidate string) *Timing {
	for i, t := range r.Timings {
		if t.Kind == kind && t.Case == name && t.Loop == loop && t.Candidate == candidate {
			return &r.Timings[i]
		}
	}
	return nil
}

// candidates are the names of those measured in a case, Berth first.
func (r *Results) candidates(kind, name string) []string {
	var names []string
	for _, t := range r.Timings {
		if t.Kind == kind && t.Case == name && !slices.Contains(names, t.Candidate) {
			names = append(names, t.Candidate)
		}
	}
	return names
}

// ratio is a's median wall time in b's; zeroes when one was not measured.
func ratio(a, b *Timing) measure.Ratio {
	if a == nil || b == nil {
		return measure.Ratio{}
	}
	return measure.MedianRatio(a.WallMS, b.WallMS)
}

// berth is the name of Berth's candidate of a kind.
func berth(kind string) string {
	if kind == Engines {
		return BerthEngine
	}
	return BerthRuntime
}
