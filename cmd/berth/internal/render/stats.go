package render

import (
	"fmt"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// StatsTable is the table of berth stats.
const StatsTable = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

// StatsHeader has the headings of [Stats].
func StatsHeader() Header {
	return Header{
		"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %",
		"MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O",
		"BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	}
}

// Stats is a line of berth stats.
type Stats struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

// NoStats is the line of a container that has none (yet).
func NoStats(ref string) Stats {
	return Stats{
		Container: ref, ID: "--", Name: "--", CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--",
		NetIO: "--", BlockIO: "--", PIDs: "--",
	}
}

// NewStats makes the line of a sample; ref is what the user called the container.
func NewStats(ref string, s *container.StatsResponse, trunc bool) Stats {
	used := memoryUsed(&s.MemoryStats)
	percent := 0.0
	if s.MemoryStats.Limit > 0 {
		percent = float64(used) / float64(s.MemoryStats.Limit) * 100
	}
	var rx, tx, read, write uint64
	for _, n := range s.Networks {
		rx, tx = rx+n.RxBytes, tx+n.TxBytes
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch e.Op {
		case "read", "Read":
			read += e.Value
		case "write", "Write":
			write += e.Value
		}
	}
	line := Stats{
		Container: ref, ID: s.ID, Name: trimSlash(s.Name),
		CPUPerc:  fmt.Sprintf("%.2f%%", cpuPercent(s)),
		MemUsage: units.BytesSize(float64(used)) + " / " + units.BytesSize(float64(s.MemoryStats.Limit)),
		MemPerc:  fmt.Sprintf("%.2f%%", percent),
		NetIO:    size3(rx) + " / " + size3(tx),
		BlockIO:  size3(read) + " / " + size3(write),
		PIDs:     fmt.Sprint(s.PidsStats.Current),
	}
	if trunc {
		line.ID = ShortID(s.ID)
	}
	return line
}

func trimSlash(name string) string {
	if len(name) > 0 && name[0] == '/' {
		return name[1:]
	}
	return name
}

func size3(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// memoryUsed is the memory in use without the page cache that would be given
// up first: inactive_file of memory.stat, total_inactive_file on cgroup v1.
func memoryUsed(m *container.MemoryStats) uint64 {
	for _, field := range []string{"total_inactive_file", "inactive_file"} {
		if cache, ok := m.Stats[field]; ok {
			if cache < m.Usage {
				return m.Usage - cache
			}
			return m.Usage
		}
	}
	return m.Usage
}

// cpuPercent is the share of one CPU used between two samples, so that two
// busy CPUs are 200.
func cpuPercent(s *container.StatsResponse) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if used <= 0 || system <= 0 {
		return 0
	}
	return used / system * cpus * 100
}
