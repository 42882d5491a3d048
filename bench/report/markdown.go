package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berth-containers/berth/bench/measure"
)

// Plot is the file name by which the Markdown shows the plot.
const Plot = "start.svg"

// WriteMarkdown writes all tables, the machine and the method. plot says
// whether the plot is beside it.
func (r *Results) WriteMarkdown(w io.Writer, plot bool) error {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `make bench`. Change the benchmarks, not this file.\n\n")
	if r.Quick {
		b.WriteString("**A quick run: few rounds, for a first look only.**\n\n")
	}
	if plot {
		fmt.Fprintf(&b, "![Time from the command to its end, of Berth and its peers](%s)\n\n", Plot)
	}
	r.writeHeadlines(&b)
	r.writeMachine(&b)
	r.writeTimings(&b, Runtimes, "OCI runtimes")
	r.writeThroughput(&b)
	r.writeTimings(&b, Engines, "Engines")
	r.writeMemory(&b)
	r.writeScale(&b)
	r.writePulls(&b)
	r.writeSnapshotters(&b)
	r.writePrograms(&b)
	b.WriteString(method)
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeHeadlines compares Berth with each peer: a table for each kind.
func (r *Results) writeHeadlines(b *strings.Builder) {
	title := "## In short\n\nMedian wall time in milliseconds, and Berth's divided by the peer's: one command after the other, and paced; " +
		"then the ratio of processor times, one after the other.\n\n"
	for _, kind := range []string{Runtimes, Engines} {
		if cases := r.cases(kind); len(cases) > 0 {
			fmt.Fprintf(b, "%s%s\n", title, r.headlines(kind, cases))
			title = ""
		}
	}
}

func (r *Results) headlines(kind string, cases []string) *table {
	t := &table{head: []string{"", berth(kind)}}
	var peers []string
	for _, p := range r.Programs {
		if r.isPeer(kind, p.Name) && p.Missing == "" {
			peers = append(peers, p.Name)
			t.head = append(t.head, p.Name, "Berth/"+p.Name, "paced", "CPU")
		}
	}
	for _, name := range cases {
		t.add(r.headline(kind, name, name, berth(kind), peers)...)
		if r.timing(kind, name, Tight, BerthKeeper) != nil {
			t.add(r.headline(kind, name, name+", in the keeper", BerthKeeper, peers)...)
		}
	}
	return t
}

// headline is one row: a candidate of Berth's against the peers.
func (r *Results) headline(kind, name, title, own string, peers []string) []string {
	row := []string{title, medianOf(r.timing(kind, name, Tight, own))}
	for _, peer := range peers {
		row = append(row, medianOf(r.timing(kind, name, Tight, peer)))
		for _, loop := range []string{Tight, Paced} {
			row = append(row, interval(ratio(r.timing(kind, name, loop, own), r.timing(kind, name, loop, peer))))
		}
		row = append(row, processorRatio(r.timing(kind, name, Tight, own), r.timing(kind, name, Tight, peer)))
	}
	return row
}

// processorRatio is a's median processor time in b's.
func processorRatio(a, b *Timing) string {
	if a == nil || b == nil || measure.Median(b.CPUMS) == 0 {
		return "–"
	}
	return figure(measure.Median(a.CPUMS) / measure.Median(b.CPUMS))
}

func medianOf(t *Timing) string {
	if t == nil {
		return "–"
	}
	return figure(measure.Median(t.WallMS))
}

// isPeer: a candidate that is not Berth's, nor a mere process for scale.
func (r *Results) isPeer(kind, name string) bool {
	return name != berth(kind) && slices.ContainsFunc(r.Programs, func(p Program) bool { return p.Kind == kind && p.Name == name })
}

func interval(v measure.Ratio) string {
	if v == (measure.Ratio{}) {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", v.Value, v.Low, v.High)
}

func (r *Results) writeMachine(b *strings.Builder) {
	m := &r.Machine
	fmt.Fprintf(b, "## The machine\n\n%s, %d processors, %d MiB; Linux %s, %s; %s.\n", m.CPU, m.CPUs, m.MemoryMiB, m.Kernel, m.System, m.Cgroups)
	fmt.Fprintf(b, "%s, %.0f s. Load average (1, 5, 15 minutes) %s before, %s after.\n\n",
		m.Begin.UTC().Format("2006-01-02 15:04 UTC"), m.End.Sub(m.Begin).Seconds(), m.LoadAtBegin, m.LoadAtEnd)
}

func (r *Results) writeTimings(b *strings.Builder, kind, title string) {
	cases := r.cases(kind)
	if len(cases) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n", title)
	for _, name := range cases {
		fmt.Fprintf(b, "### %s\n\n%s\n", name, r.timingTable(kind, name))
	}
}

func (r *Results) timingTable(kind, name string) *table {
	t := &table{head: []string{
		"", "wall ms", "min", "× Berth", "CPU ms", "paced: wall ms", "min", "× Berth", "CPU ms", "peak KiB", "page faults", "switches", "n",
	}}
	for _, c := range r.candidates(kind, name) {
		row := []string{c}
		for _, loop := range []string{Tight, Paced} {
			row = append(row, timeCells(r.timing(kind, name, loop, c), r.timing(kind, name, loop, berth(kind)))...)
		}
		t.add(append(row, workCells(r.timing(kind, name, Tight, c), r.timing(kind, name, Paced, c))...)...)
	}
	for _, p := range r.Programs {
		if p.Kind == kind && p.Missing != "" {
			t.add(p.Name + " (missing: " + p.Missing + ")")
		}
	}
	return t
}

// timeCells are median, minimum, ratio and processor time.
func timeCells(t, own *Timing) []string {
	if t == nil {
		return []string{"–", "–", "–", "–"}
	}
	relative := "–"
	if v := ratio(t, own); v.Value != 0 {
		relative = figure(v.Value)
	}
	processor := "–"
	if len(t.CPUMS) > 0 {
		processor = figure(measure.Median(t.CPUMS))
	}
	return []string{figure(measure.Median(t.WallMS)), figure(measure.Min(t.WallMS)), relative, processor}
}

// workCells are what a command takes apart from time, and how often it was run
// in each loop.
func workCells(tight, paced *Timing) []string {
	var counts []string
	var all Timing
	for _, t := range []*Timing{tight, paced} {
		if t == nil {
			continue
		}
		counts = append(counts, fmt.Sprint(len(t.WallMS)))
		all.PeakKiB = append(all.PeakKiB, t.PeakKiB...)
		all.Faults = append(all.Faults, t.Faults...)
		all.Switches = append(all.Switches, t.Switches...)
	}
	if len(all.PeakKiB) == 0 {
		return []string{"–", "–", "–", strings.Join(counts, "+")}
	}
	return []string{
		fmt.Sprintf("%.0f", measure.Median(all.PeakKiB)), fmt.Sprintf("%.0f", measure.Median(all.Faults)),
		fmt.Sprintf("%.0f", measure.Median(all.Switches)), strings.Join(counts, "+"),
	}
}

func (r *Results) writeThroughput(b *strings.Builder) {
	if len(r.Throughput) == 0 {
		return
	}
	t := table{head: []string{"", "containers per second", "least", "most", "Berth ×", "CPU ms each"}}
	var own []float64
	for _, p := range r.Throughput {
		if p.Candidate == BerthRuntime {
			own = p.PerSecond
		}
	}
	for _, p := range r.Throughput {
		relative := "–"
		if v := measure.MedianRatio(own, p.PerSecond); v.Value != 0 {
			relative = figure(v.Value)
		}
		t.add(p.Candidate, figure(measure.Median(p.PerSecond)), figure(measure.Min(p.PerSecond)), figure(slices.Max(p.PerSecond)),
			relative, figure(measure.Median(p.CPUMS)))
	}
	for _, p := range r.Programs {
		if p.Kind == Runtimes && p.Missing != "" {
			t.add(p.Name + " (missing: " + p.Missing + ")")
		}
	}
	fmt.Fprintf(b, "### Throughput: run, default spec, %d callers at a time\n\n%s\n", r.Throughput[0].Callers, &t)
}

func (r *Results) writeMemory(b *strings.Builder) {
	if len(r.Memory) == 0 {
		return
	}
	t := table{head: []string{"", "per container, KiB", "without containers, MiB", "containers", "without them, KiB", "with them, KiB"}}
	for _, m := range r.Memory {
		t.add(m.Candidate, figure(m.PerContainerKiB()), figure(m.IdleMiB()), fmt.Sprint(m.Containers), parts(m.IdleKiB), parts(m.LoadedKiB))
	}
	for _, p := range r.Programs {
		if p.Kind == Engines && p.Missing != "" {
			t.add(p.Name + " (missing: " + p.Missing + ")")
		}
	}
	fmt.Fprintf(b, "### Memory of the engine's own processes (PSS), containers idle\n\n%s\n", &t)
}

func (r *Results) writeScale(b *strings.Builder) {
	if len(r.Scale) == 0 {
		return
	}
	t := table{head: []string{"", "containers", "callers", "started per second", "CPU ms for each", "ps, ms", "own memory, MiB", "of that, KiB"}}
	for _, s := range r.Scale {
		t.add(s.Candidate, fmt.Sprint(s.Containers), fmt.Sprint(s.Callers), figure(s.PerSecond), figure(s.CPUMS), figure(s.ListMS),
			figure(float64(sum(s.KiB))/1024), parts(s.KiB))
	}
	fmt.Fprintf(b, "### Many idle containers\n\n%s\n", &t)
}

// parts lists programs with what they occupy.
func parts(kib map[string]int64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(kib)) {
		list = append(list, fmt.Sprintf("%s %d", name, kib[name]))
	}
	if list == nil {
		return "nothing runs"
	}
	return strings.Join(list, ", ")
}

func (r *Results) writePrograms(b *strings.Builder) {
	t := table{head: []string{"program", "version", "size, MiB"}}
	for _, p := range r.Programs {
		if p.Missing != "" {
			t.add(p.Name + " (missing: " + p.Missing + ")")
			continue
		}
		t.add(p.Name, p.Version, figure(float64(p.Bytes)/(1<<20)))
	}
	fmt.Fprintf(b, "## Programs\n\n%s\n", &t)
}

// Elapsed is a duration as tables show it, in milliseconds.
func Elapsed(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
