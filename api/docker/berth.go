package docker

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/berth-containers/berth/engine"
)

// What Docker's API has no words for is answered below /berth/.

// containerExplain answers GET /berth/containers/{id}/explain.
func (s *Server) containerExplain(w *response, r *request) error {
	explained, err := s.engine.ContainerExplain(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, explained)
}

// The pause between two overviews: what is asked for, within bounds.
const (
	overviewEvery = 2 * time.Second
	overviewLeast = 500 * time.Millisecond
)

// overview answers GET /berth/top: an overview of all containers, and another
// one every so often (interval, in seconds) until the client leaves.
func (s *Server) overview(w *response, r *request) error {
	every := overviewEvery
	if text := r.value("interval"); text != "" {
		asked, err := time.ParseDuration(text + "s")
		if err != nil || asked < overviewLeast {
			return invalid("invalid value %q for interval: want seconds, at least %g", text, overviewLeast.Seconds())
		}
		every = asked
	}
	ctx, cancel := s.stream(r)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	err := s.engine.Watch(ctx, every, func(o *engine.Overview) error {
		if err := encoder.Encode(o); err != nil {
			return err
		}
		return w.flush()
	})
	return ended(ctx, err)
}
