package docker

import (
	"github.com/berth-containers/berth/engine"
)

// containerAttach answers POST /containers/{id}/attach.
func (s *Server) containerAttach(w *response, r *request) error {
	ctx, cancel := s.stream(r)
	defer cancel()
	stdin := r.boolean("stdin")
	process, err := s.engine.ContainerAttach(ctx, r.PathValue("id"), engine.AttachOptions{
		Stdin:      stdin,
		Stdout:     r.boolean("stdout"),
		Stderr:     r.boolean("stderr"),
		Logs:       r.boolean("logs"),
		Stream:     r.boolean("stream"),
		DetachKeys: r.value("detachKeys"),
	})
	if err != nil {
		return err
	}
	return s.carry(ctx, w, r, process, stdin)
}
