package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-containers/berth/engine"
)

// collector asks for figures when it is asked.
type collector struct{ source Source }

// states are the states of containers, each counted though there be none.
var states = []string{"created", "running", "paused", "restarting", "exited", "removing", "dead"}

// perContainer are the labels of a container's figures.
var perContainer = []string{"id", "name", "image"}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// The figures that are not counted here but asked for.
var (
	containersDesc = describe("berth_containers", "Containers, by state.", "state")
	imagesDesc     = describe("berth_images", "Images in the store.")
	keeperUpDesc   = describe("berth_keeper_up", "1 when the keeper, parent of all containers, is connected.")
	keeperMemDesc  = describe("berth_keeper_resident_memory_bytes", "Resident memory of the keeper.")
)

// figure is one of a running container's.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	// of returns the value; ok is false where there is none, as of a limit that is not set.
	of func(u *engine.ContainerUse) (value float64, ok bool)
}

func always(v float64) (float64, bool) { return v, true }
func limit(v float64) (float64, bool)  { return v, v > 0 }

// nanoseconds in seconds, the unit of Prometheus.
func nanoseconds(n uint64) float64 { return time.Duration(n).Seconds() }

func ofContainer(name, help string, kind prometheus.ValueType, of func(u *engine.ContainerUse) (float64, bool)) figure {
	return figure{describe("berth_container_"+name, help, perContainer...), kind, of}
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// figures are those of each running container.
var figures = []figure{
	ofContainer("cpu_seconds_total", "Processor time used.", counter, func(u *engine.ContainerUse) (float64, bool) { return always(nanoseconds(u.CPU)) }),
	ofContainer("cpu_throttled_seconds_total", "Time the container was stopped by its limit of processor time.", counter,
		func(u *engine.ContainerUse) (float64, bool) { return always(nanoseconds(u.Throttled)) }),
	ofContainer("cpu_limit_cores", "Limit in processors; absent without one.", gauge, func(u *engine.ContainerUse) (float64, bool) { return limit(u.CPUs) }),
	ofContainer("memory_bytes", "Memory used, without the page cache that is dropped first.", gauge,
		func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.Memory)) }),
	ofContainer("memory_limit_bytes", "Limit of memory; absent without one.", gauge, func(u *engine.ContainerUse) (float64, bool) { return limit(float64(u.MemoryLimit)) }),
	ofContainer("io_read_bytes_total", "Bytes read from block devices.", counter, func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.ReadBytes)) }),
	ofContainer("io_written_bytes_total", "Bytes written to block devices.", counter, func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.WriteBytes)) }),
	ofContainer("network_received_bytes_total", "Bytes received by its network links.", counter, func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.RxBytes)) }),
	ofContainer("network_sent_bytes_total", "Bytes sent by its network links.", counter, func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.TxBytes)) }),
	ofContainer("processes", "Processes and threads.", gauge, func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.Pids)) }),
	ofContainer("processes_limit", "Limit of processes and threads; absent without one.", gauge, func(u *engine.ContainerUse) (float64, bool) { return limit(float64(u.PidsLimit)) }),
	ofContainer("cpu_pressure_ratio", "Share of the last 10 s in which some task waited for a processor; absent where not counted.", gauge,
		func(u *engine.ContainerUse) (float64, bool) { return u.CPUPressure / 100, u.CPUPressure >= 0 }),
	ofContainer("memory_pressure_ratio", "Share of the last 10 s in which some task waited for memory; absent where not counted.", gauge,
		func(u *engine.ContainerUse) (float64, bool) { return u.MemoryPressure / 100, u.MemoryPressure >= 0 }),
	ofContainer("io_pressure_ratio", "Share of the last 10 s in which some task waited for I/O; absent where not counted.", gauge,
		func(u *engine.ContainerUse) (float64, bool) { return u.IOPressure / 100, u.IOPressure >= 0 }),
	ofContainer("restarts_total", "Restarts by the restart policy.", counter, func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.Restarts)) }),
	ofContainer("start_time_seconds", "When it was started, in seconds since 1970.", gauge,
		func(u *engine.ContainerUse) (float64, bool) { return always(float64(u.StartedAt.UnixMilli()) / 1000) }),
	ofContainer("healthy", "1 when its health check says so, else 0; absent without one.", gauge, func(u *engine.ContainerUse) (float64, bool) {
		if u.Health == "healthy" {
			return 1, true
		}
		return 0, u.Health != ""
	}),
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{containersDesc, imagesDesc, keeperUpDesc, keeperMemDesc} {
		to <- d
	}
	for _, f := range figures {
		to <- f.desc
	}
}

// collectPatience bounds how long the store may take to count its images.
const collectPatience = 5 * time.Second

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	c.containers(to)
	ctx, cancel := context.WithTimeout(context.Background(), collectPatience)
	defer cancel()
	if n, err := c.source.ImageCount(ctx); err != nil {
		to <- prometheus.NewInvalidMetric(imagesDesc, err)
	} else {
		to <- prometheus.MustNewConstMetric(imagesDesc, gauge, float64(n))
	}
	up, memory := c.source.KeeperUse()
	value := 0.0
	if up {
		value = 1
		to <- prometheus.MustNewConstMetric(keeperMemDesc, gauge, float64(memory))
	}
	to <- prometheus.MustNewConstMetric(keeperUpDesc, gauge, value)
}

func (c *collector) containers(to chan<- prometheus.Metric) {
	o, err := c.source.Overview()
	if err != nil {
		to <- prometheus.NewInvalidMetric(containersDesc, err)
		return
	}
	count := map[string]int{}
	for i := range o.Containers {
		u := &o.Containers[i]
		count[u.Status]++
		if u.Status != "running" && u.Status != "paused" {
			continue
		}
		for _, f := range figures {
			if v, ok := f.of(u); ok {
				to <- prometheus.MustNewConstMetric(f.desc, f.kind, v, u.ID, u.Name, u.Image)
			}
		}
	}
	for _, s := range states {
		to <- prometheus.MustNewConstMetric(containersDesc, gauge, float64(count[s]), s)
	}
}
