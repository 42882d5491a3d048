package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
)

// host is a source of figures.
type host struct{ broken error }

func (h host) Overview() (*engine.Overview, error) {
	return &engine.Overview{Containers: []engine.ContainerUse{
		{ID: "c1", Name: "web", Image: "box", Status: "running", CPU: 1_500_000_000, CPUs: .5, Memory: 10, MemoryLimit: 20, Pids: 3, PidsLimit: 9, Health: "healthy",
			StartedAt: time.Unix(1000, 0)},
		{ID: "c2", Name: "free", Status: "paused", CPUPressure: -1, MemoryPressure: -1, IOPressure: -1},
		{ID: "c3", Name: "gone", Status: "exited"},
	}}, h.broken
}
func (h host) ImageCount(context.Context) (int, error) { return 7, h.broken }
func (host) KeeperUse() (bool, uint64)                 { return true, 4096 }

func page(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func measured() *Metrics {
	m := NewMetrics("1.2.3")
	m.Watch(host{})
	o := &Observer{Metrics: m}
	_, end := o.Operation(context.Background(), engine.OpStart, "c1")
	end(nil)
	_, end = o.Operation(context.Background(), engine.OpStart, "c1")
	end(fmt.Errorf("start: %w", errdefs.ErrConflict))
	_, answered := o.Request(httptest.NewRequest("GET", "/info", nil), "GET /info")
	answered(200)
	return m
}

func TestMetrics(t *testing.T) {
	text := page(t, measured())
	for _, want := range []string{
		`berth_engine_operations_total{operation="start",result="ok"} 1`, `berth_engine_operations_total{operation="start",result="conflict"} 1`,
		`berth_engine_operation_duration_seconds_count{operation="start"} 2`, `berth_engine_operations_in_progress{operation="start"} 0`,
		`berth_api_requests_total{code="200",route="GET /info"} 1`, `berth_containers{state="running"} 1`, `berth_containers{state="dead"} 0`,
		`berth_images 7`, `berth_keeper_up 1`, `berth_keeper_resident_memory_bytes 4096`, `berth_build_info{goversion="go`,
		`berth_container_cpu_seconds_total{id="c1",image="box",name="web"} 1.5`, `berth_container_memory_limit_bytes{id="c1",image="box",name="web"} 20`,
		`berth_container_healthy{id="c1",image="box",name="web"} 1`, `go_goroutines `, `process_open_fds `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, never := range []string{`berth_container_memory_limit_bytes{id="c2"`, `berth_container_cpu_pressure_ratio{id="c2"`, `id="c3"`, `berth_container_healthy{id="c2"`} {
		if strings.Contains(text, never) {
			t.Errorf("%s is there", never)
		}
	}
}

// TestConventions: names, units and help are as Prometheus wants them.
func TestConventions(t *testing.T) {
	problems, err := testutil.GatherAndLint(measured().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestDocumented: docs/metrics.md has every metric of ours, and no other.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(pattern, text string) []string {
		var list []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			list = append(list, m[1])
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	have := names("(?m)^\\| `(berth_[a-z_]+)`", string(doc))
	want := names(`(?m)^# TYPE (berth_[a-z_]+) `, page(t, measured()))
	if !slices.Equal(have, want) {
		t.Errorf("documented\n%q, there are\n%q", have, want)
	}
}

// TestSocket: only root may use it, and what else it answers.
func TestSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	level := new(slog.LevelVar)
	s, err := Listen(socket, "127.0.0.1:0", measured(), level)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	ask := func(network, address, method, path string) (int, string) {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial(network, address)
		}}}
		req, _ := http.NewRequest(method, "http://berth"+path, nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	tcp := s.listeners[1].Addr().String()
	for _, test := range []struct {
		network, address, method, path string
		code                           int
		want                           string
	}{
		{"unix", socket, "GET", "/metrics", 200, "berth_images 7"}, {"unix", socket, "GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"unix", socket, "GET", "/log-level", 200, "INFO"}, {"unix", socket, "PUT", "/log-level?level=debug", 200, "DEBUG"},
		{"unix", socket, "PUT", "/log-level?level=loud", 400, "want debug, info, warn or error"}, {"unix", socket, "DELETE", "/log-level", 405, ""},
		{"tcp", tcp, "GET", "/metrics", 200, "berth_images 7"}, {"tcp", tcp, "GET", "/debug/pprof/", 404, ""}, {"tcp", tcp, "PUT", "/log-level?level=error", 404, ""},
	} {
		code, body := ask(test.network, test.address, test.method, test.path)
		if code != test.code || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %d %.80q", test.method, test.path, code, body)
		}
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("level %s", level)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// receiver takes spans by OTLP/HTTP.
type receiver struct {
	mu    sync.Mutex
	spans []span
}

type span struct{ name, id, parent, trace string }

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	var sent v1.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &sent); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range sent.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, span{s.Name, fmt.Sprintf("%x", s.SpanId), fmt.Sprintf("%x", s.ParentSpanId), fmt.Sprintf("%x", s.TraceId)})
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// TestTraces: a request's span holds those of what it led to, and goes on with
// the caller's trace.
func TestTraces(t *testing.T) {
	for _, name := range endpointVariables {
		t.Setenv(name, "")
	}
	if tracer, err := NewTracer(t.Context(), "", "1"); tracer != nil || err != nil {
		t.Fatalf("a tracer that nobody asked for: %v, %v", tracer, err)
	}
	taken := &receiver{}
	server := httptest.NewServer(taken)
	defer server.Close()
	for i, configure := range []func() string{
		func() string { return server.URL + "/v1/traces" },
		func() string { t.Setenv(endpointVariables[1], server.URL); return "" },
	} {
		taken.spans = nil
		tracer, err := NewTracer(t.Context(), configure(), "1")
		if err != nil {
			t.Fatal(err)
		}
		o := &Observer{Metrics: NewMetrics("1"), Tracer: tracer}
		req := httptest.NewRequest("POST", "/containers/web/start", nil)
		req.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		ctx, answered := o.Request(req, "POST /containers/{id}/start")
		ctx, ended := o.Operation(ctx, engine.OpStart, "web")
		_, keeper := o.Operation(ctx, engine.OpKeeperStart, "web")
		keeper(errors.New("no"))
		ended(nil)
		answered(204)
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(taken.spans) != 3 {
			t.Fatalf("%d: spans %v", i, taken.spans)
		}
		k, s, r := taken.spans[0], taken.spans[1], taken.spans[2]
		if k.name != "keeper_start" || s.name != "start" || r.name != "POST /containers/{id}/start" || k.parent != s.id || s.parent != r.id ||
			r.parent != "b7ad6b7169203331" || k.trace != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%d: spans %v", i, taken.spans)
		}
	}
}
