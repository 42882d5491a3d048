package docker

import "net/http"

// What Docker's API has no words for is answered below /berth/.

// containerExplain answers GET /berth/containers/{id}/explain.
func (s *Server) containerExplain(w *response, r *request) error {
	explained, err := s.engine.ContainerExplain(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, explained)
}
