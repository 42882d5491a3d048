package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// endpointVariables turn tracing on, as OpenTelemetry's specification has them.
// The others of OTEL_* (headers, sampler, service name, ...) are obeyed then.
var endpointVariables = []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}

// Tracer makes spans of requests and operations; nil makes none.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// NewTracer makes a tracer that sends to an OTLP/HTTP receiver: the endpoint
// given (a URL; empty for none), or the one that the environment names. It is
// nil when there is neither: nothing is made, and nothing sent, then.
func NewTracer(ctx context.Context, endpoint, version string) (*Tracer, error) {
	var options []otlptracehttp.Option
	switch {
	case endpoint != "":
		options = append(options, otlptracehttp.WithEndpointURL(endpoint))
	case os.Getenv(endpointVariables[0]) == "" && os.Getenv(endpointVariables[1]) == "":
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("trace exporter: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "berthd"), attribute.String("service.version", version)),
		resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("trace resource: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/berth-containers/berth")}, nil
}

// Close sends what has not been sent yet.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("end tracing: %w", err)
	}
	return nil
}

// Observer is what the engine and its doors tell of their work.
type Observer struct {
	Metrics *Metrics
	Tracer  *Tracer
}

// Operation is an engine.Observe.
func (o *Observer) Operation(ctx context.Context, operation, object string) (context.Context, func(error)) {
	done := o.Metrics.operation(operation)
	if o.Tracer == nil {
		return ctx, done
	}
	ctx, span := o.Tracer.tracer.Start(ctx, operation, trace.WithAttributes(attribute.String("berth.object", object)))
	return ctx, func(err error) {
		done(err)
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
			span.SetAttributes(attribute.String("error.type", result(err)))
		}
		span.End()
	}
}

// Request is told of a request of the API; a caller's own trace goes on in it.
func (o *Observer) Request(r *http.Request, route string) (context.Context, func(int)) {
	if o.Tracer == nil {
		return r.Context(), func(status int) { o.Metrics.request(route, status) }
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := o.Tracer.tracer.Start(ctx, route, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route), attribute.String("url.path", r.URL.Path)))
	return ctx, func(status int) {
		o.Metrics.request(route, status)
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		span.End()
	}
}
