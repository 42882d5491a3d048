package docker

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/container"
)

// containerStart answers POST /containers/{id}/start: 204, 304 when it runs.
func (s *Server) containerStart(w *response, r *request) error {
	if r.value("checkpoint") != "" {
		return notSupported("starting from a checkpoint")
	}
	if err := s.engine.ContainerStart(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

// stopOptions reads the parameters t and signal.
func (r *request) stopOptions() (engine.StopOptions, error) {
	timeout, err := r.integer("t")
	return engine.StopOptions{Signal: r.value("signal"), Timeout: timeout}, err
}

// containerStop answers POST /containers/{id}/stop: 204, 304 when it does not run.
func (s *Server) containerStop(w *response, r *request) error {
	opt, err := r.stopOptions()
	if err != nil {
		return err
	}
	if err := s.engine.ContainerStop(r.Context(), r.PathValue("id"), opt); err != nil {
		return err
	}
	return noContent(w)
}

// containerRestart answers POST /containers/{id}/restart.
func (s *Server) containerRestart(w *response, r *request) error {
	opt, err := r.stopOptions()
	if err != nil {
		return err
	}
	if err := s.engine.ContainerRestart(r.Context(), r.PathValue("id"), opt); err != nil {
		return err
	}
	return noContent(w)
}

// containerKill answers POST /containers/{id}/kill.
func (s *Server) containerKill(w *response, r *request) error {
	if err := s.engine.ContainerKill(r.Context(), r.PathValue("id"), r.value("signal")); err != nil {
		return err
	}
	return noContent(w)
}

// containerPause answers POST /containers/{id}/pause.
func (s *Server) containerPause(w *response, r *request) error {
	if err := s.engine.ContainerPause(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

// containerUnpause answers POST /containers/{id}/unpause.
func (s *Server) containerUnpause(w *response, r *request) error {
	if err := s.engine.ContainerUnpause(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

// containerWait answers POST /containers/{id}/wait. The headers go out at once:
// clients take them as the sign that the wait stands and only then start the
// container.
func (s *Server) containerWait(w *response, r *request) error {
	condition := container.WaitCondition(r.value("condition"))
	switch condition {
	case "":
		condition = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return invalid("invalid condition: %q", condition)
	}
	ctx, cancel := s.stream(r)
	defer cancel()
	exits, err := s.engine.ContainerWait(ctx, r.PathValue("id"), condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if err := w.flush(); err != nil {
		return err
	}
	exit, ok := <-exits
	if !ok {
		return errors.Join(ctx.Err(), errNoExit)
	}
	return json.NewEncoder(w).Encode(exit)
}

// containerResize answers POST /containers/{id}/resize.
func (s *Server) containerResize(w *response, r *request) error {
	height, width, err := r.size()
	if err != nil {
		return err
	}
	if err := s.engine.ContainerResize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// size reads the parameters h and w of a terminal.
func (r *request) size() (height, width uint, err error) {
	if height, err = r.dimension("h"); err != nil {
		return 0, 0, err
	}
	width, err = r.dimension("w")
	return height, width, err
}

// containerRemove answers DELETE /containers/{id}.
func (s *Server) containerRemove(w *response, r *request) error {
	if r.boolean("link") {
		return notSupported("removing links")
	}
	opt := engine.RemoveOptions{Force: r.boolean("force"), Volumes: r.boolean("v")}
	if err := s.engine.ContainerRemove(r.Context(), r.PathValue("id"), opt); err != nil {
		return err
	}
	return noContent(w)
}

// containerPrune answers POST /containers/prune.
func (s *Server) containerPrune(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := s.engine.ContainerPrune(r.Context(), filters)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, report)
}
