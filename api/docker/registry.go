package docker

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/berth-containers/berth/engine"
	"github.com/berth-containers/berth/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
)

// imagePush answers POST /images/{name}/push. Without a tag all tags of the
// repository are pushed.
func (s *Server) imagePush(w *response, r *request, name string) error {
	if tag := r.value("tag"); tag != "" {
		name += ":" + tag
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return errdefs.WithHint(errdefs.As(errdefs.ErrInvalid, err), imageNameHint)
	}
	opt := engine.ImagePushOptions{AllTags: reference.IsNameOnly(named)}
	if opt.Platform, err = r.platform(); err != nil {
		return err
	}
	if opt.Auth, err = r.registryAuth(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := newProgress(w)
	opt.Progress = out.event
	return out.close(s.engine.ImagePush(r.Context(), named.String(), opt))
}

// registryLogin answers POST /auth. A registry's no is 401, as Docker's clients
// expect: they then ask the user again.
func (s *Server) registryLogin(w *response, r *request) error {
	var auth registry.AuthConfig
	if err := r.body(&auth); err != nil {
		return err
	}
	answer, err := s.engine.RegistryLogin(r.Context(), &auth)
	if errors.Is(err, errdefs.ErrPermission) {
		if hint := errdefs.Hint(err); hint != "" {
			w.Header().Set(hintHeader, hint)
		}
		writeError(w, http.StatusUnauthorized, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, answer)
}

// distribution answers GET /distribution/{name}/json.
func (s *Server) distribution(w *response, r *request) error {
	name, action := lastSegment(r.PathValue("path"))
	if name == "" || action != "json" {
		return pageNotFound(w, r)
	}
	auth, err := r.registryAuth()
	if err != nil {
		return err
	}
	found, err := s.engine.DistributionInspect(r.Context(), name, auth)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, found)
}

// pushAux is the last message of a pushed tag, for programs.
func pushAux(p *engine.Pushed) *json.RawMessage {
	text, err := json.Marshal(struct {
		Tag    string
		Digest string
		Size   int64
	}{p.Tag, p.Digest.String(), p.Size})
	if err != nil {
		return nil
	}
	raw := json.RawMessage(text)
	return &raw
}
