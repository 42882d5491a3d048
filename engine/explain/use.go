package explain

import (
	"fmt"
	"time"
)

// Use is what a container uses or, when it has ended, had used. What is not
// known is 0 or nil.
type Use struct {
	// Known tells that there are figures.
	Known bool
	// CPU is processor time; CPUs the limit in processors, 0 for none.
	CPU  time.Duration
	CPUs float64 `json:",omitempty"`
	// Periods of the limit have passed; in ThrottledPeriods it was stopped for the
	// rest of one, ThrottledTime in all.
	Periods, ThrottledPeriods uint64
	ThrottledTime             time.Duration
	// Memory in bytes: now, at most, and the limit (0 for none), which was hit
	// MemoryFailures times.
	Memory, MemoryPeak, MemoryLimit uint64
	MemoryFailures, OOMKills        uint64
	// Pids are processes and threads, PidsLimit 0 is none.
	Pids, PidsLimit uint64
	ForksRefused    uint64
	// Pressure is the share of the last 10, 60 and 300 seconds in which some of
	// its tasks waited for a resource, in percent; nil where the kernel does not
	// count it, and of what has ended.
	CPUPressure, MemoryPressure, IOPressure *Pressure `json:",omitempty"`
}

// Pressure is in percent of time, the sum since the start in microseconds.
type Pressure struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

func (u *Use) question(e *Ending) string {
	if e.Cause == Running {
		return "What is it short of?"
	}
	return "What was it short of?"
}

func (u *Use) answers(e *Ending, now time.Time) []string {
	if !u.Known {
		return []string{"There are no figures: it has not run since this engine keeps them."}
	}
	end := e.FinishedAt
	if e.Cause == Running {
		end = now
	}
	out := []string{u.cpu(end.Sub(e.StartedAt)), u.memory(e.Cause == Running)}
	if text := u.processes(e.Cause == Running); text != "" {
		out = append(out, text)
	}
	if text := u.pressure(); text != "" {
		out = append(out, text)
	}
	return out
}

func (u *Use) cpu(life time.Duration) string {
	text := fmt.Sprintf("Processor: it has used %s in %s, %s of one processor.", length(u.CPU), length(life), share(u.CPU.Seconds(), life.Seconds()))
	switch {
	case u.CPUs == 0 && u.ThrottledPeriods == 0:
		return text + " It has no limit, so it was never throttled."
	case u.ThrottledPeriods == 0:
		return text + fmt.Sprintf(" Its limit of %.3g processors has never throttled it.", u.CPUs)
	}
	limit := "Its limit"
	if u.CPUs > 0 {
		limit += fmt.Sprintf(" of %.3g processors", u.CPUs)
	}
	return text + fmt.Sprintf(" %s throttled it in %d of %d periods (%s), for %s in all: more is given by berth update --cpus.",
		limit, u.ThrottledPeriods, u.Periods, share(float64(u.ThrottledPeriods), float64(u.Periods)), length(u.ThrottledTime))
}

func (u *Use) memory(running bool) string {
	text := "Memory: "
	switch {
	case running && u.MemoryPeak > 0:
		text += fmt.Sprintf("it has %s, at most it had %s", size(u.Memory), size(u.MemoryPeak))
	case running:
		text += fmt.Sprintf("it has %s", size(u.Memory))
	case u.MemoryPeak > 0:
		text += fmt.Sprintf("at most it had %s", size(u.MemoryPeak))
	default:
		text += "this kernel does not tell how much it had at most"
	}
	if u.MemoryLimit == 0 {
		return text + "; it has no limit."
	}
	text += fmt.Sprintf(", of a limit of %s", size(u.MemoryLimit))
	if most := max(u.Memory, u.MemoryPeak); most > 0 {
		text += fmt.Sprintf(" (%s)", share(float64(most), float64(u.MemoryLimit)))
	}
	if u.MemoryFailures > 0 {
		text += fmt.Sprintf(", which it has hit %s", count(int(u.MemoryFailures), "time", "times"))
	}
	if u.OOMKills > 0 {
		text += fmt.Sprintf("; %s killed for want of memory", count(int(u.OOMKills), "process was", "processes were"))
	}
	return text + "."
}

func (u *Use) processes(running bool) string {
	text := ""
	if running {
		text = fmt.Sprintf("Processes: %s now", count(int(u.Pids), "process or thread", "processes and threads"))
		if u.PidsLimit > 0 {
			text += fmt.Sprintf(", of at most %d", u.PidsLimit)
		}
		text += "."
	}
	if u.ForksRefused > 0 {
		if text == "" {
			text = "Processes:"
		}
		text += fmt.Sprintf(" %s refused because its limit was reached (--pids-limit).", count(int(u.ForksRefused), "new one was", "new ones were"))
	}
	return text
}

// pressure says what its tasks wait for.
func (u *Use) pressure() string {
	var parts []string
	counted := false
	for _, p := range []struct {
		name string
		of   *Pressure
	}{{"a processor", u.CPUPressure}, {"memory", u.MemoryPressure}, {"I/O", u.IOPressure}} {
		counted = counted || p.of != nil
		if p.of != nil && (p.of.Avg10 >= 0.5 || p.of.Avg300 >= 0.5) {
			parts = append(parts, fmt.Sprintf("for %s in %.0f %% of the last 10 s and %.0f %% of the last 5 min", p.name, p.of.Avg10, p.of.Avg300))
		}
	}
	switch {
	case !counted:
		return ""
	case parts == nil:
		return "Pressure: none of its tasks had to wait for a processor, for memory or for I/O."
	}
	return "Pressure: some of its tasks waited " + list(parts) + "."
}
