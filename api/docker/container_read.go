package docker

import (
	"encoding/json"
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/container"
)

// containerList answers GET /containers/json.
func (s *Server) containerList(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	limit, err := r.integer("limit")
	if err != nil {
		return err
	}
	opt := engine.ListOptions{All: r.boolean("all"), Size: r.boolean("size"), Filters: filters}
	if limit != nil {
		opt.Limit = *limit
	}
	list, err := s.engine.ContainerList(r.Context(), opt)
	if err != nil {
		return err
	}
	if list == nil {
		list = []container.Summary{}
	}
	return reply(w, http.StatusOK, list)
}

// containerInspect answers GET /containers/{id}/json.
func (s *Server) containerInspect(w *response, r *request) error {
	found, err := s.engine.ContainerInspect(r.Context(), r.PathValue("id"), r.boolean("size"))
	if err != nil {
		return err
	}
	if r.version < 52 {
		return reply(w, http.StatusOK, containerBefore52(found))
	}
	return reply(w, http.StatusOK, found)
}

// containerTop answers GET /containers/{id}/top.
func (s *Server) containerTop(w *response, r *request) error {
	processes, err := s.engine.ContainerTop(r.Context(), r.PathValue("id"), r.value("ps_args"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, processes)
}

// containerStats answers GET /containers/{id}/stats: one sample (one-shot), one
// sample with the one a second before it (stream=false), or one a second.
func (s *Server) containerStats(w *response, r *request) error {
	stream, oneShot := r.booleanOr("stream", true), r.boolean("one-shot")
	if stream && oneShot {
		return invalid("cannot have stream=true and one-shot=true")
	}
	if oneShot {
		sample, err := s.engine.ContainerStats(r.Context(), r.PathValue("id"))
		if err != nil {
			return err
		}
		return reply(w, http.StatusOK, sample)
	}
	ctx, cancel := s.stream(r)
	defer cancel()
	var previous *container.StatsResponse
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	err := s.engine.ContainerStatsFollow(ctx, r.PathValue("id"), func(sample *container.StatsResponse) error {
		if !stream && previous == nil && sample.PreRead.IsZero() && !sample.Read.IsZero() {
			previous = sample
			return nil
		}
		if err := encoder.Encode(sample); err != nil {
			return err
		}
		if !stream {
			return errEnough
		}
		return w.flush()
	})
	return ended(ctx, err)
}
