package docker

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/moby/moby/api/types/container"
)

// pathStatHeader describes the file an archive is of.
const pathStatHeader = "X-Docker-Container-Path-Stat"

// archivePath reads the parameter path.
func (r *request) archivePath() (string, error) {
	path := r.value("path")
	if path == "" {
		return "", invalid("bad parameter: 'path' cannot be empty")
	}
	return path, nil
}

// containerArchive answers GET /containers/{id}/archive with a tar, and HEAD
// with its description alone.
func (s *Server) containerArchive(w *response, r *request) error {
	path, err := r.archivePath()
	if err != nil {
		return err
	}
	return s.engine.ContainerArchive(r.Context(), r.PathValue("id"), path, func(stat container.PathStat) (io.Writer, error) {
		text, err := json.Marshal(stat)
		if err != nil {
			return nil, err
		}
		w.Header().Set(pathStatHeader, base64.StdEncoding.EncodeToString(text))
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusOK)
			return nil, nil
		}
		w.Header().Set("Content-Type", "application/x-tar")
		return w, nil
	})
}

// containerExtract answers PUT /containers/{id}/archive.
func (s *Server) containerExtract(w *response, r *request) error {
	path, err := r.archivePath()
	if err != nil {
		return err
	}
	err = s.engine.ContainerExtract(r.Context(), r.PathValue("id"), path, r.Body, engine.ExtractOptions{
		NoOverwriteDirNonDir: r.boolean("noOverwriteDirNonDir"), CopyUIDGID: r.boolean("copyUIDGID"),
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// containerChanges answers GET /containers/{id}/changes: null when there are none,
// as dockerd.
func (s *Server) containerChanges(w *response, r *request) error {
	list, err := s.engine.ContainerChanges(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, list)
}
