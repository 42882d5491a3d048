package docker

import (
	"encoding/binary"
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/container"
)

// execCreate answers POST /containers/{id}/exec.
func (s *Server) execCreate(w *response, r *request) error {
	var body container.ExecCreateRequest
	if err := r.body(&body); err != nil {
		return err
	}
	if len(body.Cmd) == 0 {
		return invalid("no exec command specified")
	}
	id, err := s.engine.ExecCreate(r.Context(), r.PathValue("id"), &body)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

// execStart answers POST /exec/{id}/start: 200 at once when detached, else a
// stream of the process' input and output.
func (s *Server) execStart(w *response, r *request) error {
	var body container.ExecStartRequest
	if _, err := r.optionalBody(&body); err != nil {
		return err
	}
	opt := engine.ExecStartOptions{Detach: body.Detach, Tty: body.Tty, ConsoleSize: body.ConsoleSize}
	id := r.PathValue("id")
	if body.Detach {
		if _, err := s.engine.ExecStart(r.Context(), id, opt); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	prepared, err := s.engine.ExecInspect(r.Context(), id)
	if err != nil {
		return err
	}
	ctx, cancel := s.stream(r)
	defer cancel()
	process, err := s.engine.ExecStart(ctx, id, opt)
	if err != nil {
		return execFailed(w, r, body.Tty, err)
	}
	return s.carry(ctx, w, r, process, prepared.OpenStdin)
}

// execFailed reports that a process could not be started. Clients that ask for
// an upgrade drop the body of any other answer, so they get the message as the
// process' error output, as from dockerd, and the exit code by inspection.
func execFailed(w *response, r *request, tty bool, cause error) error {
	if !r.wantsUpgrade() {
		return cause
	}
	client, err := hijack(w, r, streamType(tty, r.version))
	if err != nil {
		return err
	}
	message := []byte(cause.Error() + "\r\n")
	if !tty {
		frame := [8]byte{0: byte(engine.Stderr)}
		binary.BigEndian.PutUint32(frame[4:], uint32(len(message)))
		message = append(frame[:], message...)
	}
	_, _ = client.Write(message)
	_ = client.Close()
	return nil
}

// execInspect answers GET /exec/{id}/json.
func (s *Server) execInspect(w *response, r *request) error {
	found, err := s.engine.ExecInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, found)
}

// execResize answers POST /exec/{id}/resize.
func (s *Server) execResize(w *response, r *request) error {
	height, width, err := r.size()
	if err != nil {
		return err
	}
	if err := s.engine.ExecResize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
