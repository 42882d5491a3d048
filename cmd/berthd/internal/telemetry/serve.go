package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Server answers those who look at the daemon.
type Server struct {
	servers   []*http.Server
	listeners []net.Listener
	group     errgroup.Group
}

// headerTimeout bounds how long a client may take to say what it wants.
const headerTimeout = 10 * time.Second

// Listen opens a unix socket that only root may use, for metrics, profiles and
// the log's level, and a TCP address for metrics alone; each empty for none.
// Nothing is served before [Server.Serve].
func Listen(socket, address string, m *Metrics, level *slog.LevelVar) (_ *Server, err error) {
	s := new(Server)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if socket != "" {
		l, err := listenUnix(socket)
		if err != nil {
			return s, err
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", m.Handler())
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.Handle("/log-level", levelHandler(level))
		s.add(l, mux)
	}
	if address != "" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return s, fmt.Errorf("metrics: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", m.Handler())
		s.add(l, mux)
	}
	return s, nil
}

// listenUnix opens a socket of mode 0600, over one that a killed daemon has left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("debug socket: %w", err)
	}
	old := unix.Umask(0o177) // from its first moment
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("debug socket: %w", err)
	}
	return l, nil
}

func (s *Server) add(l net.Listener, h http.Handler) {
	s.listeners = append(s.listeners, l)
	s.servers = append(s.servers, &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout})
}

// Serve answers in the background until [Server.Close].
func (s *Server) Serve() {
	for i, server := range s.servers {
		s.group.Go(func() error {
			if err := server.Serve(s.listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
}

// Close ends it; an answer under way, a profile say, is cut off.
func (s *Server) Close() error {
	var errs []error
	for i, server := range s.servers {
		errs = append(errs, server.Close())
		if err := s.listeners[i].Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.group.Wait())...)
}

// levelHandler shows the log's level and, on PUT or POST with the level as the
// parameter or the body, changes it.
func levelHandler(level *slog.LevelVar) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
		case http.MethodPut, http.MethodPost:
			text := r.URL.Query().Get("level")
			if text == "" {
				body, err := io.ReadAll(io.LimitReader(r.Body, 64))
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				text = string(body)
			}
			if err := level.UnmarshalText([]byte(text)); err != nil {
				http.Error(w, fmt.Sprintf("log-level %q: want debug, info, warn or error", text), http.StatusBadRequest)
				return
			}
		default:
			w.Header().Set("Allow", "GET, PUT, POST")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		fmt.Fprintln(w, level.Level())
	})
}
