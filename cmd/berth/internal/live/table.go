package live

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// row is a container with what two overviews say of it together.
type row struct {
	client.ContainerUse
	// Rates: cpu in percent of one processor, the others in bytes per second; -1
	// before there is a second overview.
	cpu, disk, net float64
}

// running tells whether it has a process.
func (r *row) running() bool { return r.Status == "running" || r.Status == "paused" }

// memoryShare is memory against its limit, or the host's memory, in percent.
func (r *row) memoryShare(host uint64) float64 {
	limit := r.MemoryLimit
	if limit == 0 || limit > host {
		limit = host
	}
	if limit == 0 {
		return 0
	}
	return 100 * float64(r.Memory) / float64(limit)
}

// pressure is the worst of the three, -1 where the kernel counts none.
func (r *row) pressure() float64 { return max(r.CPUPressure, r.MemoryPressure, r.IOPressure) }

// rows compares an overview with the one before, nil for none.
func rows(now, before *client.Overview) []row {
	earlier := map[string]*client.ContainerUse{}
	seconds := 0.0
	if before != nil {
		seconds = now.Time.Sub(before.Time).Seconds()
		for i := range before.Containers {
			earlier[before.Containers[i].ID] = &before.Containers[i]
		}
	}
	list := make([]row, len(now.Containers))
	for i, use := range now.Containers {
		r := row{ContainerUse: use, cpu: -1, disk: -1, net: -1}
		// A container that was started anew counts from the beginning.
		if old := earlier[use.ID]; r.running() && old != nil && seconds > 0 && old.StartedAt.Equal(use.StartedAt) {
			per := func(now, then uint64) float64 { return max(0, float64(now)-float64(then)) / seconds }
			r.cpu = per(use.CPU, old.CPU) / 1e9 * 100
			r.disk = per(use.ReadBytes+use.WriteBytes, old.ReadBytes+old.WriteBytes)
			r.net = per(use.RxBytes+use.TxBytes, old.RxBytes+old.TxBytes)
		}
		list[i] = r
	}
	return list
}

// order is a way to sort: what is most first, names by the alphabet.
type order struct {
	key     byte
	name    string
	compare func(a, b *row, host uint64) int
}

func most[T cmp.Ordered](of func(*row, uint64) T) func(a, b *row, host uint64) int {
	return func(a, b *row, host uint64) int { return cmp.Compare(of(b, host), of(a, host)) }
}

// orders are the sort keys.
var orders = []order{
	{'c', "CPU", most(func(r *row, _ uint64) float64 { return r.cpu })},
	{'m', "memory", most(func(r *row, host uint64) float64 { return r.memoryShare(host) })},
	{'d', "disk", most(func(r *row, _ uint64) float64 { return r.disk })},
	{'t', "traffic", most(func(r *row, _ uint64) float64 { return r.net })},
	{'p', "processes", most(func(r *row, _ uint64) uint64 { return r.Pids })},
	{'w', "waiting", most(func(r *row, _ uint64) float64 { return r.pressure() })},
	{'r', "restarts", most(func(r *row, _ uint64) int { return r.Restarts })},
	{'n', "name", func(a, b *row, _ uint64) int { return strings.Compare(a.Name, b.Name) }},
}

// arrange picks and sorts what is shown: running ones, or all; with the filter
// in their names, images or ids. What does not run comes last.
func arrange(all []row, by order, backwards, stopped bool, filter string, host uint64) []row {
	var list []row
	for _, r := range all {
		if (stopped || r.running() || r.Status == "restarting") &&
			(filter == "" || strings.Contains(r.Name, filter) || strings.Contains(r.Image, filter) || strings.HasPrefix(r.ID, filter)) {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b row) int {
		if a.running() != b.running() {
			if a.running() {
				return -1
			}
			return 1
		}
		n := by.compare(&a, &b, host)
		if backwards {
			n = -n
		}
		if n == 0 {
			n = strings.Compare(a.Name, b.Name)
		}
		return n
	})
	return list
}

// column is one of the table's. Those of a lower rank are left out first where
// the screen is narrow.
type column struct {
	title string
	width int
	rank  int
	left  bool
	text  func(r *row, now time.Time, host uint64) string
}

var columns = []column{
	{"STATE", 9, 9, true, func(r *row, now time.Time, _ uint64) string { return state(r, now) }},
	{"CPU%", 6, 9, false, func(r *row, _ time.Time, _ uint64) string { return percent(r.cpu) }},
	{"CPUS", 5, 2, false, func(r *row, _ time.Time, _ uint64) string { return unless(r.CPUs == 0, fmt.Sprintf("%.3g", r.CPUs)) }},
	{"MEM", 6, 9, false, func(r *row, _ time.Time, _ uint64) string { return unless(!r.running(), short(float64(r.Memory))) }},
	{"MEM%", 5, 8, false, func(r *row, _ time.Time, host uint64) string {
		return unless(!r.running(), percent(r.memoryShare(host)))
	}},
	{"LIMIT", 6, 6, false, func(r *row, _ time.Time, _ uint64) string {
		return unless(r.MemoryLimit == 0, short(float64(r.MemoryLimit)))
	}},
	{"DISK/s", 7, 7, false, func(r *row, _ time.Time, _ uint64) string { return rate(r.disk) }},
	{"NET/s", 7, 7, false, func(r *row, _ time.Time, _ uint64) string { return rate(r.net) }},
	{"PIDS", 5, 8, false, func(r *row, _ time.Time, _ uint64) string { return unless(!r.running(), fmt.Sprint(r.Pids)) }},
	{"WAIT%", 5, 7, false, func(r *row, _ time.Time, _ uint64) string { return percent(r.pressure()) }},
	{"RST", 3, 5, false, func(r *row, _ time.Time, _ uint64) string { return unless(r.Restarts == 0, fmt.Sprint(r.Restarts)) }},
	{"HEALTH", 9, 3, true, func(r *row, _ time.Time, _ uint64) string { return unless(r.Health == "", r.Health) }},
	{"IMAGE", 20, 1, true, func(r *row, _ time.Time, _ uint64) string { return r.Image }},
}

// leastName is the narrowest the names' column may become.
const leastName = 12

// fit chooses the columns that fit, and how wide the names are then.
func fit(width int) (chosen []column, name int) {
	for least := 1; ; least++ {
		chosen, name = nil, width-1
		for _, c := range columns {
			if c.rank >= least {
				chosen = append(chosen, c)
				name -= c.width + 1
			}
		}
		if name >= leastName || least > 9 {
			return chosen, max(name, 1)
		}
	}
}

// unless is text, or a dash where there is nothing to say.
func unless(nothing bool, text string) string {
	if nothing {
		return "-"
	}
	return text
}

func percent(p float64) string { return unless(p < 0, fmt.Sprintf("%.1f", p)) }

func rate(bytes float64) string { return unless(bytes < 0, short(bytes)) }

// short writes bytes in at most six characters, in powers of 1024.
func short(n float64) string {
	units := "BKMGTP"
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 || n >= 100 {
		return fmt.Sprintf("%.0f%c", n, units[i])
	}
	return fmt.Sprintf("%.1f%c", n, units[i])
}

// state is how long it runs, or how it ended.
func state(r *row, now time.Time) string {
	switch r.Status {
	case "running":
		if r.Health == "unhealthy" {
			return r.Health
		}
		return "up " + brief(now.Sub(r.StartedAt))
	case "exited":
		return fmt.Sprintf("exit %d", r.ExitCode)
	case "restarting":
		return "restarts"
	}
	return r.Status
}

// brief writes a duration in at most four characters.
func brief(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 100*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
