// Package telemetry tells others what the daemon does: metrics for Prometheus,
// profiles, and traces for OpenTelemetry.
package telemetry

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
)

// Source is what the figures are asked of. *engine.Engine is one.
type Source interface {
	Overview() (*engine.Overview, error)
	ImageCount(ctx context.Context) (int, error)
	KeeperUse() (connected bool, memory uint64)
}

// Metrics counts what the daemon does. Make it with [NewMetrics].
type Metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	operations *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	running    *prometheus.GaugeVec
}

// NewMetrics makes the metrics of this process.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_api_requests_total", Help: "Requests of the API that were answered, by route and status code; 0 for connections taken over as streams.",
		}, []string{"route", "code"}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_engine_operations_total", Help: "Operations of the engine that have ended, by outcome: ok or the class of the error.",
		}, []string{"operation", "result"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "berth_engine_operation_duration_seconds", Help: "How long operations of the engine took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"operation"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "berth_engine_operations_in_progress", Help: "Operations of the engine that have begun and not ended.",
		}, []string{"operation"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "berth_build_info", Help: "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.operations, m.durations, m.running, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, name := range engine.Operations() { // there from the start, so that rates are
		m.operations.WithLabelValues(name, "ok")
		m.durations.WithLabelValues(name)
		m.running.WithLabelValues(name)
	}
	return m
}

// Watch adds the figures of containers, images and the keeper, which are asked
// for whenever somebody looks.
func (m *Metrics) Watch(s Source) { m.registry.MustRegister(&collector{s}) }

// Handler answers with the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// operation counts one; end is called with its outcome.
func (m *Metrics) operation(name string) (end func(error)) {
	began := time.Now()
	m.running.WithLabelValues(name).Inc()
	return func(err error) {
		m.running.WithLabelValues(name).Dec()
		m.durations.WithLabelValues(name).Observe(time.Since(began).Seconds())
		m.operations.WithLabelValues(name, result(err)).Inc()
	}
}

func (m *Metrics) request(route string, status int) {
	if route == "/" {
		route = "none" // no such page
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// result is an error's class in a word.
func result(err error) string {
	for _, c := range []struct {
		class error
		name  string
	}{
		{nil, "ok"}, {errdefs.ErrNotModified, "not_modified"}, {errdefs.ErrInvalid, "invalid"}, {errdefs.ErrNotFound, "not_found"},
		{errdefs.ErrConflict, "conflict"}, {errdefs.ErrPermission, "permission"}, {errdefs.ErrUnsupported, "unsupported"},
		{errdefs.ErrUnavailable, "unavailable"}, {context.Canceled, "canceled"},
	} {
		if c.class == nil && err == nil || c.class != nil && errors.Is(err, c.class) {
			return c.name
		}
	}
	return "error"
}
