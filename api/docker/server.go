// Package docker is the Docker Engine API door: it turns HTTP requests into
// calls of the engine and the engine's answers into JSON and streams. It holds
// no state of its own.
//
// The routes, shapes and status codes are those of the Engine API reference
// (api/swagger.yaml of moby/moby); types come from moby/moby/api. The current
// version is served as is; where an older client expects other fields,
// compat_*.go adds them. What Berth does not do (yet) is answered with 501 and
// a message that names it, never with silence.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/berth-containers/berth/engine"
)

// Config is what a [Server] needs.
type Config struct {
	// Engine does the work. Required.
	Engine Engine
	// Version is this build's version, shown in the Server header. Zero: "dev".
	Version string
	// Observe is told of each request by its route (a pattern of
	// net/http.ServeMux) as it begins, and by the function it returns of the
	// answer's status. The request goes on with the context it returns. Zero:
	// nobody is.
	Observe func(r *http.Request, route string) (_ context.Context, end func(status int))
	// Logger takes one debug line per request and the reason of every 5xx.
	// Zero: discard.
	Logger *slog.Logger
}

// Server serves the API on any number of listeners. Make one with [New].
type Server struct {
	engine Engine
	log    *slog.Logger
	tell   func(r *http.Request, route string) (context.Context, func(status int))
	banner string
	routes *http.ServeMux
	http   *http.Server
	// operations are the requests being answered.
	operations engine.OperationTable

	// draining ends when Shutdown begins: answers without an end of their own
	// (events, followed logs, waits, attachments) stop then.
	draining context.Context
	drain    context.CancelFunc
	// hijacked counts the connections taken over from HTTP, which http.Server
	// forgets.
	hijacked sync.WaitGroup
	doors    doors
	fresh    freshConns
}

// headerTimeout bounds how long a client may take to send its request line and
// headers. There is no limit on bodies and answers: uploads and streams last as
// long as they last.
const headerTimeout = 30 * time.Second

// New returns a server in front of cfg.Engine.
func New(cfg Config) *Server {
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	draining, drain := context.WithCancel(context.Background())
	s := &Server{
		engine:   cfg.Engine,
		log:      cfg.Logger,
		tell:     cfg.Observe,
		banner:   "Berth/" + cfg.Version + " (linux)",
		draining: draining,
		drain:    drain,
	}
	s.fresh.grace = freshGrace
	s.routes = s.newRoutes()
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnState:         s.fresh.changed,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return s.fresh.enter(markLocalTCP(ctx, c), c)
		},
	}
	return s
}

// Serve answers requests on l until [Server.Shutdown], then returns nil.
func (s *Server) Serve(l net.Listener) error {
	one := s.doors.add(l)
	defer s.doors.serving.Done()
	err := s.http.Serve(one)
	if err != nil && !errors.Is(err, http.ErrServerClosed) && s.draining.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown closes the listeners, ends the endless answers and waits for the
// others until ctx ends; what is still running then is cut off. Whose connection was
// accepted gets an answer.
func (s *Server) Shutdown(ctx context.Context) error {
	s.drain()
	s.doors.close()
	s.fresh.wait(ctx)
	err := s.http.Shutdown(ctx)
	if err == nil {
		s.hijacked.Wait()
		return nil
	}
	return errors.Join(fmt.Errorf("shut down API: %w", err), s.http.Close())
}

// stream returns the context for an answer without an end of its own: it ends
// with the request or when the server drains.
func (s *Server) stream(r *request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.draining, cancel)
	return ctx, func() { stop(); cancel() }
}

// ServeHTTP answers one request: version, route, handler, error.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.fresh.begun(r)
	header := w.Header()
	header.Set("Server", s.banner)
	header.Set("Api-Version", currentVersion.String())
	header.Set("Ostype", "linux")
	header.Set("Docker-Experimental", "false")

	answer := &response{ResponseWriter: w}
	s.log.Debug("request", "method", r.Method, "url", r.URL.Path)
	if err := refuseBrowser(r); err != nil {
		s.fail(answer, r, err)
		return
	}
	version, r, err := splitVersion(r)
	if err != nil {
		s.fail(answer, r, err)
		return
	}
	r = r.WithContext(withVersion(r.Context(), version))
	if s.tell != nil {
		_, route := s.routes.Handler(r)
		ctx, end := s.tell(r, route)
		r = r.WithContext(ctx)
		defer func() { end(answer.status) }()
	}
	s.routes.ServeHTTP(answer, r)
}

// handler answers one route. An error before the first byte of the answer
// becomes a JSON error; one after it cuts the connection, so that the client
// sees that the answer is not complete.
type handler func(w *response, r *request) error

// request is an HTTP request with the API version it is made in.
type request struct {
	*http.Request
	version version
}

// response remembers whether the answer has begun.
type response struct {
	http.ResponseWriter
	started bool
	// status is 0 until the answer has begun, and when the connection was taken over.
	status    int
	operation *engine.Operation

	// ending guards ended: what is written now is the answer's end.
	ending sync.Mutex
	ended  bool
}

// WriteHeader starts the answer.
func (w *response) WriteHeader(status int) {
	w.started, w.status = true, status
	w.ResponseWriter.WriteHeader(status)
}

// Write starts the answer with 200 when nothing did.
func (w *response) Write(p []byte) (int, error) {
	w.started = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
	defer w.operation.AwaitsClient(clientReads)()
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// flush sends what is written so far to the client.
func (w *response) flush() error {
	w.started = true
	defer w.operation.AwaitsClient(clientReads)()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// handle makes a http.Handler of h.
func (s *Server) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, ok := w.(*response)
		if !ok {
			answer = &response{ResponseWriter: w}
		}
		r, end := s.begin(answer, r)
		defer end()
		if err := answer.cancelled(h(answer, &request{Request: r, version: versionOf(r.Context())})); err != nil {
			s.fail(answer, r, err)
		}
	}
}
