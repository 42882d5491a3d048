package docker

import (
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/image"
)

// imageGet answers GET /images/{name}/json, .../history and .../get.
func (s *Server) imageGet(w *response, r *request) error {
	name, action := lastSegment(r.PathValue("path"))
	switch {
	case name == "":
	case action == "json":
		return s.imageInspect(w, r, name)
	case action == "history":
		return s.imageHistory(w, r, name)
	case action == "get":
		return s.saveImages(w, r, []string{name})
	case action == "attestations":
		return notSupported("listing an image's attestations")
	}
	return pageNotFound(w, r)
}

// imagePost answers POST /images/{name}/tag and .../push.
func (s *Server) imagePost(w *response, r *request) error {
	name, action := lastSegment(r.PathValue("path"))
	switch {
	case name == "":
	case action == "tag":
		return s.imageTag(w, r, name)
	case action == "push":
		return s.imagePush(w, r, name)
	}
	return pageNotFound(w, r)
}

// imageList answers GET /images/json.
func (s *Server) imageList(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	list, err := s.engine.ImageList(r.Context(), engine.ImageListOptions{
		All:            r.boolean("all"),
		ContainerCount: r.version >= 51,
		SharedSize:     r.boolean("shared-size"),
		Manifests:      r.version >= 47 && r.boolean("manifests"),
		Filters:        filters,
	})
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, imagesFor(r.version, list))
}

// imageInspect answers GET /images/{name}/json.
func (s *Server) imageInspect(w *response, r *request, name string) error {
	found, err := s.engine.ImageInspect(r.Context(), name)
	if err != nil {
		return err
	}
	if r.version < 48 || !r.boolean("manifests") {
		found.Manifests = nil
	}
	if r.version < 52 {
		return reply(w, http.StatusOK, imageBefore52(found, r.version))
	}
	return reply(w, http.StatusOK, found)
}

// imageHistory answers GET /images/{name}/history.
func (s *Server) imageHistory(w *response, r *request, name string) error {
	steps, err := s.engine.ImageHistory(r.Context(), name)
	if err != nil {
		return err
	}
	if steps == nil {
		steps = []image.HistoryResponseItem{}
	}
	return reply(w, http.StatusOK, steps)
}

// imageTag answers POST /images/{name}/tag.
func (s *Server) imageTag(w *response, r *request, name string) error {
	if err := s.engine.ImageTag(r.Context(), name, r.reference("repo")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// imageRemove answers DELETE /images/{name}.
func (s *Server) imageRemove(w *response, r *request) error {
	removed, err := s.engine.ImageRemove(r.Context(), r.PathValue("name"), engine.ImageRemoveOptions{
		Force: r.boolean("force"), NoPrune: r.boolean("noprune"),
	})
	if err != nil {
		return err
	}
	if removed == nil {
		removed = []image.DeleteResponse{}
	}
	return reply(w, http.StatusOK, removed)
}

// imagePrune answers POST /images/prune.
func (s *Server) imagePrune(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := s.engine.ImagePrune(r.Context(), filters)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, report)
}
