package docker

import (
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/volume"
)

// volumeCreate answers POST /volumes/create, also for a volume that exists.
func (s *Server) volumeCreate(w *response, r *request) error {
	var req volume.CreateRequest
	if err := r.body(&req); err != nil {
		return err
	}
	made, err := s.engine.VolumeCreate(r.Context(), &req)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, withMaps(made))
}

// withMaps writes absent labels as an empty map, as the API has it; options
// are null then.
func withMaps(v *volume.Volume) *volume.Volume {
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	return v
}

// volumeList answers GET /volumes.
func (s *Server) volumeList(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	list, err := s.engine.VolumeList(r.Context(), filters)
	if err != nil {
		return err
	}
	if list == nil {
		list = []volume.Volume{}
	}
	for i := range list {
		withMaps(&list[i])
	}
	return reply(w, http.StatusOK, volume.ListResponse{Volumes: list, Warnings: []string{}})
}

// volumeInspect answers GET /volumes/{name}.
func (s *Server) volumeInspect(w *response, r *request) error {
	found, err := s.engine.VolumeInspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, withMaps(found))
}

// volumeRemove answers DELETE /volumes/{name}.
func (s *Server) volumeRemove(w *response, r *request) error {
	if err := s.engine.VolumeRemove(r.Context(), r.PathValue("name"), r.boolean("force")); err != nil {
		return err
	}
	return noContent(w)
}

// volumePrune answers POST /volumes/prune. Up to API 1.41 it meant named
// volumes as well.
func (s *Server) volumePrune(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if r.version < 42 {
		if filters == nil {
			filters = engine.Filters{}
		}
		filters["all"] = map[string]bool{"true": true}
	}
	report, err := s.engine.VolumePrune(r.Context(), filters)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, report)
}
