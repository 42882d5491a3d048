package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/berth-containers/berth/errdefs"
	"github.com/moby/moby/api/types/common"
)

// hintHeader carries an error's hint. Docker's error body has one field, the
// message; clients that know the header print it on a line of its own.
const hintHeader = "Berth-Hint"

// statuses maps the error classes to HTTP status codes, first match first, as
// the Engine API reference uses them.
var statuses = []struct {
	class  error
	status int
}{
	{errdefs.ErrNotModified, http.StatusNotModified},
	{errdefs.ErrInvalid, http.StatusBadRequest},
	{errdefs.ErrNotFound, http.StatusNotFound},
	{errdefs.ErrConflict, http.StatusConflict},
	{errdefs.ErrPermission, http.StatusForbidden},
	{errdefs.ErrUnsupported, http.StatusNotImplemented},
	{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
}

// statusOf returns the HTTP status of an error's class, 500 when it has none.
func statusOf(err error) int {
	for _, s := range statuses {
		if errors.Is(err, s.class) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}

// fail answers with an error, or cuts the connection when the answer has begun.
func (s *Server) fail(w *response, r *http.Request, err error) {
	if w.started {
		if !errors.Is(err, context.Canceled) {
			s.log.Info("answer cut off", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	if status == http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if hint := errdefs.Hint(err); hint != "" {
		w.Header().Set(hintHeader, strings.Join(strings.Fields(hint), " "))
	}
	writeError(w, status, err.Error())
}

// writeError writes Docker's error body. The content type is exactly
// application/json: clients compare it.
func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(common.ErrorResponse{Message: message})
}

// reply answers with a JSON body.
func reply(w *response, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that went away is not an error of the request.
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// noContent answers 204.
func noContent(w *response) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}
